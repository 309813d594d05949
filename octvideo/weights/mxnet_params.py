"""Reader of MXNet's parameter files, without MXNet: `.params`, and the `.tar` that holds one.

    uint64 0x112, uint64 0, uint64 number of arrays        all numbers little endian
    per array:  uint32 magic, [int32 storage,] ndim, dims, int32 device type, int32 device id,
                int32 dtype, raw data
    uint64 number of names;  per name: uint64 length, bytes

The file comes from elsewhere: no number in it is believed before the bytes that it promises are
known to be there, so that memory stays within the size of the file, and nothing in it is executed.
"""

import math
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from octvideo.errors import CheckpointError

Array = NDArray[np.generic]

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DTYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
MAX_DIMS, MAX_NAME = 8, 1024
MIN_ARRAY_BYTES, MIN_NAME_BYTES = 21, 9  # the smallest records that hold anything


def read_params(path: str | Path) -> dict[str, Array]:
    """Names, as they stand in the file, to arrays of the file's own types.

    Raises CheckpointError for a file that is missing, damaged, truncated or hostile, and for one
    without names.
    """
    try:
        with _open_params(Path(path)) as (file, size):
            return _read_list(_Reader(file, size, str(path)))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error


class _Reader:
    """A file, and how many bytes are left in it."""

    def __init__(self, file: IO[bytes], size: int, path: str) -> None:
        self.file, self.left, self.path = file, size, path

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            raise self.error(
                f"{what} needs {count} bytes, {self.left} are left; the file is truncated or"
                " damaged"
            )
        data = self.file.read(count)
        if len(data) != count:
            raise self.error(f"ends within {what}; the file is truncated")
        self.left -= count
        return data

    def numbers(self, layout: str, what: str) -> tuple[int, ...]:
        """Little-endian numbers by `struct` letters."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}"), what))

    def count(self, what: str, min_bytes: int) -> int:
        """A uint64 that announces that many records of at least `min_bytes`."""
        (count,) = self.numbers("Q", f"the number of {what}")
        if count * min_bytes > self.left:
            raise self.error(
                f"announces {count} {what}, for which {self.left} bytes do not suffice"
            )
        return count

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem}")


def _read_list(reader: _Reader) -> dict[str, Array]:
    magic, _ = reader.numbers("QQ", "the header")
    if magic != LIST_MAGIC:
        raise reader.error(
            f"begins with {magic:#x}, not {LIST_MAGIC:#x}; it is not an MXNet parameter file"
        )
    arrays = [_read_array(reader) for _ in range(reader.count("arrays", MIN_ARRAY_BYTES))]
    names = [_read_name(reader) for _ in range(reader.count("names", MIN_NAME_BYTES))]
    if len(names) != len(arrays):
        raise reader.error(
            f"holds {len(arrays)} arrays and {len(names)} names; each array has one name"
        )
    if len(set(names)) != len(names):
        raise reader.error("names an array twice")
    if reader.left:
        raise reader.error(f"goes on for {reader.left} bytes after its last name")
    return dict(zip(names, arrays, strict=True))


def _read_array(reader: _Reader) -> Array:
    (magic,) = reader.numbers("I", "an array's magic number")
    if magic in (V2, V3):
        storage, ndim = reader.numbers("iI", "an array's header")
        if storage != 0:
            raise reader.error(
                f"holds an array of storage type {storage}; only dense ones (0) are weights"
            )
    else:
        # Before there was a magic number, the number of dimensions stood in its place.
        ndim = reader.numbers("I", "an array's header")[0] if magic == V1 else magic
    if not 1 <= ndim <= MAX_DIMS:
        raise reader.error(
            f"an array has {ndim:#x} dimensions or magic number; weights have 1 to {MAX_DIMS}"
            " dimensions"
        )
    shape = reader.numbers(f"{ndim}{'q' if magic in (V1, V2, V3) else 'I'}", "an array's shape")
    _device_type, _device_id, flag = reader.numbers("iii", "an array's type")
    if min(shape) < 1:
        raise reader.error(f"an array has the shape {shape}; every dimension is at least 1")
    if not 0 <= flag < len(DTYPES):
        raise reader.error(f"an array has the type flag {flag}; known are 0..{len(DTYPES) - 1}")
    dtype = np.dtype(DTYPES[flag])
    data = reader.take(math.prod(shape) * dtype.itemsize, f"an array of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


def _read_name(reader: _Reader) -> str:
    (length,) = reader.numbers("Q", "the length of a name")
    if not 1 <= length <= MAX_NAME:
        raise reader.error(f"a name has {length} bytes; names have 1 to {MAX_NAME}")
    try:
        return reader.take(length, "a name").decode()
    except UnicodeDecodeError as error:
        raise reader.error("a name is not text") from error


# --- The .tar around it


@contextmanager
def _open_params(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """The parameter file and its size: `path` itself, or the one `.params` inside the tar `path`,
    read in place."""
    if path.suffix != ".tar":
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    try:
        # Plain tar only: a compressed one could grow without bounds.
        with tarfile.open(path, "r:") as archive:
            member = _find_params(archive, path)
            yield cast(IO[bytes], archive.extractfile(member)), member.size
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: not a plain tar file, or damaged ({error}); unpack it first"
        ) from error


def _find_params(archive: tarfile.TarFile, path: Path) -> tarfile.TarInfo:
    found = []
    for member in archive:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise CheckpointError(
                f"{path}: refused, its entry {member.name!r} points outside the archive"
            )
        if member.size < 0:  # tarfile would go back and read these entries for ever
            raise CheckpointError(f"{path}: refused, its entry {member.name!r} has a negative size")
        if name.suffix == ".params":
            found.append(member)
    if len(found) != 1:
        raise CheckpointError(f"{path}: holds {len(found)} .params files; exactly one is read")
    if not found[0].isreg() or found[0].issparse():
        raise CheckpointError(
            f"{path}: its entry {found[0].name!r} is a link or sparse, not a plain file"
        )
    return found[0]
