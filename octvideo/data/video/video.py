"""An open video: frames by number, from the first decoder that can give them."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from octvideo.data.reading import DecodeError, cause_of, still_reading
from octvideo.data.sampling import Timing
from octvideo.data.video.info import VideoInfo

Frames = NDArray[np.uint8]
Prepare = Callable[[Frames], Frames]
_AT_A_TIME = 8  # frames in memory before `prepare` has made them small
"""What is done to each frame (H, W, 3) as soon as it is decoded, so that large ones are not held
together."""


def read_prepared(
    read: Callable[[list[int]], Frames], indices: Sequence[int], prepare: Prepare | None
) -> Frames:
    """Frames of a decoder that reads many at once, few of them at full size in memory at a time.

    read: uint8 (N, H, W, 3) of N frame numbers. prepare: what becomes of each frame.
    """
    if prepare is None:
        return read(list(indices))
    distinct = sorted(set(indices))
    found: dict[int, Frames] = {}
    for first in range(0, len(distinct), _AT_A_TIME):
        chosen = distinct[first : first + _AT_A_TIME]
        found.update(zip(chosen, map(prepare, read(chosen)), strict=True))
        still_reading()
    return np.stack([found[index] for index in indices])


class Engine(Protocol):
    """A file that a decoder has opened."""

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames: ...
    def close(self) -> None: ...


class Video:
    """The description of a video, and its frames. Made by `octvideo.data.open_video`."""

    def __init__(
        self,
        path: str,
        info: VideoInfo,
        engines: Sequence[Callable[[], Engine]],
        times: Callable[[], Sequence[float]],
    ) -> None:
        """engines: the second is opened when the first fails, and so on. Raises DecodeError when
        none opens.

        times: computes when each frame is shown, in seconds from the first.
        """
        self.path, self.info = path, info
        self._find_times = times
        self._untried = list(engines)
        self._engine = self._open_next()

    def timing(self, *, exact_times: bool = False) -> Timing:
        """The timing for the sampling rules. exact_times: with the true time of every frame."""
        times = self._find_times() if exact_times else ()
        return Timing(self.info.num_frames, self.info.fps, times)

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        """uint8 (T, H, W, 3), in the order asked for, repeats too. prepare: done to each frame."""
        wrong = [index for index in indices if not 0 <= index < self.info.num_frames]
        if wrong:
            raise DecodeError(
                self.path, f"frame {wrong[0]} was asked for; there are {self.info.num_frames}"
            )
        if not len(indices):
            return self.read([0], prepare)[:0]
        while True:
            try:
                return self._engine.read(indices, prepare)
            except Exception as error:
                spare = self._open_next(error)
                self._engine.close()
                self._engine = spare

    def close(self) -> None:
        self._engine.close()

    def _open_next(self, error: Exception | None = None) -> Engine:
        while self._untried:
            try:
                return self._untried.pop(0)()
            except Exception as reason:
                error = reason
        assert error is not None
        raise (
            error if isinstance(error, DecodeError) else DecodeError(self.path, cause_of(error))
        ) from error
