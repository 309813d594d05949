"""What a 10 x 3 test costs the loader per video: one decode for all views, against PySlowFast's
view at a time.

    python benchmarks/evaluate.py [--videos 4] [--rounds 3] [--seconds 10]

Writes 340 x 256 H.264 videos with a keyframe every 12 and every 250 frames. Both ways run in turn
in one process on one thread, and CPU seconds are counted. PySlowFast's way is written here from its
description: a view opens the file, seeks to the keyframe before its clip, decodes the clip's span,
takes 8 of its frames, normalizes and resizes them as floats, and crops. It hands 30 float views to
the loader; octvideo hands over the uint8 frames that the views share.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from made_videos import FPS, write_videos
from torch import Tensor
from torch.nn import functional as F

from octvideo.data import reading
from octvideo.data.clips.views import VideoViews, ViewSpec
from octvideo.data.lists.video_list import read_list
from octvideo.data.sampling import ClipRule

SPEC = ViewSpec(ClipRule(8, 8))


def pyslowfast_video(path: str) -> list[Tensor]:
    """All 30 views, each by itself: float (3, 8, 256, 256)."""
    return [pyslowfast_view(path, clip, place) for clip in range(10) for place in range(3)]


def pyslowfast_view(path: str, clip: int, place: int) -> Tensor:
    with av.open(path) as container:
        stream = container.streams.video[0]
        span = 64 * float(stream.average_rate) / FPS
        start = max(stream.frames - span, 0) * clip / 10
        ticks = stream.duration / stream.frames
        frames = decode_span(container, stream, int(start * ticks), int((start + span - 1) * ticks))
    chosen = frames[torch.linspace(0, span - 1, 8).clamp(0, len(frames) - 1).long()]
    clip_pixels = (chosen.float() / 255 - 0.45) / 0.225
    return crop(resize(clip_pixels.permute(3, 0, 1, 2)), place)


def decode_span(
    container: av.container.InputContainer, stream: av.VideoStream, first: int, last: int
) -> Tensor:
    """uint8 (T, H, W, 3), every frame of the span."""
    container.seek(max(first - 1024, 0), any_frame=False, backward=True, stream=stream)
    pictures = []
    for frame in container.decode(stream):
        if frame.pts > last:
            break
        if frame.pts >= first:
            pictures.append(frame.to_rgb().to_ndarray())
    return torch.from_numpy(np.stack(pictures))


def resize(clip: Tensor, size: int = 256) -> Tensor:
    height, width = clip.shape[2:]
    if min(height, width) == size:
        return clip
    target = (
        (math.floor(height / width * size), size)
        if width < height
        else (size, math.floor(width / height * size))
    )
    return F.interpolate(clip, target, mode="bilinear", align_corners=False)


def crop(clip: Tensor, place: int, size: int = 256) -> Tensor:
    spare = clip.shape[3] - size
    left = (0, math.ceil(spare / 2), spare)[place]
    return clip[:, :, :size, left : left + size].contiguous()


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(list_path: Path, rounds: int) -> dict[str, list[float]]:
    """CPU seconds per video of each way, in turn."""
    videos = read_list(list_path)
    one_pass = {
        backend: VideoViews(videos, SPEC, backend=backend) for backend in ("decord", "pyav")
    }
    ways: dict[str, Callable[[int], object]] = {
        "view at a time": lambda i: pyslowfast_video(videos[i].path),
        "one pass, decord": lambda i: list(one_pass["decord"].read([i])),
        "one pass, pyav": lambda i: list(one_pass["pyav"].read([i])),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for i in range(len(videos)):
            for name, way in ways.items():
                seconds[name].append(cpu_seconds(lambda way=way, i=i: way(i)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    args = parser.parse_args()
    reading.share_note(reading.Note())  # As loader workers read: decord in this process.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for gop in (12, 250):
            seconds = measure(
                write_videos(Path(folder), args.videos, args.seconds, gop), args.rounds
            )
            size = (
                statistics.mean(path.stat().st_size for path in Path(folder).glob(f"{gop}_*.mp4"))
                / args.seconds
                / 125
            )
            print(f"keyframe every {gop} frames, {size:.0f} kbit/s")
            slow = seconds["view at a time"]
            for name, values in seconds.items():
                ratios = [a / b for a, b in zip(slow, values, strict=True)]
                middle = statistics.median(ratios)
                print(
                    f"  {name:16} {statistics.median(values):7.3f} s CPU per video   {middle:5.1f}"
                    f" x cheaper ({min(ratios):.1f} to {max(ratios):.1f})"
                )


if __name__ == "__main__":
    main()
