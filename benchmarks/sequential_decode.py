"""What a file shows: one sequential decode with PyAV on one thread, in which nothing of octvideo
takes part."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np


@dataclass
class Truth:
    """frames: of a sequential decode, as displayed and at the size (width, height) of the first
    one.

    None for a frame that comes out otherwise each time: FFmpeg conceals with whatever a buffer held
    before.
    is_damaged: FFmpeg finds fault with some picture.
    """

    frames: list[Any] = field(default_factory=list)
    is_damaged: bool = False


def truth_of(path: Path) -> Truth:
    # FFmpeg stands in for a lost picture with a buffer that another one left, or that nobody has
    # filled: which, depends on the frames still held and on what else asks for memory.
    held = _sequential(path, 0), _sequential(path, 2), _sequential(path, 1000)
    runs = [*held, _sequential(path, 0, bare=True)]
    if not all(map(np.array_equal, held[0][:1], runs[-1])):  # turned, or scaled
        runs = list(held)
    frames: list[Any] = [_if_alike(same) for same in zip(*runs, strict=False)]
    frames += [None] * (max(map(len, runs)) - len(frames))
    return Truth(frames, _is_damaged(path))


def _if_alike(frames: Sequence[Any]) -> Any:
    return frames[0] if all(np.array_equal(frames[0], other) for other in frames) else None


def _sequential(path: Path, num_held: int, *, bare: bool = False) -> list[Any]:
    """bare: as stored, neither turned nor scaled."""
    frames: list[Any] = []
    held: deque[Any] = deque(maxlen=num_held)
    size = None
    with suppress(Exception), plain(path) as container:  # whatever it is, the frames end here
        for frame in container.decode(video=0):
            size = size or (frame.width, frame.height)
            frames.append(frame.to_ndarray(format="rgb24") if bare else displayed(frame, *size))
            held.append(frame)
    return frames


def _is_damaged(path: Path) -> bool:
    try:
        with plain(path) as container:
            container.streams.video[0].codec_context.options = {"err_detect": "explode"}
            return any(frame.is_corrupt for frame in container.decode(video=0))
    except Exception:
        return True


@contextmanager
def plain(path: Path) -> Iterator[Any]:
    with av.open(str(path), metadata_errors="replace") as container:
        container.streams.video[0].codec_context.thread_count = 1
        container.streams.video[0].codec_context.flags |= 1  # crops are exact
        yield container


def displayed(frame: Any, width: int, height: int) -> Any:
    """Pixel (x, y) goes to (a x + c y, b x + d y), rounded to quarter turns."""
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).astype(np.int64).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        a, b, c, d = (-1 if a < 0 else 1), 0, 0, (-1 if d < 0 else 1)
    else:
        a, b, c, d = 0, (-1 if b < 0 else 1), (-1 if c < 0 else 1), 0
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    result = np.empty((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    result[to_y, to_x] = pixels
    return result
