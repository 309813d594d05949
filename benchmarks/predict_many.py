"""Videos per second of `predict_many` beside `predict` one by one, on a folder of videos.

    python benchmarks/predict_many.py FOLDER [--videos 240]
        [--model i3d_r26 --alpha 0.5 --width 32 --size 64]

By default with the network of `make demo`, untrained: time does not depend on weights. Both ways
run in turn on all cores, a few videos before the clock starts. Printed are the median ratio and its
range. On c cores the ratio can reach c where decoding takes most of the time. It is less where the
network does, since one by one already uses all cores inside a layer.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from untrained import make_recognizer

from octvideo.data.prepare.video_files import find_videos
from octvideo.engine.threads import available_cores


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds, CPU seconds of this process and its children) of a call."""
    begin, cpu = time.perf_counter(), _cpu()
    work()
    return time.perf_counter() - begin, _cpu() - cpu


def _cpu() -> float:
    import resource

    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(one)[:2]) for one in who)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="i3d_r26")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--videos", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--views", default="1x1")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--optimize", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(available_cores())
    recognizer = make_recognizer(args.model, args.alpha, args.width, args.size)
    if args.optimize:
        recognizer.optimize()
    videos = find_videos(args.folder)[: args.videos]

    def one_by_one(count: int | None = None) -> None:
        for video in videos[:count]:
            recognizer.predict(video, views=args.views)

    def many(count: int | None = None) -> None:
        list(recognizer.predict_many(videos[:count], views=args.views, batch=args.batch))

    def decode() -> None:
        for video in videos:
            recognizer.clip(video)

    one_by_one(4)
    many(4)
    alone, _ = seconds(decode)
    print(f"decoding alone: {1e3 * alone / len(videos):.1f} ms a video", flush=True)
    ratios = []
    for number in range(args.rounds):
        (slow, slow_cpu), (fast, fast_cpu) = seconds(one_by_one), seconds(many)
        ratios.append(slow / fast)
        print(
            f"round {number + 1}: one by one {len(videos) / slow:.1f} videos/s ({slow_cpu:.1f} CPU"
            f" s), many {len(videos) / fast:.1f} videos/s ({fast_cpu:.1f} CPU s):"
            f" {slow / fast:.2f} x",
            flush=True,
        )
    what = (
        f"{args.model} alpha {args.alpha} width {args.width} at {args.size}, {args.views},"
        f" {len(videos)} videos"
    )
    spread = f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{what}, {available_cores()} cores: {spread}")


if __name__ == "__main__":
    main()
