"""The description of a coded picture, and a reader of the bits that encode it."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Content(NamedTuple):
    """num_pictures: pictures that begin in a packet; -1: it is damaged. is_restart: decoding may
    begin here.

    is_reordered: a B picture whose place in display order is unknown. follows: False if a picture
    that this one may need is missing. order: place in display order since the last restart, None if
    unknown.
    counts: `order` counts pictures one by one, so that a gap shows a missing one.
    """

    num_pictures: int
    is_restart: bool = False
    is_reordered: bool = False
    follows: bool = True
    order: int | None = None
    counts: bool = False


@dataclass(slots=True)
class Parameters:
    """The properties of the pictures read so far, according to their parameter sets.

    sizes: their (width, height), in order of appearance. is_interlaced: lines may belong to two
    moments. is_cropped: columns at the left or rows at the top are coded but not shown. is_turned:
    a message asks for rotation or a flip.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    is_interlaced: bool = False
    is_cropped: bool = False
    is_turned: bool = False

    def note(self, picture: "Picture") -> None:
        if picture.size not in self.sizes:
            self.sizes.append(picture.size)
            self.is_interlaced |= picture.is_interlaced
            self.is_cropped |= picture.is_cropped


class Picture(NamedTuple):
    """The properties of the pictures of one parameter set (see `Parameters`)."""

    size: tuple[int, int]
    is_interlaced: bool = False
    is_cropped: bool = False


class Bits:
    """Reads bits from the front. Raises ValueError after the last one."""

    def __init__(self, data: bytes, *, is_escaped: bool = True) -> None:
        """is_escaped: 0 0 3 stands for 0 0; the 3 keeps payload from looking like a start code."""
        data = data.replace(b"\0\0\3", b"\0\0") if is_escaped else data
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the data end too early")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def number(self) -> int:
        """Exp-Golomb: 1, 010, 011, 00100 ... = 0, 1, 2, 3 ..."""
        zeros = self._left - (self._value & (1 << self._left) - 1).bit_length()
        return self.take(2 * zeros + 1) - 1

    def signed(self) -> int:
        code = self.number()
        return (code + 1) // 2 if code % 2 else -(code // 2)
