"""The headers of an untrusted tar file: the first and the last byte of each file in it.

Nothing is unpacked, so a name is never used as a path. Every step moves forward by at least one
header of 512 bytes, so that time and memory are bounded by the size of the file.
"""

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from octvideo.errors import DataError

BLOCK = tarfile.BLOCKSIZE
_MAX_NAME = 1 << 16  # bytes of an extended header
MAX_FILE = 1 << 32  # bytes of one file, which is read into memory
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_LONGLINK)

Read = Callable[[int, int], bytes]
"""(offset, size) -> bytes."""


class Member(NamedTuple):
    """A file in a tar: `size` bytes from `offset`."""

    name: str
    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The header of a member. Its bytes do not depend on the user or the time."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padded(size: int) -> int:
    """Bytes that a member of `size` bytes occupies after its header."""
    return -(-size // BLOCK) * BLOCK


def members(read: Read, num_bytes: int, source: str) -> Iterator[Member]:
    """The files of a tar of `num_bytes` bytes, in order, without folders.

    Raises DataError unless the tar is complete and plain: for damaged headers, a member that ends
    beyond the file, links, sparse files, compression.
    """
    position = 0
    overrides: dict[str, str] = {}
    while position + BLOCK <= num_bytes:
        block = read(position, BLOCK)
        if not block.strip(b"\0"):
            return
        info = _parse(block, source, position)
        start = position + BLOCK
        if info.type == tarfile.XGLTYPE:
            position = start + _checked_size(info.size, start, num_bytes, source, position)
            continue
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            size = _checked_size(info.size, start, num_bytes, source, position)
            if info.size > _MAX_NAME:
                raise _error(source, position, f"an extended header of {info.size:,} bytes")
            content = read(start, info.size)
            overrides |= _overrides(content, info.type, source, position)
            position = start + size
            continue
        name = overrides.get("path", info.name)
        size_text = overrides.get("size", str(info.size))
        overrides = {}
        if not size_text.isascii() or not size_text.isdigit():
            raise _error(source, position, f"a size of {size_text[:20]!r}")
        if info.type in _LINKS:
            raise _error(
                source, position, f"{name[:200]!r} is a link; pack it with tar --dereference"
            )
        if info.type != tarfile.DIRTYPE and info.type not in _FILES:
            raise _error(source, position, f"{name[:200]!r} is no plain file")
        size = int(size_text[:20])
        occupied = _checked_size(size, start, num_bytes, source, position)
        if info.type in _FILES:
            if size > MAX_FILE:
                raise _error(
                    source, position, f"{name[:200]!r} holds {size:,} bytes, more than 4 GiB"
                )
            yield Member(name, start, size)
        position = start + occupied


def _parse(block: bytes, source: str, position: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if position == 0 and block[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5"):
            raise DataError(
                f"{source}: a compressed tar cannot be read by ranges; unpack it."
            ) from None
        raise _error(source, position, f"no header of a tar ({error})") from None


def _checked_size(size: int, start: int, num_bytes: int, source: str, position: int) -> int:
    """`size`, if the tar has that many bytes left. Raises DataError if it has fewer."""
    if not 0 <= size <= num_bytes - start:
        raise _error(
            source, position, f"{size:,} bytes are announced, {num_bytes - start:,} follow"
        )
    return min(padded(size), num_bytes - start)


def _overrides(content: bytes, kind: bytes, source: str, position: int) -> dict[str, str]:
    """`path` and `size` of an extended header: records `length key=value\\n`, or the name alone
    (GNU)."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found, at = {}, 0
    while at < len(content) and content[at] != 0:
        length, space, _ = content[at : at + 20].partition(b" ")
        record = content[at : at + int(length)] if space and length.isdigit() else b""
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            raise _error(source, position, "an extended header that is not understood")
        if key.startswith(b"GNU.sparse"):
            raise _error(source, position, "a sparse file; pack it without --sparse")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        at += len(record)
    return found


def _error(source: str, position: int, what: str) -> DataError:
    return DataError(
        f"{source}: byte {position:,}: {what}; this is no tar of videos that can be read."
    )
