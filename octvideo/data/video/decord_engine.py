"""Reading with decord. It is fast, and may crash: only processes that may end without harm open it themselves."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octvideo.data.video.info import VideoInfo
from octvideo.data.video.video import Frames, Prepare

_AT_A_TIME = 8  # frames in memory before `prepare` has made them small


class DecordEngine:
    """One decord reader on one thread. It holds up to 400 MB (720p) until it is dropped."""

    def __init__(self, path: str, info: VideoInfo, short_side: int | None) -> None:
        # After a wrong frame count decord retries at the end of the file, by default (10240) long enough to look hung.
        # Low limits fail on sound files when the machine is busy: 32 did, 1024 did not.
        os.environ.setdefault("DECORD_EOF_RETRY_MAX", "2048")
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._shape = (*info.stored_size(short_side), 3)
        height, width = info.stored_size(short_side) if short_side else (-1, -1)
        # An absolute name, since decord's FFmpeg too would take `10:30.mp4` for a protocol.
        name = str(Path(path).absolute())
        self._reader = decord.VideoReader(name, num_threads=1, width=width, height=height)
        if len(self._reader) != info.num_frames:
            raise RuntimeError(f"decord counts {len(self._reader)} frames of {info.num_frames}")

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        if prepare is None:
            return self._batch(indices)
        distinct = sorted(set(indices))
        found: dict[int, Frames] = {}
        for first in range(0, len(distinct), _AT_A_TIME):
            chosen = distinct[first : first + _AT_A_TIME]
            found.update(zip(chosen, map(prepare, self._batch(chosen)), strict=True))
        return np.stack([found[index] for index in indices])

    def close(self) -> None:
        del self._reader

    def _batch(self, indices: Sequence[int]) -> Frames:
        frames = self._reader.get_batch(list(indices)).asnumpy()
        if frames.shape[1:] != self._shape:
            raise RuntimeError(f"decord gives frames {frames.shape[1:]} for {self._shape}")
        return frames
