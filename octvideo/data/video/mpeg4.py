"""MPEG-4 part 2 (DivX, Xvid): what its packets say about their pictures. (ISO/IEC 14496-2, 6.2.3
and 6.2.5.)"""

import re
from contextlib import suppress

from octvideo.data.video.bits import Bits, Content, Parameters, Picture

_PICTURE = re.compile(rb"\x00\x00\x01\xb6(.{1,20})", re.DOTALL)
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f](.{8,40})", re.DOTALL)


class Mpeg4:
    """Part 2 pictures; the two bits behind the start code tell I, P, B, S. AVI has no true
    timestamps for B."""

    def __init__(self, extradata: bytes) -> None:
        self.parameters = Parameters()
        self._time_bits = 0  # of a picture's time; unknown before the first layer
        self._take_layers(extradata)

    def __call__(self, data: bytes) -> Content:
        self._take_layers(data)
        headers = [match[1] for match in _PICTURE.finditer(data)]
        kinds = [header[0] >> 6 for header in headers]
        # A picture of a few bytes is a placeholder, for which decoders may show nothing.
        is_coded = len(data) > 16 and all(map(self._is_coded, headers[:1]))
        return Content(len(kinds) if is_coded else 0, kinds[:1] == [0], 2 in kinds)

    def _is_coded(self, header: bytes) -> bool:
        """False for a picture to be passed over, and where a marker bit shows damage."""
        bits = Bits(header, is_escaped=False)
        try:
            bits.take(2)
            while bits.take(1):
                pass
            marker = bits.take(1)
            bits.take(self._time_bits)
            return not self._time_bits or bool(marker & bits.take(1) & bits.take(1))
        except ValueError:
            return False

    def _take_layers(self, data: bytes) -> None:
        for match in _LAYER.finditer(data):
            with suppress(ValueError):
                picture, self._time_bits = _layer(Bits(match[1], is_escaped=False))
                self.parameters.note(picture)


def _layer(bits: Bits) -> tuple[Picture, int]:
    """A video object layer's header: its pictures, and the bits of their times. Raises ValueError
    for no rectangle."""
    bits.take(1 + 8)
    if bits.take(1):
        bits.take(4 + 3)
    if bits.take(4) == 15:
        bits.take(8 + 8)
    if bits.take(1):
        bits.take(2 + 1)
        bits.take(79 if bits.take(1) else 0)
    if bits.take(2) != 0:
        raise ValueError("not a rectangle")
    bits.take(1)
    time_bits = max((bits.take(16) - 1).bit_length(), 1)
    bits.take(1)
    if bits.take(1):
        bits.take(time_bits)
    width, height = (bits.take(1 + 13) & 0x1FFF for _ in range(2))
    bits.take(1)
    return Picture((width, height), is_interlaced=bool(bits.take(1))), time_bits
