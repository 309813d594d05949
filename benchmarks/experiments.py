"""Top-1 of vanilla and octave networks on small sets of real videos, some seeds of each, beside
what a clip costs.

    python benchmarks/experiments.py run ut_interaction ../shared/data runs/experiments [--seeds 1 2 3]
    python benchmarks/experiments.py time ut_interaction      seconds per clip of its networks, measured in turns
    python benchmarks/experiments.py table ut_interaction     markdown of docs/results_tables.md

The folder ../shared/data holds the videos and weights/. Small frames of the videos, logs and
predictions go to runs/experiments, one record per run to --results (benchmarks/results). A run that
has its record there is not done again, so that the same command continues an interrupted series;
give another --results to do everything anew. What is compared stands in studies.py beside this
file. The test list is seen once, at the end of a run.
"""

import argparse
import csv
import itertools
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from studies import FOLDS, STUDIES, WEIGHTS, Row, Study

from octvideo.assembly.model import build_model
from octvideo.config import load_config
from octvideo.data.transforms import resize_short_side
from octvideo.data.video.decode import iter_frames
from octvideo.deploy.timing import interleaved
from octvideo.errors import exit_on_user_error
from octvideo.study.statistics import difference, spread
from octvideo.study.tables import markdown, write_runs
from octvideo.study.trial import log_loss, run_trial

REPO = Path(__file__).resolve().parent.parent
Run = dict[str, Any]
List = list[tuple[str, str]]  # file name and label


# --- Runs on disk


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


def key(row: Row, seed: int, split: str) -> Run:
    return {**row._asdict(), "seed": seed, "split": split}


def is_done(content: Run, wanted: Run) -> bool:
    return any(wanted.items() <= run.items() for run in content["runs"])


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
    shutil.copyfile(videos / "classes.txt", folder / "class_names.txt")
    for name, rows in (("train", train), ("val", test), ("test", test)):
        lines = (f"{Path(path).stem} {num_frames[path]} {label}\n" for path, label in rows)
        (folder / f"{name}.csv").write_text("".join(lines))


def prepare(study: Study, videos: Path, out: Path) -> dict[str, list[str]]:
    """Frames and lists below `out`; for each part of the study the settings that name them."""
    num_frames = extract(videos, out / "frames" / study.videos, study.short_side)
    settings = {}
    for split, train, test in splits(study, videos):
        lists = out / "lists" / f"{study.name} {split}".replace(" ", "_")
        write_lists(videos, train, test, num_frames, lists)
        settings[split] = [
            f"DATA.PATH_TO_DATA_DIR={lists}",
            f"DATA.PATH_PREFIX={out / 'frames' / study.videos}",
        ]
    return settings


# --- Runs


def settings_of(study: Study, row: Row) -> list[str]:
    return [*study.settings, *row.settings(study)]


def train_and_test(row: Row, settings: Sequence[str], out: Path, keep: bool = False) -> Run:
    """What a run of `octvideo train` found, and what its network costs."""
    (out / "results.json").unlink(missing_ok=True)  # without a record here: of another series
    here = {"PYTHONPATH": str(REPO)}
    found = run_trial(str(REPO / row.config), settings, out, keep=keep, environment=here)
    network = found["protocol"]["network"]
    return {
        "top1": found["top1_acc"],
        "interval": found["top1_interval"],
        "loss": log_loss(out / "scores.npz"),
        "videos": found["num_videos"],
        "gflops": network["gflops_per_view"],
        "parameters": network["parameters"],
    }


def run(
    study: Study,
    data: Path,
    out: Path,
    results: Path,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    keep: bool = False,
) -> None:
    """only: rows, as "Oct-I3D .1, imagenet"; none: all. keep: checkpoints stay in the folders below
    `out`."""
    path = results / f"{study.name}.json"
    check_settings(read_study(path), study)
    parts = prepare(study, data / study.videos, out)
    rows = [row for row in study.rows if not only or ", ".join(row.names) in only]
    for seed, row, split in itertools.product(seeds, rows, parts):
        wanted = key(row, seed, split)
        if is_done(read_study(path), wanted):
            continue
        weights = data / WEIGHTS if row.start == "imagenet" else ""
        settings = [
            *settings_of(study, row),
            *parts[split],
            f"TRAIN.CHECKPOINT_FILE_PATH={weights}",
        ]
        folder = out / study.name / "_".join((*row.names, str(seed), split)).replace(" ", "_")
        found = train_and_test(row, [*settings, f"RNG_SEED={seed}"], folder, keep)
        content = read_study(path)
        check_settings(content, study)
        content["runs"].append(
            wanted | found | {"date": date.today().isoformat(), "hardware": hardware()}
        )
        write_study(path, content)
        print(
            f"{study.name}, seed {seed}, {split}: {', '.join(row.names)}: top-1"
            f" {found['top1']:.1f}",
            flush=True,
        )


def hardware() -> str:
    """The GPU, or what Linux calls the processor."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), "a CPU"
    )
    return f"{len(os.sched_getaffinity(0))} core(s) of {processor}, torch {torch.__version__}"


def time_clips(study: Study, results: Path, rounds: int = 9) -> None:
    """Median seconds of one clip of the test's size through each network: float32, eager, one
    thread."""
    torch.set_num_threads(1)
    times = interleaved({row: forward_call(study, row) for row in study.rows}, rounds)
    content = read_study(results / f"{study.name}.json")
    content["clip_seconds"] = {
        ", ".join(row.names): round(statistics.median(t), 4) for row, t in times.items()
    }
    write_study(results / f"{study.name}.json", content)


def forward_call(study: Study, row: Row) -> Any:
    cfg = load_config(str(REPO / row.config), settings_of(study, row))
    model = build_model(cfg).eval().to(memory_format=torch.channels_last_3d)
    clip = torch.randn(1, 3, cfg.DATA.NUM_FRAMES, cfg.DATA.TEST_CROP_SIZE, cfg.DATA.TEST_CROP_SIZE)
    return torch.inference_mode()(lambda: model(clip))


# --- Tables


def runs_of(content: Run, row: Row) -> dict[tuple[int, str], Run]:
    wanted = row._asdict()
    return {
        (run["seed"], run["split"]): run for run in content["runs"] if wanted.items() <= run.items()
    }


def table(study: Study, content: Run) -> str:
    """Markdown. Against vanilla: pairs of runs with one seed and split."""
    rows = []
    for row in study.rows:
        runs, vanilla = runs_of(content, row), runs_of(content, row.vanilla)
        if not runs:
            continue
        top1 = [runs[place]["top1"] for place in sorted(runs)]
        pairs = [
            runs[place]["top1"] - vanilla[place]["top1"] for place in runs.keys() & vanilla.keys()
        ]
        seconds = content["clip_seconds"].get(", ".join(row.names))
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
    return markdown(f"{columns} | against vanilla | log loss", rows)


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
            summary = {"top1_acc": run["top1"], "protocol": {"network": network}}
            name = "_".join((study.name, *row.names, str(seed), split)).replace(" ", "_")
            (folder / f"{name}.json").write_text(json.dumps(summary))


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("run", "time", "table"):
        sub = kinds.add_parser(kind)
        sub.add_argument("study", choices=STUDIES)
        sub.add_argument(
            "--results", type=Path, default=REPO / "benchmarks" / "results", help="a folder"
        )
    kinds.choices["run"].add_argument(
        "data", type=Path, help="folder of ut_interaction, hand_gesture and weights"
    )
    kinds.choices["run"].add_argument("out", type=Path)
    kinds.choices["run"].add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    kinds.choices["run"].add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help='as "Oct-I3D .1, imagenet"'
    )
    kinds.choices["run"].add_argument("--keep", action="store_true", help="the checkpoints too")
    kinds.choices["table"].add_argument(
        "--means", type=Path, help="folder for what tools/visualize.py tradeoff reads"
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    study = STUDIES[args.study]
    if args.kind == "run":
        run(
            study,
            args.data.resolve(),
            args.out.resolve(),
            args.results,
            args.seeds,
            args.only,
            args.keep,
        )
    elif args.kind == "time":
        time_clips(study, args.results)
    content = read_study(args.results / f"{study.name}.json")
    print(table(study, content))
    if args.kind == "table" and args.means:
        write_means(study, content, args.means)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
