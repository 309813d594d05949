"""Archives of videos (.tar.gz): downloaded in resumable ranges, unpacked as a bounded stream."""

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from octvideo.data.shards.tar import Member, members
from octvideo.data.storage.ranges import read_range, size_of
from octvideo.errors import DataError, logger
from octvideo.files import writing

_RANGE = 1 << 23
_CHUNK = 1 << 20
_UNKNOWN = 1 << 62  # bytes of a tar that is still compressed


class BrokenArchiveError(DataError):
    """An archive that ends early or holds something unexpected."""


def download(address: str, target: Path) -> None:
    """Fetch a file, resuming an earlier call. Raises OSError, OutputError and DataError."""
    if target.exists():
        return
    num_bytes = size_of(address)
    # The size is part of the name: what is left of another version is not continued.
    part = target.with_name(f"{target.name}.{num_bytes}.part")
    with writing(str(part)):
        file = part.open("ab")
    with file:
        while (have := file.tell()) < num_bytes:
            data = read_range(address, have, min(_RANGE, num_bytes - have))
            if not data:
                raise BrokenArchiveError(f"{address}: ends after {have:,} of {num_bytes:,} bytes")
            with writing(str(part)):
                file.write(data)
                file.flush()
    part.replace(target)


def download_and_use(address: str, target: Path, use: Callable[[Path], str]) -> str:
    """Fetch a file for `use`, which says how it is broken, "" where it is not; once more if it is.

    Returns what `use` said last. Raises as `download` and `use`.
    """
    download(address, target)
    cause = use(target)
    if cause:  # perhaps on its way here
        logger.warning("%s; it is fetched once more", cause)
        target.unlink()
        download(address, target)
        cause = use(target)
    return cause


def download_ahead(
    addresses: Sequence[str], folder: Path, num_ahead: int
) -> Iterator[tuple[str, Path]]:
    """The addresses in order, each with its file in `folder`, while at most num_ahead further ones
    are downloaded or wait. Raises as `download`."""
    folder.mkdir(exist_ok=True)
    todo, running = deque(addresses), deque[tuple[str, Path, Future[None]]]()
    with ThreadPoolExecutor(num_ahead) as threads:
        try:
            while todo or running:
                while todo and len(running) <= num_ahead:
                    address = todo.popleft()
                    target = folder / name_of(address)
                    running.append((address, target, threads.submit(download, address, target)))
                address, target, future = running.popleft()
                future.result()
                yield address, target
        finally:
            for _, _, future in running:
                future.cancel()


def name_of(address: str) -> str:
    return PurePosixPath(urlsplit(address).path).name


def unpack_all(archive: Path, wanted: Callable[[str], Path | None]) -> str:
    """As `unpack`; returns why the archive breaks off, "" where it does not."""
    try:
        for _ in unpack(archive, wanted):
            pass
    except BrokenArchiveError as error:
        return str(error)
    return ""


def unpack(archive: Path, wanted: Callable[[str], Path | None]) -> Iterator[Path]:
    """Write the files of a .tar.gz for whose names `wanted` gives a path, one after another.

    Raises BrokenArchiveError where the archive breaks off, after the files before that, of which
    none is torn; OutputError for a full disk.
    """
    with gzip.open(archive) as stream:
        forward = _Forward(stream, archive.name)
        try:
            for member in members(forward.read, _UNKNOWN, archive.name):
                target = wanted(member.name)
                if target is not None:
                    try:
                        forward.copy(member, target)
                    except BrokenArchiveError:
                        target.unlink(missing_ok=True)
                        raise
                    yield target
        except BrokenArchiveError:
            raise
        except DataError as error:
            raise BrokenArchiveError(str(error)) from error


class _Forward:
    """Reads of a stream at offsets that only grow."""

    def __init__(self, stream: gzip.GzipFile, name: str) -> None:
        self._stream, self._name, self._position = stream, name, 0

    def read(self, offset: int, size: int) -> bytes:
        while self._position < offset:
            self._take(min(offset - self._position, _CHUNK))
        return self._take(size)

    def copy(self, member: Member, target: Path) -> None:
        self.read(member.offset, 0)
        with writing(str(target)):
            file = target.open("wb")
        with file:
            left = member.size
            while left:
                data = self._take(min(left, _CHUNK))
                left -= len(data)
                with writing(str(target)):
                    file.write(data)

    def _take(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises BrokenArchiveError where there are fewer."""
        try:
            data = self._stream.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise BrokenArchiveError(f"{self._name}: cannot be unpacked ({error})") from error
        self._position += len(data)
        if len(data) != size:
            raise BrokenArchiveError(f"{self._name}: ends in the middle of a file")
        return data
