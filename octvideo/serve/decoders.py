"""Decoding of untrusted videos: in limited processes, replaced after hangs and crashes."""

import queue
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from octvideo.data.clips.views import DecodedVideo, ViewSpec, read_clips
from octvideo.data.loading.pool import ReaderPool
from octvideo.data.reading import DecodeError
from octvideo.data.video.decode import open_video
from octvideo.errors import DataError, logger
from octvideo.serve.limits import Limits, RefusedError

_MEMORY = 3 * 2**30  # bytes that decoding may take beside what a fresh process has
_MAX_FPS = 240  # of max_video_seconds: a file's own rate may be a lie


class Decoders:
    """`count` processes, each a pool of its own, so that any thread may use any of them.

    replaced: is called for each process that hung or crashed.
    """

    def __init__(self, count: int, limits: Limits, replaced: Callable[[], None]) -> None:
        self._limits, self._replaced = limits, replaced
        self._free: queue.SimpleQueue[ReaderPool] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(self._start())

    def decode(self, path: str, spec: ViewSpec) -> DecodedVideo:
        """Waits for a free process. A video that cannot be read has a `problem` without a path.
        Raises RefusedError if no process can be had for it."""
        pool = self._free.get()
        try:
            (video,) = pool.run([(path, spec)], ahead=1)
            return video
        except Exception as error:
            pool.close()  # whatever it was: the next request gets a fresh process
            if not pool.bad:
                self._replaced()
            if not isinstance(error, DataError):
                raise
            logger.error("a request's video cannot be decoded: %s", error)
            line = "the server cannot decode videos now; try again later"
            raise RefusedError(503, line) from error
        finally:
            if pool.bad:
                self._replaced()
                pool.bad.clear()  # paths of uploads, which are never seen again
            self._free.put(pool)

    def close(self) -> None:
        """End the idle processes; busy ones end with this process."""
        with suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()

    def _start(self) -> ReaderPool:
        decode = partial(decode_upload, self._limits)
        return ReaderPool(decode, num_workers=1, timeout_seconds=self._limits.decode_seconds)


def decode_upload(limits: Limits, path: str, spec: ViewSpec) -> DecodedVideo:
    """The frames of the views of a file of unknown content, in a worker."""
    _limit_memory()
    try:
        with open_video(path, backend="pyav") as video:
            info = video.info
            _check(limits, path, info.width * info.height, info.duration_seconds, info.num_frames)
            return DecodedVideo(0, path, *read_clips(video, spec))
    except (DecodeError, MemoryError) as error:
        cause = error.cause if isinstance(error, DecodeError) else "it needs too much memory"
        return DecodedVideo(0, path, torch.empty(0), torch.empty(0), cause.replace(path, "it"))


def _check(limits: Limits, path: str, pixels: int, seconds: float, num_frames: int) -> None:
    if pixels > limits.max_pixels:
        raise DecodeError(path, f"pictures of {pixels} pixels; at most {limits.max_pixels}")
    longest = limits.max_video_seconds
    if seconds > longest or num_frames > longest * _MAX_FPS:
        raise DecodeError(path, f"it lasts {seconds:.0f} s; at most {longest:g} s are taken")


def _limit_memory() -> None:
    """Limit the memory once per process: a frame may be larger than the file's header says."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + _MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
