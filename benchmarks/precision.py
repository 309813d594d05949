"""fp32, bf16 and int8 on this CPU: times in one interleaved run, and what a test list scores beside
them.

    python benchmarks/precision.py times --clips ../shared/data/egogestar
    python benchmarks/precision.py accuracy ../shared/data/egogestar --weights resnet50.pth --alpha 0 .5
    python benchmarks/precision.py motion ../shared/data/egogestar runs/egogestar_motion
    python benchmarks/precision.py optimize [--alpha .1]     CPU seconds of a first optimize

times: I3D R50, 8 x 224 x 224, one clip, one thread, beside pytorchvideo's in eager fp32. The clock
is the CPU time of this process, since other programs may share the machine; the table has the
fastest of the rounds, their median, and the middle half. Graphs stay in --keep, so a second run
measures at once.

accuracy: configs/finetune trains on four fifths of train.csv from image weights, on one frame from
each of 8 equal parts of a video; each precision of `Recognizer.optimize` then scores test.csv, one
view a video. int8 is calibrated on 16 training videos, and checked on 16 of the fifth that was left
out: on videos that were trained on it looks better than it is. Where its check refuses it, its
scores are shown nevertheless, as what the refusal prevents. --fold K: the videos of fold K in
folds.csv are the test, and the others the training. Runs stay in --out, so a second call measures
at once.

motion: the data set again, with videos of 40 frames whose red, green and blue are three gray
frames, a twentieth of the video apart. What moves is colored, which kernels of image weights see:
from the videos themselves, 134 clips of gestures taught I3D R50 nothing about others (91 % of its
training clips, 17 % of the test).
"""

import argparse
import csv
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from unittest import mock

import numpy as np
import torch
from studies import CHECKPOINT, COMMON, CONFIG, OCTAVE, size
from untrained import preprocessing

import octvideo.deploy.precision
from octvideo import create_model
from octvideo.assembly import ranks, train
from octvideo.complexity import align
from octvideo.config import load_config
from octvideo.data.lists.video_list import read_list
from octvideo.data.transforms import resize_frame
from octvideo.data.video.decode import iter_frames
from octvideo.data.video.encode import write_video
from octvideo.deploy.engines import optimize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.openvino import OpenVINO, convert, convert_low_precision
from octvideo.deploy.precision import quantized
from octvideo.deploy.pytorchvideo import hub_model
from octvideo.engine.checkpoint_files import checkpoint_name
from octvideo.engine.evaluation.metrics import bootstrap_interval, paired_interval
from octvideo.errors import OctvideoError
from octvideo.recognizer import Recognizer

Call = Callable[[torch.Tensor], torch.Tensor]
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    times = commands.add_parser("times")
    times.add_argument("--clips", type=Path, help="a folder with train.csv, to calibrate int8 on")
    times.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.1, 0.5])
    times.add_argument("--precision", nargs="+", default=["fp32", "bf16", "int8"])
    times.add_argument("--rounds", type=int, default=11)
    times.add_argument("--keep", type=Path, help="a folder for the graphs")
    times.set_defaults(run=measure_times)
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("data", type=Path, help="a folder with train.csv, test.csv")
    accuracy.add_argument("--weights", required=True, help="of an ImageNet ResNet-50")
    accuracy.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.5])
    accuracy.add_argument("--size", type=int, default=112)
    accuracy.add_argument("--epochs", type=int, default=20)
    accuracy.add_argument("--flip", action="store_true", help="mirrored videos keep their class")
    accuracy.add_argument("--fold", type=int, help="of folds.csv, instead of test.csv")
    accuracy.add_argument("--out", type=Path, default=Path("runs/precision"))
    accuracy.set_defaults(run=measure_accuracy)
    motion = commands.add_parser("motion")
    motion.add_argument("data", type=Path, help="a folder with train.csv, test.csv")
    motion.add_argument("out", type=Path)
    motion.set_defaults(run=write_motion)
    first = commands.add_parser("optimize")
    first.add_argument("--alpha", type=float, nargs="+", default=[0.1])
    first.set_defaults(run=measure_optimize)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.run(args)


def measure_optimize(args: argparse.Namespace) -> None:
    os.environ["OCTVIDEO_CACHE"] = ""
    for alpha in args.alpha:
        model, x = create_model("i3d_r50", alpha=alpha).eval(), torch.randn(1, 3, 8, SIZE, SIZE)
        started = time.process_time()
        optimize(model, x, engine="openvino")
        print(f"alpha {alpha:g}: {time.process_time() - started:.1f} CPU s")


def measure_times(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, SIZE, SIZE)
    calls: dict[str, Call] = {"pytorchvideo, eager fp32": hub_model("i3d_r50").eval()}
    for alpha in args.alpha:
        for precision in args.precision:
            name = f"alpha {alpha:g}, {precision}"
            calls[name] = graph(alpha, precision, x, args)
            print(f"{name}: made, load {os.getloadavg()[0]:.1f}", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(1 + args.rounds):
            for name, call in calls.items():
                started = time.process_time()
                call(x)
                if turn:
                    seconds[name].append(time.process_time() - started)
    baseline = min(next(iter(seconds.values())))
    rows = [("", "fastest ms", "median", "middle half", "x")]
    rows += [row(name, times, baseline) for name, times in seconds.items()]
    print(align(rows, numbers=range(1, 5)))
    print(f"{torch.get_num_threads()} thread, load {os.getloadavg()}")


def row(name: str, times: list[float], baseline: float) -> tuple[str, ...]:
    low, _, high = quantiles(times, n=4)
    fastest = min(times)
    return (
        name,
        f"{1e3 * fastest:.0f}",
        f"{1e3 * median(times):.0f}",
        f"{1e3 * low:.0f}-{1e3 * high:.0f}",
        f"{baseline / fastest:.1f}",
    )


def graph(alpha: float, precision: str, x: torch.Tensor, args: argparse.Namespace) -> OpenVINO:
    path = args.keep / f"{alpha:g}_{precision}.xml" if args.keep else None
    if path and path.exists():
        return OpenVINO.read(path, x.shape[-2:])
    torch.manual_seed(0)
    model = fold_batch_norm(create_model("i3d_r50", alpha=alpha).eval())
    if precision == "fp32":
        fast = convert(model, x)
    elif precision == "bf16":
        fast = convert_low_precision(model, x, precision)
    else:
        clips = real_clips(args.clips)
        fast = convert_low_precision(model, x, precision, lambda network: quantized(network, clips))
    if path:
        args.keep.mkdir(parents=True, exist_ok=True)
        fast.save(path)
    return fast


def real_clips(folder: Path | None, count: int = 8) -> torch.Tensor:
    if folder is None:
        return torch.randn(count, 3, 8, SIZE, SIZE)
    model = create_model("i3d_r26", num_classes=2, width_per_group=8)
    seen = preprocessing(SIZE, SIZE, sampling_rate=8)
    reader = Recognizer(model, ["a", "b"], seen, torch.device("cpu"))
    videos = list(read_list(folder / "train.csv", path_prefix=folder))
    return torch.cat([reader.clip(v.path)[1] for v in videos[:: len(videos) // count][:count]])


def write_motion(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    for path in [*args.data.glob("*.csv"), *args.data.glob("class*.txt")]:
        shutil.copyfile(path, args.out / path.name)
    for split in ("train", "test"):
        for name, _ in read_pairs(args.data / f"{split}.csv"):
            frames = as_motion([gray(frame) for frame in iter_frames(args.data / name)])
            write_video(args.out / name, frames, crf=8)


def gray(frame: np.ndarray, short_side: int = 128) -> np.ndarray:
    return resize_frame(frame, short_side).mean(-1).astype(np.uint8)


def as_motion(frames: list[np.ndarray], count: int = 40, apart: float = 1 / 20) -> np.ndarray:
    """gray (T, H, W) -> uint8 (count, H, W, 3)."""
    middles = (np.arange(count) + 0.5) / count
    places = np.stack([middles - apart, middles, middles + apart], axis=1) * len(frames)
    chosen = np.stack(frames)[np.clip(places, 0, len(frames) - 1).astype(int)]
    return np.ascontiguousarray(np.moveaxis(chosen, 1, -1))


def measure_accuracy(args: argparse.Namespace) -> None:
    name = f"{args.data.name}_{'test' if args.fold is None else f'fold_{args.fold}'}"
    lists = write_lists(args.data, args.fold, args.out / name)
    rows = [("alpha", "precision", "top-1", "interval", "against fp32", "same class", "change")]
    for alpha in args.alpha:
        rows += accuracy_rows(alpha, lists, args)
        print(align(rows, numbers=range(2, 7)), flush=True)


def write_lists(data: Path, fold: int | None, folder: Path) -> Path:
    """train.csv, val.csv (every fifth of those that are not tested on), test.csv and the class
    names."""
    train, test = (read_pairs(data / f"{split}.csv") for split in ("train", "test"))
    if fold is not None:
        with (data / "folds.csv").open() as file:
            held = {row["path"] for row in csv.DictReader(file) if int(row["fold"]) == fold}
        pairs = train + test
        test = [pair for pair in pairs if pair[0] in held]
        train = [pair for pair in pairs if pair[0] not in held]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(next(data.glob("class*.txt")), folder / "class_names.txt")
    fit = [pair for i, pair in enumerate(train) if i % 5]
    for split, pairs in (("train", fit), ("val", train[::5]), ("test", test)):
        lines = (f"{path} {label}\n" for path, label in pairs)
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder


def read_pairs(path: Path) -> list[tuple[str, str]]:
    return [(name, label) for name, label in map(str.split, path.read_text().splitlines())]


def accuracy_rows(alpha: float, lists: Path, args: argparse.Namespace) -> list[tuple[str, ...]]:
    checkpoint = trained(alpha, lists, args)
    test = list(read_list(lists / "test.csv", path_prefix=args.data))
    labels = np.array([video.label for video in test])
    calibration = calibration_videos(lists, args.data)
    rows, expected = [], None
    for precision in ("fp32", "bf16", "int8"):
        recognizer = octvideo.load(checkpoint)
        note = prepare(recognizer, precision, calibration)
        scores = np.stack([recognizer.scores(video.path, views="1x1") for video in test])
        expected = scores if expected is None else expected
        rows.append((f"{alpha:g}", precision + note, *compared(scores, expected, labels)))
        print(*rows[-1], flush=True)
    return rows


def trained(alpha: float, lists: Path, args: argparse.Namespace) -> Path:
    """The last checkpoint of the run of this alpha, which is made or continued."""
    out = args.out.resolve() / f"{lists.name}_{alpha:g}_{args.size}_{args.epochs}"
    settings = [
        *COMMON,
        *size(args.size, args.size * 8 // 7),
        *(OCTAVE if alpha else ()),
        f"{CHECKPOINT}={args.weights}",
        f"OCTCONV.ALPHA={alpha}",
        f"SOLVER.MAX_EPOCH={args.epochs}",
        "SOLVER.WARMUP_EPOCHS=1",
        f"DATA.PATH_TO_DATA_DIR={lists}",
        f"DATA.PATH_PREFIX={args.data}",
        "DATA.LIST_FORMAT=video",
        "DATA.SAMPLING_RULE=segment",
        f"DATA.RANDOM_FLIP={args.flip}",
        "TRAIN.BATCH_SIZE=8",
        f"OUTPUT_DIR={out}",
    ]
    cfg = load_config(str(Path(__file__).parents[1] / CONFIG), settings)
    with ranks(cfg) as processes:
        if status := train(cfg, processes).exit_status:
            sys.exit(status)
    return out / "checkpoints" / checkpoint_name(args.epochs)


def calibration_videos(lists: Path, data: Path, count: int = 16) -> list[str]:
    """By turns one that was trained on and one that was not."""
    paths = []
    for split in ("train", "val"):
        videos = list(read_list(lists / f"{split}.csv", path_prefix=data))
        paths.append([video.path for video in videos[:: max(len(videos) // count, 1)][:count]])
    return [path for pair in zip(*paths, strict=False) for path in pair]


def prepare(recognizer: Recognizer, precision: str, calibration: list[str]) -> str:
    """Optimize it; " (refused)" where int8 failed its check, whose limits are then lifted."""
    if precision == "fp32":
        return ""
    try:
        recognizer.optimize(precision=precision, calibration=calibration)
    except OctvideoError as refusal:
        print(refusal, flush=True)
        with (
            mock.patch.object(octvideo.deploy.precision, "MAX_OTHER_CLASS", 1.0),
            mock.patch.dict(octvideo.deploy.precision.TOLERANCE, int8=np.inf),
        ):
            recognizer.optimize(precision=precision, calibration=calibration)
        return " (refused)"
    return ""


def compared(scores: np.ndarray, expected: np.ndarray, labels: np.ndarray) -> tuple[str, ...]:
    """Top-1 and its interval, the difference from fp32 and its interval, the share of videos with
    the same class, and the mean change of a probability."""
    right, before = (each.argmax(1) == labels for each in (scores, expected))
    low, high = (f"{100 * bound:.0f}" for bound in bootstrap_interval(right))
    less, more = (f"{100 * bound:+.1f}" for bound in paired_interval(right, before))
    top1 = (f"{100 * right.mean():.1f} of {len(labels)}", f"{low}-{high}")
    if scores is expected:
        return (*top1, "", "", "")
    return (
        *top1,
        f"{100 * (right.mean() - before.mean()):+.1f} ({less} to {more})",
        f"{100 * (scores.argmax(1) == expected.argmax(1)).mean():.1f} %",
        f"{np.abs(scores - expected).mean():.4f}",
    )


if __name__ == "__main__":
    main()
