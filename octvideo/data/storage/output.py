"""Write files anywhere: atomically on this machine, elsewhere as the storage does it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from iopath.common.file_io import g_pathmgr

from octvideo.data.remote import is_http
from octvideo.data.storage.ranges import fsspec_of, read_range, storage_errors
from octvideo.errors import OctvideoError
from octvideo.files import (
    MOST_KEPT,
    appears_whole,
    handled_file,
    is_handled,
    is_local,
    put_back_after_errors,
    removed_after_errors,
    writing,
)


@contextmanager
def new_file(address: str) -> Iterator[IO[bytes]]:
    """A file to write to, which appears under its name when the block ends; after an error it does
    not.

    After an error, one of this name that was there before is still there on this machine and on the
    object stores of fsspec; a handler of iopath, and a storage that writes in place, have written
    over it, and have none. Raises OutputError.
    """
    with writing(address):
        if is_local(address):
            with _whole(Path(address)) as file:
                yield file
        elif is_handled(address):
            with handled_file(address) as file:
                yield file
        else:
            from fsspec.implementations.local import LocalFileSystem
            from fsspec.spec import AbstractBufferedFile

            files, path = fsspec_of(address)
            if isinstance(files, LocalFileSystem):
                with _whole(Path(path)) as file:
                    yield file
                return
            with storage_errors(address):
                opened = files.open(path, "wb")
            written = cast(IO[bytes], _Written(address, opened))
            if isinstance(opened, AbstractBufferedFile):
                end = _committed(written, opened)
            else:
                end = removed_after_errors(written, partial(files.rm_file, path))
            with end:
                yield written


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    with appears_whole(path) as temporary, temporary.open("wb") as file:
        yield file
        file.flush()


@contextmanager
def _committed(written: IO[bytes], file: Any) -> Iterator[None]:
    """A file of an object store that is closed at the end: closing would commit what an error has
    cut."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # whatever a storage raises that is perhaps away
            file.discard()
        file.closed = True
        raise
    written.close()


class _Written:
    """A file of fsspec to which is written."""

    def __init__(self, address: str, file: Any) -> None:
        self._address, self._file = address, file

    def write(self, data: bytes) -> int:
        with storage_errors(self._address):
            return int(self._file.write(data))

    def flush(self) -> None:
        with storage_errors(self._address):
            self._file.flush()

    def close(self) -> None:
        with storage_errors(self._address):
            self._file.close()


def replace_file(address: str, data: bytes) -> None:
    """`write_file` for what must not be lost: where a storage writes in place, the file that was
    there before is put back after an error."""
    before = None
    if not is_local(address):
        with suppress(FileNotFoundError, PermissionError):
            before = read_range(address, 0, MOST_KEPT + 1)
    with put_back_after_errors(before, partial(write_file, address)):
        write_file(address, data)


def write_file(address: str, data: bytes) -> None:
    """Raises OutputError."""
    with new_file(address) as file:
        file.write(data)


def make_folder(address: str) -> None:
    """Raises OctvideoError where nothing can be written there."""
    if is_http(address):
        raise OctvideoError(
            f"{address}: nothing is written over HTTP; write to a folder that a server serves"
        )
    with writing(address):
        if is_local(address):
            Path(address).mkdir(parents=True, exist_ok=True)
        elif is_handled(address):
            g_pathmgr.mkdirs(address)
        else:
            files, path = fsspec_of(address)
            with storage_errors(address):
                files.makedirs(path, exist_ok=True)
