"""Videos that are bytes, not files: every decoder reads them through a name that the system gives
to memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import NamedTemporaryFile

from octvideo.data.reading import DecodeError, cause_of
from octvideo.data.storage.part import Part, read_part
from octvideo.data.video.decode import open_video
from octvideo.data.video.info import VideoInfo
from octvideo.data.video.video import Video

_number = count(1)


@contextmanager
def open_part(part: Part, name: str, *, backend: str = "auto") -> Iterator[Video]:
    """The video in a part of a larger file. Raises DecodeError for it, and DataError for a storage
    that is away."""
    if part.problem:
        raise DecodeError(name, part.problem)
    try:
        data = read_part(part)
    except OSError as error:
        raise DecodeError(name, cause_of(error)) from error
    with open_bytes(data, name, backend=backend, known=part.info) as video:
        yield video


@contextmanager
def open_bytes(
    data: bytes, name: str, *, backend: str = "auto", known: VideoInfo | None = None
) -> Iterator[Video]:
    """The content of a video file. name: what it is called in messages. Raises as `open_video`."""
    with _as_file(data) as path, open_video(path, backend=backend, known=known, name=name) as video:
        video.path = name
        yield video


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path that other processes of this machine can open too. Linux: memory; elsewhere a
    temporary file."""
    if not hasattr(os, "memfd_create") or not Path("/proc/self/fd").is_dir():
        with NamedTemporaryFile(prefix="octvideo-") as file:
            file.write(data)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("video", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        # A name comes again for other bytes: what was found out about a file is remembered by its
        # time as well.
        number = next(_number)
        os.utime(descriptor, ns=(number, number))
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)
