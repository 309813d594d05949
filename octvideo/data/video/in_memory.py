"""Videos that are bytes, not files: decoders that read files get a name for memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path
from tempfile import NamedTemporaryFile

from octvideo.data.reading import DecodeError, cause_of
from octvideo.data.storage.part import Part, read_part
from octvideo.data.video.decode import open_video
from octvideo.data.video.frame_table import FindTable, FrameTable, decode_table
from octvideo.data.video.info import VideoInfo
from octvideo.data.video.video import Video
from octvideo.errors import logger

_number = count(1)


@contextmanager
def open_part(part: Part, name: str, *, backend: str = "auto") -> Iterator[Video]:
    """The video in a part of a larger file. Raises DecodeError for the video, and DataError if the
    storage does not answer."""
    if part.problem:
        raise DecodeError(name, part.problem)
    try:
        data = read_part(part)
    except OSError as error:
        raise DecodeError(name, cause_of(error)) from error
    find_table = cache(partial(_table_of, part))
    with open_bytes(data, name, backend=backend, known=part.info, find_table=find_table) as video:
        yield video


def _table_of(part: Part) -> FrameTable | None:
    """A video's packet table in its shard's index; None if there is none, or if it is damaged."""
    if part.table is None or part.info is None:
        return None
    try:
        return decode_table(read_part(part.table), part.info)
    except (OSError, ValueError) as error:
        _warn_of(part.table.file, cause_of(error))
        return None


@cache
def _warn_of(index: str, cause: str) -> None:
    logger.warning(
        "%s: it is damaged (%s); packets of such videos are looked at again, which takes longer",
        index,
        cause,
    )


@contextmanager
def open_bytes(
    data: bytes,
    name: str,
    *,
    backend: str = "auto",
    known: VideoInfo | None = None,
    find_table: FindTable = lambda: None,
) -> Iterator[Video]:
    """The content of a video file. name: its name in messages. Raises as `open_video`."""
    with (
        _as_file(data) as path,
        open_video(
            path, backend=backend, known=known, name=name, content=data, find_table=find_table
        ) as video,
    ):
        video.path = name
        yield video


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A path that other processes can open too. Linux: memory; elsewhere a temporary file."""
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
