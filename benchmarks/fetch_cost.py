"""CPU seconds and bytes that a video costs `octvideo fetch`: looked at, resized, encoded anew.

    python benchmarks/fetch_cost.py [--videos 3] [--gop 250]

Made 10 s videos of 30 frames per second in three sizes, as they come from YouTube: keyframes far
apart. CPU seconds are those of all threads of the process; they hardly depend on what else runs.
Unpacking the archive, a few per cent of it, is not counted. octvideo/cli/fetch.py has the numbers
that the estimate takes.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from octvideo.data.prepare.shard import Encoding, make_ready
from octvideo.data.video.encode import write_video

SIZES = ((256, 340), (360, 640), (720, 1280))
FPS, FRAMES = 30, 300


def write_one(path: Path, height: int, width: int, gop: int, seed: int) -> None:
    """A smooth texture that drifts under fresh grain."""
    generator = torch.Generator().manual_seed(seed)
    texture = F.interpolate(
        torch.rand(1, 3, 40, 60, generator=generator), (height + 300, width + 150), mode="bicubic"
    )[0]
    frames = (
        (
            255 * texture[:, t : t + height, t // 2 : t // 2 + width]
            + 12 * torch.randn(height, width, generator=generator)
        )
        .clamp(0, 255)
        .byte()
        .permute(1, 2, 0)
        .numpy()
        for t in range(FRAMES)
    )
    write_video(path, frames, FPS, gop=gop, crf=26)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=3, help="of each size")
    parser.add_argument("--gop", type=int, default=250, help="frames from keyframe to keyframe")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for height, width in SIZES:
            seconds, sizes = [], []
            for number in range(args.videos + 1):
                source, target = Path(name, f"{height}.mp4"), Path(name, f"{height}.small")
                write_one(source, height, width, args.gop, number)
                start = time.process_time()
                ready = make_ready(str(source), str(target), Encoding(256))
                if ready.cause:
                    raise SystemExit(ready.cause)
                if number:  # the first one loads the libraries
                    seconds.append(time.process_time() - start)
                    sizes.append(target.stat().st_size)
            print(
                f"{width} x {height}: {statistics.median(seconds):.2f} CPU s"
                f" ({min(seconds):.2f}-{max(seconds):.2f}), {statistics.mean(sizes) / 1e6:.2f} MB"
            )


if __name__ == "__main__":
    main()
