"""Read the properties of a picture from the first bytes of its packet, before decoding: H.264,
H.265 and MPEG-4 part 2.

Pictures are numbered. A number out of sequence shows that a picture is missing, comes twice or in
the wrong place; decoders conceal that in different ways. (ITU-T H.264, sections 7.3 and 8.2.1;
H.265, 7.3 and 8.3.1.)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from octvideo.data.video.bits import Bits, Content, Parameters, Picture
from octvideo.data.video.mpeg4 import Mpeg4


class _Numbered(ABC):
    """Reads the packets of one stream in file order; units behind their lengths, as in mp4."""

    def __init__(self, length_size: int, parameter_sets: Iterator[bytes]) -> None:
        """Raises ValueError or LookupError for parameter sets that are not understood."""
        self.parameters = Parameters()
        self._length_size = length_size
        self._number = self._order = 0  # of the last picture that later ones are numbered by
        for unit in parameter_sets:
            self._take(unit)

    def __call__(self, data: bytes) -> Content:
        contents = []
        try:
            for unit in self._units(data):
                content = self._take(unit)
                if content:
                    contents.append(content)
        except (ValueError, LookupError):
            return Content(-1)
        return contents[0]._replace(num_pictures=len(contents)) if contents else Content(0)

    def _units(self, data: bytes) -> Iterator[bytes]:
        """The beginnings of the units. Raises ValueError for damaged lengths or headers."""
        position, size = 0, self._length_size
        while position + size < len(data):
            length = int.from_bytes(data[position : position + size], "big")
            if length < 2 or position + size + length > len(data):
                break
            if data[position + size] & 0x80:
                raise ValueError("the bit that must be 0 is set: decoders pass over this unit")
            yield data[position + size : position + size + min(length, 1000)]
            position += size + length
        if position != len(data):
            raise ValueError("lengths do not add up")

    @abstractmethod
    def _take(self, unit: bytes) -> Content | None:
        """The picture that begins with this unit, if one does. Parameter sets are remembered."""


class _H264(_Numbered):
    def __init__(self, extradata: bytes) -> None:
        self._sequences: dict[int, tuple[bool, int, int, Picture]] = {}
        self._sequence_of: dict[int, int] = {}  # by picture parameter set
        super().__init__((extradata[4] & 3) + 1, _sets_of_h264(extradata))

    def _take(self, unit: bytes) -> Content | None:
        kind = unit[0] & 31
        if kind == 7:
            self._take_sequence(unit[1], Bits(unit[4:]))
        elif kind == 8:
            bits = Bits(unit[1:20])
            number, self._sequence_of[number] = bits.number(), bits.number()
        elif kind == 6:
            self.parameters.is_turned |= unit[1] == 47
        # A picture begins with the slice of macroblock 0, which is coded as one set bit.
        elif kind in (1, 5) and unit[1] & 0x80:
            return self._picture(kind == 5, unit[0] & 0x60 > 0, Bits(unit[1:24]))
        return None

    def _take_sequence(self, profile: int, bits: Bits) -> None:
        number = bits.number()
        chroma, has_planes = _pass_color(bits) if profile in _HIGH_PROFILES else (1, False)
        number_bits = bits.number() + 4
        kind = bits.number()
        if kind == 1:
            raise ValueError("display order by a cycle, which hardly any encoder writes")
        order_bits = (
            0 if kind else bits.number() + 4
        )  # 0: pictures are shown in the order of the file
        bits.number(), bits.take(1)
        columns, rows = bits.number() + 1, bits.number() + 1
        has_fields = not bits.take(1)
        bits.take(1 + has_fields)
        unit = _chroma_step(chroma, has_planes)
        size, is_cropped = _cropped(
            (16 * columns, 16 * rows * (1 + has_fields)),
            (unit[0], unit[1] * (1 + has_fields)),
            bits,
        )
        picture = Picture(size, has_fields, is_cropped)
        self._sequences[number] = has_planes, number_bits, order_bits, picture

    def _picture(self, is_restart: bool, is_reference: bool, bits: Bits) -> Content:
        bits.number(), bits.number()
        has_planes, number_bits, order_bits, picture = self._sequences[
            self._sequence_of[bits.number()]
        ]
        self.parameters.note(picture)
        bits.take(2 * has_planes)
        number = bits.take(number_bits)
        if picture.is_interlaced and bits.take(1):
            bits.take(1)
        if is_restart:
            bits.number()
            self._number, self._order = -1, -1 if order_bits == 0 else 0
        follows = (number - self._number) % (1 << number_bits) == 1
        order = (
            _nearest(bits.take(order_bits), self._order, 1 << order_bits)
            if order_bits
            else self._order + 1
        )
        if is_reference or not order_bits:
            self._order = order
        if is_reference:
            self._number = number
        return Content(1, is_restart, follows=follows, order=order)


class _H265(_Numbered):
    def __init__(self, extradata: bytes) -> None:
        self._sequences: dict[int, tuple[bool, int, Picture]] = {}
        self._pictures: dict[int, tuple[int, int, int]] = {}
        self._is_ended = self._drops_leading = False
        super().__init__((extradata[21] & 3) + 1, _sets_of_h265(extradata))

    def _take(self, unit: bytes) -> Content | None:
        kind, layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3
        if not unit[1] & 7:
            raise ValueError("a layer in time that there is not: decoders pass over this unit")
        if layer:
            return None  # A second view or a refinement, which decoders leave out.
        if kind == 33:
            self._take_sequence(Bits(unit[2:]))
        elif kind == 34:
            bits = Bits(unit[2:24])
            number, sequence, _ = bits.number(), bits.number(), bits.take(1)
            self._pictures[number] = sequence, bits.take(1), bits.take(3)
        elif kind in (36, 37):
            self._is_ended = True
        elif kind < 32 and unit[2] & 0x80:
            return self._picture(kind, unit[1] & 7 == 1, Bits(unit[2:26]))
        return None

    def _take_sequence(self, bits: Bits) -> None:
        bits.take(4)
        layers = bits.take(3)
        bits.take(1 + 88 + 8)
        present = [bits.take(2) for _ in range(layers)]
        bits.take(2 * (8 - layers) if layers else 0)
        for flags in present:
            bits.take(88 * (flags >> 1) + 8 * (flags & 1))
        number = bits.number()
        chroma = bits.number()
        has_planes = chroma == 3 and bool(bits.take(1))
        size = bits.number(), bits.number()
        picture = Picture(*_cropped(size, _chroma_step(chroma, has_planes), bits)[:1])
        bits.number(), bits.number()
        self._sequences[number] = has_planes, bits.number() + 4, picture

    def _picture(self, kind: int, is_base_layer: bool, bits: Bits) -> Content:
        bits.take(1)
        if 16 <= kind < 24 and bits.take(1) and self.parameters.sizes:
            raise ValueError("a restart that drops pictures which were not shown yet")
        sequence, has_output, num_extra = self._pictures[bits.number()]
        has_planes, order_bits, picture = self._sequences[sequence]
        self.parameters.note(picture)
        if 16 <= kind < 24:
            self._drops_leading = kind != 21 or self._is_ended
            self._is_ended = False
        elif self._is_ended:
            raise ValueError("a sequence that goes on behind its end: decoders show it in disorder")
        elif kind in (8, 9) and self._drops_leading:
            raise ValueError("a picture that refers to those before the restart: decoders drop it")
        if is_restart := kind in (19, 20):
            self._order = order = 0
        else:
            bits.take(num_extra), bits.number(), bits.take(has_output + 2 * has_planes)
            order = _nearest(bits.take(order_bits), self._order, 1 << order_bits)
        if is_base_layer and not 6 <= kind < 10 and (kind % 2 or kind >= 16):
            self._order = order
        return Content(1, is_restart, order=order, counts=True)


Inspector = Mpeg4 | _Numbered
"""Reads the packets of one stream in file order."""
_NUMBERED: dict[str, Callable[[bytes], _Numbered]] = {"h264": _H264, "hevc": _H265}


def inspector(codec: str, extradata: bytes, container: str) -> Inspector | None:
    """The reader of this codec's packets (FFmpeg's name), None where they prove nothing."""
    if codec == "mpeg4":
        return Mpeg4(extradata)
    if (
        codec in _NUMBERED
        and ("mp4" in container or "matroska" in container)
        and extradata[:1] == b"\x01"
    ):
        with suppress(ValueError, LookupError):
            return _NUMBERED[codec](extradata)
    return None


_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}


def _pass_color(bits: Bits) -> tuple[int, bool]:
    """Read over color format, depth and scaling matrices. Returns the format, and whether its
    planes are apart."""
    color = bits.number()
    has_planes = color == 3 and bool(bits.take(1))
    bits.number(), bits.number(), bits.take(1)
    if bits.take(1):
        for size in [16] * 6 + [64] * (6 if color == 3 else 2):
            if bits.take(1):
                _pass_scaling_list(bits, size)
    return color, has_planes


def _chroma_step(color: int, has_planes: bool) -> tuple[int, int]:
    """What crops are counted in: 4:2:0 in pairs of both, 4:2:2 in pairs of columns."""
    return (1, 1) if has_planes else (2 if color in (1, 2) else 1, 2 if color == 1 else 1)


def _cropped(
    size: tuple[int, int], step: tuple[int, int], bits: Bits
) -> tuple[tuple[int, int], bool]:
    """(width, height) of the crop rectangle, and whether it begins behind the corner."""
    if not bits.take(1):
        return size, False
    left, right, top, bottom = (bits.number() for _ in range(4))
    shown = size[0] - step[0] * (left + right), size[1] - step[1] * (top + bottom)
    if min(shown) < 1:
        raise ValueError("a crop that leaves nothing")
    return shown, left + top > 0


def _pass_scaling_list(bits: Bits, size: int) -> None:
    scale = 8
    for _ in range(size):
        scale = (scale + bits.signed()) % 256
        if not scale:
            return


def _nearest(value: int, place: int, modulus: int) -> int:
    """The number nearest to `place` that is `value` modulo `modulus`."""
    step = (value - place) % modulus
    return place + (step - modulus if step > modulus // 2 else step)


def _sets_of_h264(extradata: bytes) -> Iterator[bytes]:
    """The sequence sets, then the picture sets of an AVCDecoderConfigurationRecord."""
    position = 5
    for mask in (31, 255):
        count, position = extradata[position] & mask, position + 1
        position = yield from _sets(extradata, count, position)


def _sets(extradata: bytes, count: int, position: int) -> Generator[bytes, None, int]:
    """`count` parameter sets from `position` on, each behind its length; returns where they end."""
    for _ in range(count):
        start = position + 2
        position = start + int.from_bytes(extradata[position:start], "big")
        yield extradata[start:position]
    return position


def _sets_of_h265(extradata: bytes) -> Iterator[bytes]:
    """The parameter sets of an HEVCDecoderConfigurationRecord, which holds arrays of them."""
    position = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[position + 1 : position + 3], "big")
        position = yield from _sets(extradata, count, position + 3)
