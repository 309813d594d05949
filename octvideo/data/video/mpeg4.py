"""MPEG-4 part 2 (DivX, Xvid): what its packets say of their pictures. (ISO/IEC 14496-2, 6.2.3 and 6.2.5.)"""

import re
from contextlib import suppress

from octvideo.data.video.bits import Bits, Content, Parameters, Picture

_PICTURE = re.compile(rb"\x00\x00\x01\xb6(.)", re.DOTALL)
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f](.{8,40})", re.DOTALL)


class Mpeg4:
    """Part 2 pictures; the two bits behind the start code tell I, P, B, S. AVI has no true timestamps for B."""

    def __init__(self, extradata: bytes) -> None:
        self.parameters = Parameters()
        self._take_layers(extradata)

    def __call__(self, data: bytes) -> Content:
        self._take_layers(data)
        kinds = [match[1][0] >> 6 for match in _PICTURE.finditer(data)]
        # A picture of a few bytes is a placeholder ("not coded"), for which decoders may show nothing.
        num_pictures = len(kinds) if len(data) > 16 else 0
        return Content(num_pictures, kinds[:1] == [0], 2 in kinds)

    def _take_layers(self, data: bytes) -> None:
        for match in _LAYER.finditer(data):
            with suppress(ValueError):
                self.parameters.note(_layer(Bits(match[1], is_escaped=False)))


def _layer(bits: Bits) -> Picture:
    """A video object layer's header. Raises ValueError for one that is not a rectangle."""
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
    resolution = bits.take(16)
    bits.take(1)
    if bits.take(1):
        bits.take(max((resolution - 1).bit_length(), 1))
    width, height = (bits.take(1 + 13) & 0x1FFF for _ in range(2))
    bits.take(1)
    return Picture((width, height), is_interlaced=bool(bits.take(1)))
