"""Peak memory of `timeline` and of `octvideo predict VIDEO --output` over the length of the video.

    python benchmarks/long_video.py FOLDER [--minutes 10 30 60 120]

Makes videos of these lengths in FOLDER (160 x 120 H.264, 10 frames per second, AAC sound), which
are kept for another run. Each reading is of a fresh process: the largest resident memory of the
whole process, and what of it was there before the video was opened. The network is small and
untrained, since neither its size nor its weights change how memory grows.
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
from octvideo.files import appears_whole
from octvideo.predict import write_named_video
from octvideo.recognizer import Recognizer
from octvideo.report.annotate import Label

HEIGHT, WIDTH, FPS = 120, 160, 10
SOUND_RATE = 16_000
SECONDS = {"window_seconds": 2.0, "stride_seconds": 1.0}


def make_video(path: Path, minutes: float) -> None:
    """A texture that drifts, and a tone; nothing where the file is there."""
    if path.is_file():
        return
    draw = np.random.default_rng(0)
    texture = draw.integers(0, 255, (HEIGHT // 8, WIDTH // 8 + 100, 3), np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)
    tone = (3000 * np.sin(np.arange(SOUND_RATE) / 5)).astype(np.int16)[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    with appears_whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        pictures = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for second in range(round(60 * minutes)):
            for number in range(second * FPS, (second + 1) * FPS):
                left = number % 800
                frame = np.ascontiguousarray(texture[:, left : left + WIDTH])
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(pictures.encode(picture))
            heard = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            heard.rate, heard.pts = SOUND_RATE, second * SOUND_RATE
            heard.time_base = Fraction(1, SOUND_RATE)
            container.mux(sound.encode(heard))
        container.mux(pictures.encode())
        container.mux(sound.encode())


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
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 60, 120])
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    short = args.folder / "short.mp4"
    make_video(short, 0.1)
    rows = [("", "minutes", "peak MB", "after a short video", "growth", "seconds")]
    for minutes in args.minutes:
        video = args.folder / f"{minutes:g}.mp4"
        make_video(video, minutes)
        for work in (timeline, predict):
            answer = spawn.Queue()
            process = spawn.Process(target=measure, args=(work, video, short, answer))
            process.start()
            before, peak, seconds = answer.get()
            process.join()
            numbers = [f"{n / 1e6:.0f}" for n in (peak, before, peak - before)]
            rows.append((work.__name__, f"{minutes:g}", *numbers, f"{seconds:.0f}"))
            print(*rows[-1], flush=True)
    print(align(rows, numbers=range(1, 6)))


if __name__ == "__main__":
    main()
