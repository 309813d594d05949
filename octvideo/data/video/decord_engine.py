"""Reading with decord. It is fast, but a damaged file may end its process: it runs only in
processes that can be replaced."""

import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from octvideo.data.reading import is_worker
from octvideo.data.video.decord_child import SCRIPT, frames_of, open_reader
from octvideo.data.video.frame_table import KnownFile
from octvideo.data.video.video import Frames, Prepare, read_prepared


class DecordEngine:
    """One decord reader on one thread. It holds up to 400 MB (720p) until it is dropped.

    A loader worker, which is replaced when it dies, reads by itself; any other process reads in a
    child process.
    """

    def __init__(self, file: KnownFile, short_side: int | None) -> None:
        info = file.info
        self._shape = (*info.stored_size(short_side), 3)
        height, width = info.stored_size(short_side) if short_side else (-1, -1)
        # An absolute name, since decord's FFmpeg too would take `10:30.mp4` for a protocol.
        name = str(Path(file.path).absolute())
        self._reader = (_Here if is_worker() else _InAChild)(name, width, height)
        if self._reader.count != info.num_frames:
            self.close()
            raise RuntimeError(f"decord counts {self._reader.count} frames of {info.num_frames}")

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        return read_prepared(self._batch, indices, prepare)

    def close(self) -> None:
        self._reader.close()

    def _batch(self, indices: list[int]) -> Frames:
        frames = self._reader.frames(indices)
        if frames.shape[1:] != self._shape:
            raise RuntimeError(f"decord gives frames {frames.shape[1:]} for {self._shape}")
        return frames


class _Here:
    def __init__(self, name: str, width: int, height: int) -> None:
        self._reader = open_reader(name, width, height)
        self.count = len(self._reader)

    def frames(self, indices: list[int]) -> Frames:
        return frames_of(self._reader, indices)

    def close(self) -> None:
        del self._reader


class _InAChild:
    def __init__(self, name: str, width: int, height: int) -> None:
        # -P: the names of this folder's modules do not stand in for others'.
        self._child = subprocess.Popen(
            [sys.executable, "-P", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            self.count = self._ask((name, width, height))
        except RuntimeError:
            self.close()
            raise

    def frames(self, indices: list[int]) -> Frames:
        return self._ask(indices)

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()

    def _ask(self, request: Any) -> Any:
        """Raises RuntimeError for what decord raised, and where it ended its process."""
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            pickle.dump(request, stdin)
            stdin.flush()
            answer = pickle.load(stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            code = self._child.wait()
            ended = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            raise RuntimeError(f"reading it with decord ended the process ({ended})") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer
