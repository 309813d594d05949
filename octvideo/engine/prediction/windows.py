"""Windows over time: their outputs, and exactly which frames and seconds each covers."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.engine.prediction.columns import write_columns
from octvideo.engine.prediction.named import Prediction, top_predictions
from octvideo.errors import ConfigError

Frame = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Probabilities over time: scores (windows, classes), window i from starts[i] to ends[i]
    seconds."""

    class_names: Sequence[str]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    scores: NDArray[np.float32]

    def top(self, window: int, k: int = 5) -> list[Prediction]:
        """The k most probable classes of a window."""
        return top_predictions(self.scores[window], self.class_names, k)

    def at(self, seconds: float) -> int:
        """The window whose middle is nearest to that time."""
        return int(np.abs((self.starts + self.ends) / 2 - seconds).argmin())


@dataclass(frozen=True, slots=True, eq=False)
class WindowFeatures:
    """The input of the classifier for each window: features float32 (W, C).

    Window i is of the frames first_frames[i] <= n < end_frames[i], int64 (W,), shown from starts[i]
    to ends[i], float64 (W,) in seconds after the first frame.

    - A window is round(window_seconds * rate) frames, at least one; windows begin
      round(stride_seconds * rate) frames
      apart, at least one, the first with the first frame. By default the stride is the window.
    - Only whole windows count: the last frames of a video that fill no window of their own are left
      out.
    - A video shorter than a window is one window, which repeats its last frame and ends where the
      video ends.
    - A window is seen in the network's number of frames, spread evenly from its first to its last;
      center crop.
    - Seconds are when the frames are shown, also in a file whose rate varies; the end is that of
      the last frame.
    """

    RANGES: ClassVar[tuple[str, ...]] = ("first_frames", "end_frames", "starts", "ends")

    features: NDArray[np.float32]
    first_frames: NDArray[np.int64]
    end_frames: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.features)

    def ranges(self) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
        """The frames and seconds by name."""
        return {
            "first_frames": self.first_frames,
            "end_frames": self.end_frames,
            "starts": self.starts,
            "ends": self.ends,
        }

    def save(self, path: str | Path) -> None:
        """The five arrays as .npz, or as columns of a .parquet (needs pyarrow)."""
        write_columns(Path(path), {"features": self.features, **self.ranges()})


def check_lengths(window_seconds: float, stride_seconds: float) -> None:
    """Raises ConfigError."""
    if not (0 < window_seconds < math.inf and 0 < stride_seconds < math.inf):
        raise ConfigError(
            f"windows of {window_seconds} s every {stride_seconds} s; both must be positive"
        )


class VideoWindows:
    """The windows of a stream of frames. Raises ConfigError for lengths that are not positive, and
    when more frames come than there are times.

    num_read: frames that have come so far.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        rate: float,
        times: Sequence[float],
        window_seconds: float,
        stride_seconds: float,
    ) -> None:
        """times: when each frame is shown, where that is known; one more is when the last one
        ends."""
        check_lengths(window_seconds, stride_seconds)
        self.length = max(round(window_seconds * rate), 1)
        self.step = max(round(stride_seconds * rate), 1)
        self.num_read = 0
        self._frames, self._rate, self._times = frames, rate, times

    def batches(
        self, num_frames: int, keep: Callable[[Frame], Frame], size: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(first frames, uint8 (n, 3, num_frames, H, W)) of at most `size` windows at a time.

        keep: the function whose result is kept of each frame.
        """
        clips = sliding_clips(
            self._counted(), window=self.length, step=self.step, num_frames=num_frames, keep=keep
        )
        while batch := list(islice(clips, size)):
            stacked = torch.from_numpy(np.stack([np.stack(clip) for _, clip in batch]))
            yield [start for start, _ in batch], stacked.movedim(-1, 1)

    def features(self, firsts: list[int], features: NDArray[np.float32]) -> WindowFeatures:
        """Features with the ranges of their windows; all frames have come."""
        return WindowFeatures(features, *self.ranges(firsts))

    def ranges(
        self, firsts: list[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """The `WindowFeatures.RANGES` of windows whose frames have come."""
        begin = np.array(firsts, np.int64)
        end = np.minimum(begin + self.length, self.num_read)
        return begin, end, self._seconds_at(begin), self._seconds_at(end)

    def _seconds_at(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """The times at which frames begin; after the last one, its end."""
        if not len(self._times):
            return places / self._rate
        known = np.append(self._times, self._times[-1] + 1 / self._rate)
        return known[places]

    def _counted(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.num_read += 1
            if 0 < len(self._times) < self.num_read:
                raise ConfigError(
                    f"got {len(self._times)} times for more frames; give times= the seconds at"
                    " which each frame is shown, or leave it out"
                )
            yield frame


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

    A stream shorter than one window gives a single clip that repeats its last frame, whatever the
    step. keep: the function whose result is held of each frame.
    """
    offsets = [k * (window - 1) // max(num_frames - 1, 1) for k in range(num_frames)]
    held: dict[int, Frame] = {}
    start, number, frame = 0, -1, None
    for number, frame in enumerate(frames):
        if any(number >= offset and (number - offset) % step == 0 for offset in offsets):
            held[number] = keep(frame)
        if number == start + window - 1:
            yield start, [held[start + offset] for offset in offsets]
            start += step
            held = {n: f for n, f in held.items() if n >= start}
    if start == 0 and frame is not None:
        held[number] = keep(frame)
        yield 0, [held[min(offset, number)] for offset in offsets]
