"""Clips of a stream of frames, one after another; only frames of open windows are held."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")


def sliding_clips(
    frames: Iterable[Frame],
    *,
    window: int,
    step: int,
    num_frames: int,
    keep: Callable[[Frame], Frame] = lambda frame: frame,
) -> Iterator[tuple[int, list[Frame]]]:
    """(index of the first frame, num_frames evenly spread frames) of every window of `window`
    frames, `step` apart.

        window 7, step 3, 3 frames:   f..f..f
                                         f..f..f

    A stream shorter than one window gives a single clip that repeats its last frames. keep: the
    function whose result is held of each frame.
    """
    offsets = [k * (window - 1) // max(num_frames - 1, 1) for k in range(num_frames)]
    held: dict[int, Frame] = {}
    start = 0
    for number, frame in enumerate(frames):
        if any(number >= offset and (number - offset) % step == 0 for offset in offsets):
            held[number] = keep(frame)
        if number == start + window - 1:
            yield start, [held[start + offset] for offset in offsets]
            start += step
            held = {n: f for n, f in held.items() if n >= start}
    if start == 0 and held:
        numbers = sorted(held)
        yield 0, [held[numbers[bisect_right(numbers, offset) - 1]] for offset in offsets]
