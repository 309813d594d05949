"""When frames are shown; only this module converts timestamps to seconds."""

from array import array
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_MAX_REORDERING = 16  # frames, in every codec
_DEFAULT_RATE = 25.0
_NEARLY_ALL = 0.98

Seconds = NDArray[np.float64]


def sane_rate(fps: Fraction | float | None) -> float:
    """Frames per second; 25 for no rate or an absurd one, so that arithmetic stays finite."""
    return float(fps) if fps and 0.1 <= fps <= 1000 else _DEFAULT_RATE


def true_times(stamps: Sequence[float] | Seconds, fps: float) -> Seconds:
    """Timestamps of frames in display order (nan: none) -> increasing seconds from the first frame.

    Frames that carry each other's stamps (AVI has none for B pictures) share them out in order.
    Stamps that start again, as in recordings that were joined, go on behind the frame before; a
    frame without a stamp of its own, or with an impossible one, stands between its neighbors. All
    nan: 1 / fps apart.
    """
    times = np.array(stamps, np.float64)
    if np.isnan(times).all():
        return np.arange(len(times)) / fps
    # First, since stamps that are told apart near zero may not be so beside larger numbers.
    times -= np.nanmin(times)
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    interval = float(np.median(gaps)) if len(gaps) else 1 / fps
    if np.isnan(times).any() or (np.diff(times) <= 0).any():
        times = np.sort(times) if _is_reordered(times) else _rebased(times, interval)
    return times - times[0]


def _is_reordered(times: Seconds) -> bool:
    """Whether the stamps are those of the frames, only not each frame's own."""
    places = np.argsort(times, kind="stable")
    moved = np.abs(places - np.arange(len(times))).max()
    return (
        not np.isnan(times).any()
        and moved <= _MAX_REORDERING
        and len(np.unique(times)) == len(times)
    )


def _rebased(times: Seconds, interval: float) -> Seconds:
    result = np.empty_like(times)
    last, offset = -interval, None
    for k, stamp in enumerate(times):
        follower = times[k + 1] if k + 1 < len(times) else np.nan
        if np.isnan(stamp):
            here = last + interval
        elif offset is None:
            here, offset = last + interval, last + interval - stamp
        elif stamp + offset > last:
            here = stamp + offset
        elif follower + offset > last:  # This stamp alone is wrong.
            here = (last + follower + offset) / 2
        else:
            here, offset = last + interval, last + interval - stamp
        result[k] = last = max(here, last + 1e-6)
    return result


def with_end(times: Sequence[float], duration_seconds: float) -> "array[float]":
    """When frames are shown, and behind them when the last one ends."""
    shown = array("d", times)
    shown.append(max(duration_seconds, times[-1]))
    return shown


def rate_and_duration(
    times: Seconds, announced: Fraction | float | None, last_seconds: float = 0.0
) -> tuple[float, float]:
    """(frames per second, seconds) of a video with these true times; last_seconds: how long the
    last frame is shown.

    The announced rate holds where nearly all frames are shown at it, to half a frame; players hold
    the first frame of some AVI files longer. Else, and where no rate is announced, it is the number
    of frames over their time.
    """
    count, rate = len(times), sane_rate(announced)
    is_said = announced is not None and 0.1 <= announced <= 1000
    late = times * rate - np.arange(count)  # in frames
    if count < 2 or (is_said and np.abs(late).max() <= 0.5):
        return rate, count / rate
    gaps = np.diff(times)
    is_sane = 0 < last_seconds <= 10 * gaps.max()
    seconds = float(times[-1]) + (last_seconds if is_sane else float(np.median(gaps)))
    if is_said and np.mean(np.abs(late - np.median(late)) <= 0.5) >= _NEARLY_ALL:
        return rate, seconds
    return min(max(count / seconds, 1e-3), 1e3), seconds
