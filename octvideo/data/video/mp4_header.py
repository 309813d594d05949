"""Facts in the header of an mp4 or mov file that PyAV reports late, or not at all."""

import re
import struct
from pathlib import Path

_PLAIN_MATRIX = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_MATRIX_PLACES = {
    b"mvhd": (36, 48),
    b"tkhd": (40, 52),
}  # behind the box's name, in versions 0 and 1 of the box
_MAX_HEADER = 64 << 20  # bytes of a moov that are looked at
_MAX_BOXES = 1000  # before the moov


def read_moov(path: str) -> bytes | None:
    """The box that describes the streams; None in other containers, and if it is too large or too
    far into the file."""
    num_bytes = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        for _ in range(_MAX_BOXES):
            header = file.read(8)
            if len(header) < 8:
                return None
            size, name = struct.unpack(">I4s", header)
            if name == b"moov":
                if size > _MAX_HEADER:
                    return None
                return file.read(size - 8 if size > 8 else _MAX_HEADER)
            if size == 1:
                size = int.from_bytes(file.read(8), "big") - 8
            if not 8 <= size <= num_bytes:
                return None
            file.seek(size - 8, 1)
    return None


def is_fragmented(moov: bytes | None) -> bool:
    return moov is not None and b"mvex" in moov


def may_be_turned(moov: bytes | None) -> bool:
    """Whether a file may ask players to rotate it: False where all display matrices are plain.

    Knowing it from the header spares decoding a first frame, which is half of what looking at a
    file would cost.
    """
    boxes = list(re.finditer(b"mvhd|tkhd", moov or b""))
    places = [
        box.end() + _MATRIX_PLACES[box[0]][box.string[box.end() : box.end() + 1] == b"\x01"]
        for box in boxes
    ]
    return moov is None or not places or any(moov[at : at + 36] != _PLAIN_MATRIX for at in places)
