"""A video that is a part of a larger file, as a member of a shard is: its bytes, complete and with
the right checksum."""

import os
import zlib
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from octvideo.data.storage.cache import RangeCache
from octvideo.data.storage.ranges import read_range
from octvideo.files import is_local

if TYPE_CHECKING:
    from octvideo.data.video.info import VideoInfo

_AHEAD = 4  # parts that are being fetched or wait to be read


class Part(NamedTuple):
    """`size` bytes of `file` from `offset`. crc32: of the bytes, -1 where it is not known.

    info: what is known of the video. problem: why it could not be stored ("" when it could). cache:
    of remote files. table: where a shard's index keeps what the video's packets say. version: of
    the file; bytes of which neither a checksum nor a version is known are not kept in the cache.
    """

    file: str
    offset: int
    size: int
    crc32: int = -1
    info: "VideoInfo | None" = None
    problem: str = ""
    cache: RangeCache | None = None
    table: "Part | None" = None
    version: str = ""


def read_part(part: Part) -> bytes:
    """The bytes; those that `prefetch` is fetching are waited for. Raises OSError for a file that
    does not hold them, and DataError for a storage that does not answer.
    """
    running = _fetching.pop(_key(part), None)
    return running.result() if running else _fetch(part)


def prefetch(part: Part) -> None:
    """Start fetching the bytes, while something else is decoded."""
    global _threads
    if part.problem:
        return
    if is_local(part.file):
        _advise(part)
        return
    if _threads is None:
        _threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="prefetch")
    _fetching[_key(part)] = _threads.submit(_fetch, part)
    while len(_fetching) > _AHEAD:
        _fetching.popitem(last=False)[1].cancel()


_fetching: "OrderedDict[str, Future[bytes]]" = OrderedDict()
_threads: ThreadPoolExecutor | None = None


def _key(part: Part) -> str:
    version = part.version if part.crc32 == -1 else ""
    return f"{part.file} {part.offset} {part.size} {part.crc32} {version}".rstrip()


def _fetch(part: Part) -> bytes:
    tells_bytes_apart = part.crc32 != -1 or part.version
    cache = part.cache if tells_bytes_apart and not is_local(part.file) else None
    if cache and (kept := cache.get(_key(part))) and _is_whole(part, kept):
        return kept
    data = read_range(part.file, part.offset, part.size)
    if len(data) != part.size:
        raise OSError(
            f"{part.file} ends before byte {part.offset + part.size:,}; copy the shard again"
        )
    if not _is_whole(part, data):
        raise OSError(
            f"{part.file} holds other bytes than were written to it; copy the shard again"
        )
    if cache:
        cache.put(_key(part), data)
    return data


def _is_whole(part: Part, data: bytes) -> bool:
    return len(data) == part.size and part.crc32 in (-1, zlib.crc32(data))


def _advise(part: Part) -> None:
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            descriptor = os.open(part.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, part.offset, part.size, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
