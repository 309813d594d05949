"""From ImageNet weights and from scratch, as many epochs each: I3D and Oct-I3D on a small list of real videos.

    python benchmarks/finetune.py ../shared/data/ut_interaction ../shared/data/weights/resnet50_imagenet_stride1x1.pth \
        runs/finetune [--seeds 1 2 3] [--epochs 6] [KEY=VALUE ...]

Runs tools/train_net.py with configs/finetune/ once per network, start and seed; a run whose results.json is there is
not run again, so that the same command continues an interrupted series. The test list is seen once, at the end.
The weights are those of ../shared: MEAN .45, STD .225, stride on the first 1x1. Clips are small, for a CPU.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
NETWORKS = ("i3d", "oct_i3d")
STARTS = ("imagenet", "scratch")
SETTINGS = [
    "RESNET.STRIDE_1X1=True",
    "DATA.MEAN=[0.45,0.45,0.45]",
    "DATA.STD=[0.225,0.225,0.225]",
    "DATA.TRAIN_JITTER_SCALES=[80,96]",
    "DATA.TRAIN_CROP_SIZE=80",
    "DATA.TEST_CROP_SIZE=80",
    "TRAIN.BATCH_SIZE=8",
    "TRAIN.MIXED_PRECISION=True",
    "TRAIN.EVAL_PERIOD=1000",
    "TRAIN.CHECKPOINT_PERIOD=1000",
    "SOLVER.WARMUP_EPOCHS=0",
    "BN.USE_PRECISE_STATS=False",
    "TEST.NUM_ENSEMBLE_VIEWS=3",
    "TEST.NUM_SPATIAL_CROPS=1",
    "DATA_LOADER.NUM_WORKERS=1",
    "TENSORBOARD.ENABLE=False",
]


class Result(NamedTuple):
    top1: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.top1:.1f} ({self.low:.0f}-{self.high:.0f})"


def write_lists(videos: Path, folder: Path) -> int:
    """Copies of the lists with test.csv as val.csv, which the trainer wants; returns the number of classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("train", "train"), ("val", "test"), ("test", "test")):
        shutil.copyfile(videos / f"{source}.csv", folder / f"{name}.csv")
    return 1 + max(int(line.split()[-1]) for line in (videos / "train.csv").read_text().splitlines())


def run(network: str, start: str, seed: int, settings: list[str], out: Path) -> Result:
    """Top-1 in per cent, and its 95 % interval over the clips."""
    results = out / "results.json"
    if not results.is_file():
        command = [sys.executable, "tools/train_net.py", "--cfg", f"configs/finetune/{network}.yaml"]
        settings = [*settings, f"RNG_SEED={seed}", f"OUTPUT_DIR={out}"]
        log = out.with_suffix(".log")
        with log.open("w") as file:
            subprocess.run([*command, *settings], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)},
                           stdout=file, stderr=file, check=True)  # fmt: skip
        shutil.rmtree(out / "checkpoints")
    found = json.loads(results.read_text())
    return Result(found["top1_acc"], *found["top1_interval"])


def table(results: dict[tuple[str, str], list[Result]]) -> str:
    """Markdown: every seed with its interval, and the mean."""
    lines = ["| network | start | top-1 of each seed (95 % over the clips) | mean |", "|---|---|---|---|"]
    for (network, start), runs in results.items():
        mean = statistics.mean(run.top1 for run in runs)
        lines.append(f"| {network} | {start} | {', '.join(map(str, runs))} | {mean:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="folder with train.csv, test.csv and the clips they name")
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_intermixed_args()
    out, videos = args.out.resolve(), args.videos.resolve()
    num_classes = write_lists(videos, out / "lists")
    shared = [
        f"DATA.PATH_TO_DATA_DIR={out / 'lists'}",
        f"DATA.PATH_PREFIX={videos}",
        f"MODEL.NUM_CLASSES={num_classes}",
        f"SOLVER.MAX_EPOCH={args.epochs}",
        *SETTINGS,
        *args.settings,
    ]
    results: dict[tuple[str, str], list[Result]] = {}
    for seed, network, start in itertools.product(args.seeds, NETWORKS, STARTS):
        weights = args.weights.resolve() if start == "imagenet" else ""
        settings = [*shared, f"TRAIN.CHECKPOINT_FILE_PATH={weights}"]
        result = run(network, start, seed, settings, out / f"{network}_{start}_{seed}")
        results.setdefault((network, start), []).append(result)
        print(f"seed {seed}: {network} from {start}: top-1 {result}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
