"""Write files anywhere: atomically on this machine, elsewhere as the storage does it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from iopath.common.file_io import g_pathmgr

from octvideo.data.storage.ranges import fsspec_of, storage_errors
from octvideo.errors import OctvideoError
from octvideo.files import appears_whole, is_handled, is_local, writing


@contextmanager
def new_file(address: str) -> Iterator[IO[bytes]]:
    """A file to write to, which appears under its name when the block ends; after an error it does
    not, on this machine and on the object stores of fsspec.

    A handler of iopath, and a storage that writes in place, keep what was written before the error.
    Raises OutputError.
    """
    with writing(address):
        if is_local(address):
            with appears_whole(Path(address)) as temporary, temporary.open("wb") as file:
                yield file
                file.flush()
        elif is_handled(address):
            with g_pathmgr.open(address, "wb") as file:
                yield file
        else:
            files, path = fsspec_of(address)
            with storage_errors(address):
                opened = files.open(path, "wb")
            with _committed(address, opened) as file:
                yield cast(IO[bytes], file)


@contextmanager
def _committed(address: str, file: Any) -> Iterator["_Written"]:
    """A file of fsspec that is closed at the end: closing would commit what an error has cut."""
    from fsspec.spec import AbstractBufferedFile

    try:
        yield _Written(address, file)
    except BaseException:
        if isinstance(file, AbstractBufferedFile):
            with suppress(Exception):  # whatever a storage raises that is perhaps away
                file.discard()
            file.closed = True
        else:
            file.close()
        raise
    with storage_errors(address):
        file.close()


class _Written:
    """A file of fsspec to which is written."""

    def __init__(self, address: str, file: Any) -> None:
        self._address, self._file = address, file

    def write(self, data: bytes) -> int:
        with storage_errors(self._address):
            return int(self._file.write(data))


def write_file(address: str, data: bytes) -> None:
    """Raises OutputError."""
    with new_file(address) as file:
        file.write(data)


def make_folder(address: str) -> None:
    """Raises OctvideoError where nothing can be written there."""
    if address.startswith(("http://", "https://")):
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
