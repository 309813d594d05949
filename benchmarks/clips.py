"""Small video networks on small sets of clips: from octave-trained image weights, divided ones, and
from scratch.

    python benchmarks/clips.py pack ../shared/data/hand_gesture PACKS/hand_gesture.npz
    python benchmarks/clips.py take DIR/epochs.jsonl     the runs that clips_gpu.py did
    python benchmarks/clips.py write                     the tables of docs/results_clips.md
    python benchmarks/clips.py draw gestures FILE.png    top-1 against multiply-adds
"""

import argparse
import csv
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clip_studies import NETWORKS, ORDERS, STUDIES, Row, Study, build
from clip_tables import points, write_page
from numpy.typing import NDArray
from packs import encoded, joined

from octvideo.complexity import count
from octvideo.data.transforms import resize_frame
from octvideo.data.video.decode import iter_frames
from octvideo.errors import exit_on_user_error
from octvideo.files import read_json_lines
from octvideo.report.environment import environment
from octvideo.report.tradeoff import draw_tradeoff
from octvideo.study.tables import write_runs

REPO = Path(__file__).resolve().parent.parent
FRAMES, SHORT_SIDE, QUALITY = 32, 72, 90
Run = dict[str, Any]


# --- Packs


def pack(videos: Path, path: Path) -> None:
    """Write FRAMES of each listed video, evenly spaced, as JPEG files of a short side of SHORT_SIDE
    end to end. parts: the fold of folds.csv, or 1 for the videos of test.csv."""
    files, labels, parts = [], [], []
    for name, label, part in listed(videos):
        files += [encoded(frame, "jpeg", quality=QUALITY) for frame in spaced(videos / name)]
        labels.append(int(label))
        parts.append(part)
    data, ends = joined(files)
    np.savez(path, bytes=data, ends=ends, labels=np.array(labels), parts=np.array(parts))


def listed(videos: Path) -> Iterator[tuple[str, str, int]]:
    """File name, label and part."""
    folds = {}
    if (videos / "folds.csv").is_file():
        with (videos / "folds.csv").open() as file:
            folds = {row["path"]: int(row["fold"]) for row in csv.DictReader(file)}
        first = min(folds.values())
        folds = {path: fold - first + 1 for path, fold in folds.items()}
    for number, name in enumerate(("train.csv", "test.csv")):
        for line in (videos / name).read_text().splitlines():
            path, label = line.split()
            yield path, label, folds.get(path, number)


def spaced(video: Path) -> list[NDArray[np.uint8]]:
    """FRAMES frames of a video from its first to its last; some twice where it has fewer."""
    frames = [resize_frame(frame, SHORT_SIDE) for frame in iter_frames(str(video))]
    places = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
    return [frames[place] for place in places]


# --- Records


def records_of(path: Path) -> list[Run]:
    """The runs of clips_gpu.py; of an epoch that was repeated, the last time."""
    day = str(datetime.fromtimestamp(path.stat().st_mtime, UTC).date())
    runs: dict[tuple[Any, ...], Run] = {}
    for line in read_json_lines(path):
        about = {key: line[key] for key in ("study", "row", "part", "seed", "epochs", "machine")}
        run = runs.setdefault(key_of(about), about | {"date": day, "curve": []})
        if "epoch" in line:
            run["curve"][line["epoch"] - 1 :] = [[*line["train"], *line["test"]]]
        else:
            run |= {key: line[key] for key in ("probe", "videos", *ORDERS) if key in line}
    return list(runs.values())


def key_of(run: Run) -> tuple[Any, ...]:
    return run["study"], run["row"], run["part"], run["seed"]


def record(found: Iterable[Run], results: Path) -> Run:
    """Put the runs that are whole in place of records of the same runs."""
    content = read_records(results)
    content.setdefault("environment", environment())
    runs = {key_of(run): run for run in content["runs"]}
    runs |= {key_of(run): run for run in found if "videos" in run}
    content["runs"] = sorted(runs.values(), key=key_of)
    content["costs"] = {
        f"{study.name}, {row.name}": multiply_adds(study, row)
        for study in STUDIES.values()
        for row in study.rows
    }
    head = {key: value for key, value in content.items() if key != "runs"}
    write_runs(results / "clips.json", head, content["runs"])
    return content


def read_records(results: Path) -> Run:
    path = results / "clips.json"
    return json.loads(path.read_text()) if path.is_file() else {"costs": {}, "runs": []}


def multiply_adds(study: Study, row: Row) -> int:
    model = build(row, 10, torch.device("meta"))
    return count(model, (3, NETWORKS[row.network].frames, study.crop, study.crop)).macs


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--results", type=Path, default=REPO / "benchmarks" / "results")
    shared.add_argument("--page", type=Path, default=REPO / "docs" / "results_clips.md")
    kinds = parser.add_subparsers(dest="kind", required=True)
    packed = kinds.add_parser("pack")
    packed.add_argument("videos", type=Path, help="folder of videos, train.csv and test.csv")
    packed.add_argument("file", type=Path)
    taken = kinds.add_parser("take", parents=[shared])
    taken.add_argument("epochs", type=Path, help="epochs.jsonl of clips_gpu.py")
    kinds.add_parser("write", parents=[shared])
    drawn = kinds.add_parser("draw", parents=[shared])
    drawn.add_argument("study", choices=STUDIES)
    drawn.add_argument("file", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    if args.kind == "pack":
        pack(args.videos, args.file)
        return
    if args.kind == "take":
        record(records_of(args.epochs), args.results)
    if args.kind == "draw":
        found = points(STUDIES[args.study], read_records(args.results))
        error = "standard deviation over seeds"
        draw_tradeoff(found, paper=(), error=error).savefig(args.file, dpi=140)
        return
    write_page(args.page, read_records(args.results))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
