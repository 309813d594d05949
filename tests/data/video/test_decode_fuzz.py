"""Damaged files: whatever the bytes, an answer or a DecodeError comes back, and nothing is held on
to."""

import gc
import random
import resource
from pathlib import Path

import pytest
from coded_videos import write_clip

from octvideo.data import DecodeError, read_frames
from octvideo.data.loading.pool import ReaderPool

NUM_FILES = 1000
NUM_OPENS = 800


def mutate(good: list[bytes], number: int) -> bytes:
    """One of: a few bytes flipped, a stretch overwritten, cut off, spliced with another file, a
    part left out."""
    draw = random.Random(number)
    data = bytearray(draw.choice(good))
    place, length = draw.randrange(len(data)), draw.randrange(1, 2000)
    match number % 5:
        case 0:
            for _ in range(draw.randrange(1, 50)):
                data[draw.randrange(len(data))] = draw.randrange(256)
        case 1:
            data[place : place + length] = draw.randbytes(length)
        case 2:
            del data[place:]
        case 3:
            other = draw.choice(good)
            data[place:] = other[draw.randrange(len(other)) :]
        case 4:
            del data[place : place + length]
    return bytes(data)


def read_mutant(folder: str, good: list[bytes], number: int) -> str:
    """Runs in a worker: "frames", or the cause of a DecodeError; anything else would be raised in
    the test."""
    path = Path(folder, f"{number % 16}-{number}.mp4")
    path.write_bytes(mutate(good, number))
    draw = random.Random(number)
    try:
        indices = [draw.randrange(30) for _ in range(4)]
        frames = read_frames(path, indices)
        assert frames.shape[0] == 4
        return "frames"
    except DecodeError as error:
        return error.cause
    finally:
        path.unlink()


def open_files_and_memory() -> tuple[int, int]:
    """Descriptors, and resident bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(list(Path("/proc/self/fd").iterdir())), pages * resource.getpagesize()


def held_after_opens(folder: str, good: list[bytes], num_opens: int) -> list[tuple[int, int]]:
    """Runs in a worker: what it holds after a quarter of the opens, and after all; half of the
    files are damaged."""
    held = []
    for number in range(num_opens):
        if number % 2:
            read_mutant(folder, good, number)
        else:
            read_frames(
                Path(folder, "good.mp4"), [number % 20], backend="pyav" if number % 4 else "auto"
            )
        if number + 1 in (num_opens // 4, num_opens):
            gc.collect()
            held.append(open_files_and_memory())
    return held


@pytest.fixture(scope="module")
def good_files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("good")
    write_clip(folder / "a.mp4", options={"g": "8", "bf": "2"})
    write_clip(folder / "b.mkv", options={"g": "12"})
    write_clip(folder / "c.avi", codec="mpeg4", options={"g": "10"})
    write_clip(folder / "d.mp4", options={"x264-params": "open-gop=1:keyint=8:bframes=2"})
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.mark.slow
def test_a_thousand_damaged_files_neither_hang_nor_crash_a_reader(good_files, tmp_path):
    pool = ReaderPool(read_mutant, num_workers=2, timeout_seconds=20)

    answers = list(
        pool.run([(str(tmp_path), good_files, number) for number in range(NUM_FILES)], ahead=16)
    )
    pool.close()

    assert pool.bad == {}
    assert len(answers) == NUM_FILES
    assert 0 < answers.count("frames") < NUM_FILES


@pytest.mark.slow
def test_descriptors_and_memory_stay_bounded_over_many_opens(good_files, tmp_path):
    (tmp_path / "good.mp4").write_bytes(good_files[0])
    pool = ReaderPool(held_after_opens, num_workers=1, timeout_seconds=60)

    task = (str(tmp_path), good_files, NUM_OPENS)
    (early_files, early_bytes), (late_files, late_bytes) = next(pool.run([task], ahead=1))
    pool.close()

    assert late_files <= early_files
    assert late_bytes < early_bytes + 10e6
