"""Top-1 of vanilla and octave networks on small sets of real videos, some seeds of each, beside
what a clip costs.

    python benchmarks/experiments.py run ut_interaction ../shared/data runs/experiments [--seeds 1 2 3]
    python benchmarks/experiments.py table ut_interaction     markdown of docs/results_tables.md

The folder ../shared/data holds the videos and weights/. What is compared is written in studies.py
beside this file; it is run as `octvideo sweep` runs things, in runs/experiments/<study>, so that the
same command continues an interrupted series. Small frames of the videos and lists are beside them.
What was found is recorded in --results (benchmarks/results), a line a run. The test list is seen
once, at the end of a run.
"""

import argparse
import csv
import json
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from studies import CONFIG, FOLDS, STUDIES, WEIGHTS, Row, Study

from octvideo.data.transforms import resize_short_side
from octvideo.data.video.decode import iter_frames
from octvideo.engine.threads import available_cores
from octvideo.errors import exit_on_user_error
from octvideo.study import Sweep, measure_times, run_sweep
from octvideo.study.statistics import difference, independent, spread
from octvideo.study.summary import Line, lines_of
from octvideo.study.sweep import measured_times
from octvideo.study.tables import markdown, write_runs
from octvideo.study.trial import unread_note

REPO = Path(__file__).resolve().parent.parent
LISTS = "DATA.PATH_TO_DATA_DIR"
Run = dict[str, Any]
List = list[tuple[str, str]]  # file name and label


# --- Records


def read_study(path: Path) -> Run:
    return json.loads(path.read_text()) if path.is_file() else {"clip_seconds": {}, "runs": []}


def write_study(path: Path, content: Run) -> None:
    write_runs(path, {key: content[key] for key in content if key != "runs"}, content["runs"])


def check_settings(content: Run, study: Study) -> None:
    """Runs of other settings are of another table."""
    had, has = content.get("settings"), study.all_settings
    if had not in (None, has):
        sys.exit(
            f"error: {study.name}.json was made with other settings than studies.py; give another"
            " --results"
        )
    content["settings"] = has


def key_of(run: Run) -> tuple[Any, ...]:
    return tuple(run[name] for name in (*Row._fields, "seed", "split"))


def record(study: Study, sweep: Sweep, out: Path, content: Run) -> None:
    """Put what the sweep in `out` found into `content`, in place of records of the same runs."""
    found = [run for line in lines_of(sweep, out) for run in records_of(study, line, out)]
    keys = {key_of(run) for run in found}
    content["runs"] = [run for run in content["runs"] if key_of(run) not in keys] + found
    times = measured_times(sweep, out)
    if len(times) == len(study.rows):  # those of some rows do not compare with another day's
        content["clip_seconds"] = {name: round(ms / 1000, 4) for name, ms in times.items()}


def records_of(study: Study, line: Line, out: Path) -> Iterator[Run]:
    row = next(row for row in study.rows if row.name == line.variant.row)
    for repetition, found in line.runs.items():
        folder = out / "runs" / line.variant.folder(repetition)
        values = dict(word.split("=", 1) for word in repetition)
        yield row._asdict() | {
            "seed": int(values["RNG_SEED"]),
            "split": Path(values[LISTS]).name.replace("_", " "),
            "top1": found["top1_acc"],
            "interval": found["top1_interval"],
            "loss": round(found["log_loss"], 4),
            "videos": found["num_videos"],
            "gflops": line.network["gflops_per_view"],
            "parameters": line.network["parameters"],
            "date": date.fromtimestamp((folder / "results.json").stat().st_mtime).isoformat(),
            "hardware": hardware(),
            **{key: found[key] for key in ("frame_order", "num_unread") if found.get(key)},
        }


def hardware() -> str:
    """The GPU, or what Linux calls the processor."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), "a CPU"
    )
    return f"{available_cores()} core(s) of {processor}, torch {torch.__version__}"


# --- Lists


def read_pairs(path: Path) -> List:
    return [(name, label) for name, label in map(str.split, path.read_text().splitlines())]


def splits(study: Study, videos: Path) -> Iterator[tuple[str, List, List]]:
    """Name, training list and test list of each part of `study.parts`; no recording is on both
    sides."""
    train, test = read_pairs(videos / "train.csv"), read_pairs(videos / "test.csv")
    if study.parts == "test":
        yield "test", train, test
        return
    if (videos / "folds.csv").is_file():
        yield from given_folds(videos, train + test)
        return
    with (videos / "sequences.csv").open() as file:
        sequence = {row["file"]: int(row["sequence"]) for row in csv.DictReader(file)}
    if study.parts == "held out":
        third = set(sorted({sequence[path] for path, _ in train})[2::3])
        yield (
            "held out",
            *divided(train, {path for path, number in sequence.items() if number in third}),
        )
        return
    for fold in sorted({number % FOLDS for number in sequence.values()}):
        held = {path for path, number in sequence.items() if number % FOLDS == fold}
        yield f"fold {fold + 1} of {FOLDS}", *divided(train + test, held)


def given_folds(videos: Path, pairs: List) -> Iterator[tuple[str, List, List]]:
    """The folds that the set comes with: folds.csv has a column `fold` for each `path`."""
    with (videos / "folds.csv").open() as file:
        fold_of = {row["path"]: int(row["fold"]) for row in csv.DictReader(file)}
    folds = sorted(set(fold_of.values()))
    for number, fold in enumerate(folds, 1):
        held = {path for path, own in fold_of.items() if own == fold}
        yield f"fold {number} of {len(folds)}", *divided(pairs, held)


def divided(pairs: List, held: set[str]) -> tuple[List, List]:
    return [pair for pair in pairs if pair[0] not in held], [
        pair for pair in pairs if pair[0] in held
    ]


def extract(videos: Path, target: Path, short_side: int) -> dict[str, int]:
    """Every listed video as a folder of small jpg frames, aspect kept; how many frames each has.

    Reading 8 frames then takes a third of the time that opening a file does. What is there already
    is kept.
    """
    counts = {}
    for path, _ in read_pairs(videos / "train.csv") + read_pairs(videos / "test.csv"):
        folder = target / Path(path).stem
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            part.mkdir(parents=True, exist_ok=True)
            for i, frame in enumerate(iter_frames(str(videos / path))):
                small = resize_short_side(
                    torch.from_numpy(frame).movedim(-1, 0).unsqueeze(1), short_side
                )
                Image.fromarray(small.squeeze(1).movedim(0, -1).numpy()).save(
                    part / f"{i:05d}.jpg", quality=95
                )
            part.rename(folder)
        counts[path] = len(list(folder.iterdir()))
    return counts


def write_lists(
    videos: Path, train: List, test: List, num_frames: dict[str, int], folder: Path
) -> None:
    """train.csv, test.csv, and test.csv as val.csv, which the trainer wants and looks at after its
    last step."""
    folder.mkdir(parents=True, exist_ok=True)
    names = next(videos.glob("class*.txt"))  # classes.txt or class_names.txt
    shutil.copyfile(names, folder / "class_names.txt")
    for name, rows in (("train", train), ("val", test), ("test", test)):
        lines = (f"{Path(path).stem} {num_frames[path]} {label}\n" for path, label in rows)
        (folder / f"{name}.csv").write_text("".join(lines))


def frames_of(study: Study, out: Path) -> Path:
    """The folder of the study's small frames, which studies of one size share."""
    return out / "frames" / f"{study.videos}_{study.short_side}"


def prepare(study: Study, videos: Path, out: Path) -> list[Path]:
    """Frames and lists below `out`; the folders of lists of the study's parts."""
    num_frames = extract(videos, frames_of(study, out), study.short_side)
    folders = []
    for split, train, test in splits(study, videos):
        folders.append(out / "lists" / study.name / split.replace(" ", "_"))
        write_lists(videos, train, test, num_frames, folders[-1])
    return folders


# --- Runs


def sweep_of(
    study: Study, data: Path, out: Path, seeds: Sequence[int], only: Sequence[str] = ()
) -> Sweep:
    """The study as a sweep whose frames and lists are below `out`. only: names of rows; none: all."""
    lists = ",".join(map(str, prepare(study, data / study.videos, out)))
    words = [
        *study.settings,
        f"DATA.PATH_PREFIX={frames_of(study, out)}",
        f"{LISTS}={lists}",
        f"RNG_SEED={','.join(map(str, seeds))}",
    ]
    rows = [row for row in study.rows if not only or row.name in only]
    settings = {row.name: row.settings(study, str(data / WEIGHTS)) for row in rows}
    return Sweep.of(str(REPO / CONFIG), words, settings, [LISTS])


def run(study: Study, sweep: Sweep, out: Path, results: Path, keep: bool = False) -> None:
    """Do the runs that are not done yet, and record them. keep: the checkpoints too."""
    path = results / f"{study.name}.json"
    check_settings(read_study(path), study)
    try:
        run_sweep(sweep, out, keep=keep)
        torch.set_num_threads(1)
        measure_times(sweep, out)
    finally:
        content = read_study(path)
        check_settings(content, study)
        record(study, sweep, out, content)
        write_study(path, content)


# --- Tables


def runs_of(content: Run, row: Row) -> dict[tuple[int, str], Run]:
    wanted = row._asdict()
    return {
        (run["seed"], run["split"]): run for run in content["runs"] if wanted.items() <= run.items()
    }


def table(study: Study, content: Run) -> str:
    """Markdown. Against vanilla: pairs of runs with one seed and split, `independent` by split."""
    rows = []
    for row in study.rows:
        runs, vanilla = runs_of(content, row), runs_of(content, row.vanilla)
        if not runs:
            continue
        top1 = [runs[place]["top1"] for place in sorted(runs)]
        both = sorted(runs.keys() & vanilla.keys())
        pairs = independent(
            (split, runs[seed, split]["top1"] - vanilla[seed, split]["top1"])
            for seed, split in both
        )
        seconds = content["clip_seconds"].get(row.name)
        cells = [
            row.label,
            ", ".join(row.names[1:]),
            f"{next(iter(runs.values()))['gflops']:.2f}",
            f"{1000 * seconds:.0f}" if seconds else "",
            ", ".join(f"{value:.1f}" for value in top1),
            spread(top1),
            difference(pairs) if row.alpha and pairs else "",
            f"{statistics.mean(run['loss'] for run in runs.values()):.2f}",
        ]
        rows.append(cells)
    columns = "network | start | GFLOPs | ms per clip | top-1 of each run | mean"
    said = unread_note(
        (f"{run['network']}, seed {run['seed']}, {run['split']}", _unread(run))
        for run in content["runs"]
    )
    text = markdown(f"{columns} | against vanilla | log loss", rows)
    return f"{text}\n\n{said}" if said else text


def _unread(run: Run) -> dict[str, Any]:
    """The videos of a test, and how many it could not read, as results.json has them."""
    return {"num_unread": run.get("num_unread", 0), "num_videos": run.get("videos")}


def write_means(study: Study, content: Run, folder: Path) -> None:
    """Each run as a results.json; `octvideo visualize tradeoff` draws the mean of each row and its
    spread."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in study.rows:
        for (seed, split), run in runs_of(content, row).items():
            network = {
                "name": ", ".join((row.network, *row.names[1:])),
                "alpha": row.alpha,
                "gflops_per_view": run["gflops"],
            }
            summary = {"top1_acc": run["top1"], "protocol": {"network": network}, **_unread(run)}
            name = "_".join((study.name, *row.names, str(seed), split)).replace(" ", "_")
            (folder / f"{name}.json").write_text(json.dumps(summary))


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("run", "table"):
        sub = kinds.add_parser(kind)
        sub.add_argument("study", choices=STUDIES)
        sub.add_argument(
            "--results", type=Path, default=REPO / "benchmarks" / "results", help="a folder"
        )
    runs, tables = kinds.choices["run"], kinds.choices["table"]
    runs.add_argument("data", type=Path, help="folder of ut_interaction, hand_gesture and weights")
    runs.add_argument("out", type=Path)
    runs.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    runs.add_argument("--only", nargs="+", default=[], metavar="ROW", help='as "I3D, imagenet"')
    runs.add_argument("--keep", action="store_true", help="the checkpoints too")
    tables.add_argument("--means", type=Path, help="folder for what `visualize tradeoff` reads")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    study = STUDIES[args.study]
    if args.kind == "run":
        out = args.out.resolve()
        sweep = sweep_of(study, args.data.resolve(), out, args.seeds, args.only)
        run(study, sweep, out / study.name, args.results, args.keep)
    content = read_study(args.results / f"{study.name}.json")
    print(table(study, content))
    if args.kind == "table" and args.means:
        write_means(study, content, args.means)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
