"""Peak memory of `timeline` and of `octvideo predict VIDEO --output` over the length of the video.

    python benchmarks/long_video.py FOLDER [--minutes 10 30 60 120]

Makes videos of these lengths in FOLDER (64 x 48 H.264, 10 frames per second, AAC sound). Each
measurement runs in a process of its own: its largest resident memory, and what of that a video of
one minute had taken before. The network is small and untrained, since neither its size nor its
weights change how memory grows.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from untrained import make_recognizer

from octvideo.complexity import align
from octvideo.engine.training.records import peak_resident_bytes
from octvideo.predict import write_named_video
from octvideo.recognizer import Recognizer
from octvideo.report.annotate import Label

HEIGHT, WIDTH, FPS = 48, 64, 10
SOUND_RATE = 16_000
SECONDS = {"window_seconds": 2.0, "stride_seconds": 1.0}


def make_videos(folder: Path, minutes: list[int]) -> list[Path]:
    """A texture that drifts, and noise to hear: a minute of it, again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    minute = folder / "minute.mp4"
    encode_minute(minute)
    paths = [folder / f"{number}.mp4" for number in minutes]
    for path, number in zip(paths, minutes, strict=True):
        repeat(minute, path, number)
    return paths


def encode_minute(path: Path) -> None:
    draw = np.random.default_rng(0)
    texture = draw.integers(0, 255, (HEIGHT // 8, WIDTH // 8 + 75, 3), np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)
    noise = draw.normal(0, 1000, (1, 936 * 1024)).astype(np.int16)
    with av.open(str(path), "w", format="mp4") as container:
        options = {"preset": "ultrafast", "bf": "0"}
        pictures = container.add_stream("libx264", rate=FPS, options=options)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        heard = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        heard.rate, heard.pts, heard.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        for number in range(60 * FPS):
            frame = np.ascontiguousarray(texture[:, number : number + WIDTH])
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode())
        container.mux(sound.encode(heard))
        container.mux(sound.encode())


def repeat(source: Path, target: Path, times: int) -> None:
    """The packets of a minute again and again, their clock going on."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        streams = {each: writer.add_stream_from_template(each) for each in reader.streams}
        facts = [
            (bytes(packet), packet.stream, packet.pts, packet.dts, packet.is_keyframe)
            for packet in reader.demux()
            if packet.size
        ]
        for turn in range(times):
            for data, stream, pts, dts, is_key in facts:
                packet, later = av.Packet(data), turn * round(60 / stream.time_base)
                packet.stream, packet.time_base = streams[stream], stream.time_base
                packet.pts, packet.dts, packet.is_keyframe = pts + later, dts + later, is_key
                writer.mux(packet)


def timeline(recognizer: Recognizer, video: Path) -> None:
    recognizer.timeline(video, **SECONDS)


def predict(recognizer: Recognizer, video: Path) -> None:
    output = video.with_suffix(".named.mp4")
    write_named_video(recognizer, video, output, label=Label(), **SECONDS)


def measure(
    work: Callable[[Recognizer, Path], None],
    video: Path,
    short: Path,
    answer: "multiprocessing.Queue[tuple[int, int, float]]",
) -> None:
    """Put the peak before and behind, in bytes, and the seconds. short: a video that has everything
    loaded before the first."""
    torch.set_num_threads(1)
    recognizer = make_recognizer("i3d_r26", alpha=0.5, width=8, size=32)
    work(recognizer, short)
    before, started = peak_resident_bytes(), time.perf_counter()
    work(recognizer, video)
    answer.put((before, peak_resident_bytes(), time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 30, 60, 120])
    parser.add_argument("--only", choices=["timeline", "predict"])
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    short, *videos = make_videos(args.folder, [1, *args.minutes])
    rows = [("", "minutes", "peak MB", "after a short video", "growth", "seconds")]
    for minutes, video in zip(args.minutes, videos, strict=True):
        for work in (timeline, predict):
            if args.only not in (None, work.__name__):
                continue
            answer = spawn.Queue()
            process = spawn.Process(target=measure, args=(work, video, short, answer))
            process.start()
            before, peak, seconds = answer.get()
            process.join()
            numbers = [f"{n / 1e6:.0f}" for n in (peak, before, peak - before)]
            rows.append((work.__name__, str(minutes), *numbers, f"{seconds:.0f}"))
            print(*rows[-1], flush=True)
    print(align(rows, numbers=range(1, 6)))


if __name__ == "__main__":
    main()
