"""A range of bytes of a file: on this machine, over HTTP, or wherever iopath or fsspec reach."""

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from iopath.common.file_io import g_pathmgr

from octvideo.data.remote import is_http, local_path
from octvideo.data.storage import http
from octvideo.data.storage.http import TransientError
from octvideo.data.storage.refusals import final_status
from octvideo.errors import DataError
from octvideo.files import is_handled, is_local

PATIENCE = 300.0  # seconds for which a storage that does not answer is asked again
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

Result = TypeVar("Result")


class FileState(NamedTuple):
    """What the storage says of a file. version: another one for other bytes, even if they are as
    many; "" where the storage tells none."""

    num_bytes: int
    version: str


def read_range(address: str, offset: int, size: int) -> bytes:
    """At most `size` bytes from `offset`; fewer only at the end of the file.

    Raises OSError where there is no such file, and DataError where the storage has not answered for
    five minutes.
    """
    if is_local(address):
        return _read_local(address, offset, size)
    return _retried(address, lambda: _read_remote(address, offset, size))


def read_file(address: str, most: int) -> bytes:
    """A small file whole. Raises as `read_range`, and DataError for more than `most` bytes."""
    data = read_range(address, 0, most + 1)
    if len(data) > most:
        raise DataError(f"{address}: more than {most:,} bytes, which is not a file of this kind.")
    return data


def size_of(address: str) -> int:
    """Bytes of a file. Raises as `read_range`."""
    return state_of(address).num_bytes


def state_of(address: str) -> FileState:
    """The size and the version of a file, asked anew. Raises as `read_range`."""
    if is_local(address):
        status = Path(address).stat()
        return FileState(status.st_size, str(status.st_mtime_ns))
    return _retried(address, lambda: _remote_state(address))


def exists(address: str) -> bool:
    """Whether there is such a file. Raises DataError where the storage does not answer."""
    if is_local(address):
        return Path(address).is_file()
    try:
        size_of(address)
    except OSError:
        return False
    return True


def list_folder(address: str) -> list[str]:
    """Names of a folder's files, sorted. Raises OSError, and DataError where it cannot list."""
    if is_local(address):
        return sorted(entry.name for entry in os.scandir(address) if entry.is_file())
    if is_http(address):
        raise DataError(f"{address}: a server over HTTP does not list its files.")
    return _retried(address, lambda: _list_remote(address))


def _read_local(path: str, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, size, offset)
        while len(data) < size and (
            more := os.pread(descriptor, size - len(data), offset + len(data))
        ):
            data += more
        return data
    finally:
        os.close(descriptor)


def _retried(address: str, action: Callable[[], Result]) -> Result:
    """The result of an action that is retried after failures that may pass."""
    deadline, pause = time.monotonic() + PATIENCE, _FIRST_PAUSE
    while True:
        try:
            return action()
        except _FINAL:
            raise
        except (TransientError, ConnectionError, TimeoutError) as error:
            if time.monotonic() + pause > deadline:
                cause = str(error) if address in str(error) else f"{address}: {error}"
                raise DataError(
                    f"{cause}; tried for {PATIENCE:g} seconds. The same command resumes when the"
                    " storage answers again"
                ) from error
        # Not all clients at once: those of a run were cut off together.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _read_remote(address: str, offset: int, size: int) -> bytes:
    if is_handled(address):  # Handlers that a user registers take precedence.
        try:
            with storage_errors(address), g_pathmgr.open(address, "rb") as file:
                file.seek(offset)
                return file.read(size)
        except NotImplementedError:
            return _read_local(local_path(address), offset, size)
    if is_http(address):
        return http.read_range(address, offset, size)
    files, path = fsspec_of(address)
    with storage_errors(address):
        return files.cat_file(path, start=offset, end=offset + size)


def _remote_state(address: str) -> FileState:
    if is_handled(address):
        try:
            with storage_errors(address), g_pathmgr.open(address, "rb") as file:
                return FileState(file.seek(0, os.SEEK_END), "")
        except NotImplementedError:
            return FileState(Path(local_path(address)).stat().st_size, "")
    if is_http(address):
        return FileState(*http.state_of(address))
    files, path = fsspec_of(address)
    with storage_errors(address):
        files.invalidate_cache()  # A listing that it keeps may tell of an earlier file.
        info = files.info(path)
        return FileState(int(info["size"]), _version(files, path, info))


def _version(files: Any, path: str, info: dict[str, Any]) -> str:
    if tag := info.get("ETag") or info.get("etag"):
        return str(tag)
    # A hash of all that is known; of these alone it would stay if other bytes came.
    return str(files.ukey(path)) if set(info) - {"name", "size", "type"} else ""


def _list_remote(address: str) -> list[str]:
    if is_handled(address):
        try:
            with storage_errors(address):
                return sorted(g_pathmgr.ls(address))
        except NotImplementedError:
            raise DataError(f"{address}: its handler lists no files; make shards.json.") from None
    files, path = fsspec_of(address)
    with storage_errors(address):
        files.invalidate_cache()
        found = files.ls(path, detail=False)
    return sorted(name.rstrip("/").rpartition("/")[2] for name in found)


@contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """A context for calls of handlers and of fsspec: an error that may pass becomes a
    TransientError; of the others, missing or wrong keys and a request that is refused whatever the
    file a DataError, a file that is absent or withheld an OSError.

    Much of what they raise is their client's, as botocore's, and no OSError.
    """
    try:
        yield
    except NotImplementedError:
        raise
    except Exception as error:
        status = final_status(error)
        if isinstance(error, _FINAL) and status != HTTPStatus.UNAUTHORIZED:
            raise
        cause = " ".join(str(error).split()) or type(error).__name__
        match status:
            case 0:
                raise TransientError(cause) from error
            case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
                raise FileNotFoundError(errno.ENOENT, cause, address) from error
            case HTTPStatus.FORBIDDEN:
                raise PermissionError(errno.EACCES, cause, address) from error
            case HTTPStatus.UNAUTHORIZED:
                remedy = (
                    "give the keys of this storage where its client looks for them, and set the"
                    " clock if it is wrong"
                )
            case _:
                remedy = "the storage would refuse it again; correct the address or its settings"
        raise DataError(f"{address}: {cause}; {remedy}") from error


def fsspec_of(address: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it."""
    scheme = address.partition("://")[0]
    remedy = (
        f"register a handler for {scheme}:// with iopath's g_pathmgr, or install fsspec's package"
        " for it"
    )
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise DataError(f"{address}: nothing can read this ({error}); {remedy}.") from error
