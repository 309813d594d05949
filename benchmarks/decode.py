"""What exact frames cost: one training clip (8 x 8) per open file, against the bare loop of each
decoder.

    python benchmarks/decode.py [--videos 3] [--rounds 15]

340 x 256 H.264, 10 s, a keyframe every 12 and every 250 frames; 1920 x 1080 for resizing while
decoding. All ways run in turn in one process; CPU seconds of the process are counted, since wall
clocks of a busy machine say nothing. Printed is the median over the rounds (and their quartiles) of
the ratio to the bare loop within the round.
"""

import argparse
import importlib.util
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import decord
import numpy as np
import torch
from made_videos import write_videos

from octvideo.data import open_video, probe, reading
from octvideo.data.lists.video_list import read_list
from octvideo.data.transforms import resize_short_side
from octvideo.data.video import examine
from octvideo.data.video.encode import write_video

SPAN, STEP, FPS = 64, 9, 30
Read = Callable[[str, list[int]], np.ndarray]


def bare_decord(path: str, indices: list[int]) -> np.ndarray:
    return decord.VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def bare_torchcodec(path: str, indices: list[int]) -> np.ndarray:
    """It scans the file first."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
    return decoder.get_frames_at(indices).data.numpy()


def bare_pyav(path: str, indices: list[int]) -> np.ndarray:
    """Seeks by nominal time and trusts the timestamps to be k / fps."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        ticks = [round(index / FPS / stream.time_base) for index in indices]
        container.seek(ticks[0], stream=stream)
        frames = {}
        for frame in container.decode(stream):
            if frame.pts in ticks:
                frames[frame.pts] = frame.to_ndarray(format="rgb24")
            if frame.pts >= ticks[-1]:
                return np.stack([frames[tick] for tick in ticks])
    raise RuntimeError(f"{path}: frames are not where they should be")


def ours(backend: str, remembered: dict | None = None, *, cold: bool = False) -> Read:
    """remembered: the index. cold: forget what an earlier round found out about the file."""

    def read(path: str, indices: list[int]) -> np.ndarray:
        if cold:
            examine.examine.cache_clear()
        with open_video(path, backend=backend, known=remembered and remembered[path]) as video:
            return video.read(indices)

    return read


def cpu_seconds(read: Read, tasks: list[tuple[str, list[int]]]) -> float:
    start = time.process_time()
    for task in tasks:
        read(*task)
    return time.process_time() - start


def compare(
    ways: dict[str, Read], base: str, paths: list[str], num_frames: int, rounds: int
) -> None:
    """Each round every way reads the same clips, one from each file, in an order that changes."""
    draw = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        starts = [draw.randrange(num_frames - SPAN) for _ in paths]
        tasks = [
            (path, list(range(start, start + SPAN, STEP)))
            for path, start in zip(paths, starts, strict=True)
        ]
        for name in draw.sample(list(ways), len(ways)):
            spent = cpu_seconds(ways[name], tasks)
            if number:  # the first round warms up
                seconds[name].append(spent)
    for name, spent in seconds.items():
        ratios = [mine / base_spent for mine, base_spent in zip(spent, seconds[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        clip_ms = 1000 * statistics.median(spent) / len(paths)
        print(
            f"  {name:34} {clip_ms:7.1f} ms a clip   {middle:.3f} of {base} ({low:.3f}-{high:.3f})"
        )


def write_large_video(path: Path) -> str:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (60, 100, 3), np.uint8).repeat(24, 0).repeat(24, 1)
    write_video(
        path,
        (np.roll(texture, (4 * t, 6 * t), (0, 1))[:1080, :1920] for t in range(3 * FPS)),
        FPS,
        gop=30,
    )
    return str(path)


def resized_afterwards(path: str, indices: list[int]) -> np.ndarray:
    with open_video(path) as video:
        clip = torch.from_numpy(video.read(indices)).movedim(-1, 0)
    return resize_short_side(clip, 256).movedim(0, -1).numpy()


def resized_while_decoding(path: str, indices: list[int]) -> np.ndarray:
    with open_video(path, short_side=256) as video:
        return video.read(indices)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    reading.share_note(reading.Note())  # As loader workers read: decord in this process.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for gop in (12, 250):
            sub = Path(folder, str(gop))
            sub.mkdir()
            paths = [entry.path for entry in read_list(write_videos(sub, args.videos, 10, gop))]
            index = {path: probe(path) for path in paths}
            print(f"340 x 256, keyframe every {gop}:")
            by_decord = {
                "bare decord": bare_decord,
                "decord, with the index": ours("decord", index),
                "auto, with the index": ours("auto", index),
                "auto, first look": ours("auto", cold=True),
                "decord, first look": ours("decord", cold=True),
            }
            if importlib.util.find_spec("torchcodec"):
                by_decord |= {
                    "bare torchcodec": bare_torchcodec,
                    "torchcodec, with the index": ours("torchcodec", index),
                    "torchcodec, first look": ours("torchcodec", cold=True),
                }
            compare(by_decord, "bare decord", paths, 10 * FPS, args.rounds)
            by_pyav = {"bare pyav": bare_pyav, "pyav, with the index": ours("pyav", index)}
            compare(by_pyav, "bare pyav", paths, 10 * FPS, args.rounds)
        print("1920 x 1080, keyframe every 30, to a short side of 256:")
        ways = {
            "resize afterwards": resized_afterwards,
            "resize while decoding": resized_while_decoding,
        }
        large = write_large_video(Path(folder, "large.mp4"))
        compare(ways, "resize afterwards", [large], 3 * FPS, max(args.rounds // 3, 3))
        clips = [read(large, list(range(0, SPAN, STEP))).astype(int) for read in ways.values()]
        print(
            f"  the two differ by {np.abs(clips[0] - clips[1]).mean():.2f} gray levels on average"
        )


if __name__ == "__main__":
    main()
