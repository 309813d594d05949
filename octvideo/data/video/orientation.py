"""The display orientation of a stored picture: one of eight transforms, flips and quarter turns."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Orientation(NamedTuple):
    """The stored picture is mirrored left to right if `flip`, then turned `rotation` degrees
    counterclockwise.

    rotation: 0, 90, 180 or -90.
    """

    rotation: int = 0
    flip: bool = False

    @classmethod
    def of_matrix(cls, matrix: bytes | None) -> "Orientation":
        """The orientation of FFmpeg's display matrix: 9 int32, whose upper left 2 x 2 matter.

            x' = a x + c y,  y' = b x + d y     (y points down; ISO/IEC 14496-12, 8.5.2)

        Angles between the quarter turns become the nearest one; a matrix of nothing but zeros
        changes nothing.
        """
        if matrix is None or len(matrix) < 36:
            return cls()
        a, b, _, c, d = np.frombuffer(matrix, np.int32, 5).astype(int).tolist()
        if abs(b) + abs(c) <= abs(a) + abs(d):
            return _UPRIGHT[a < 0, d < 0]
        return _ON_ITS_SIDE[b < 0, c < 0]

    @property
    def is_on_its_side(self) -> bool:
        """Whether height and width change places."""
        return self.rotation % 180 != 0

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) as stored -> as displayed: a view."""
        pixels = pixels[:, ::-1] if self.flip else pixels
        return np.rot90(pixels, self.rotation // 90) if self.rotation else pixels


def orientation_of(frame: Any) -> Orientation:
    """From the display matrix that FFmpeg attaches to a frame, from container or codec."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return Orientation.of_matrix(bytes(matrix) if matrix is not None else None)


_UPRIGHT = {  # by whether x' decreases with x, and y' with y
    (False, False): Orientation(0),
    (True, False): Orientation(0, True),
    (False, True): Orientation(180, True),
    (True, True): Orientation(180),
}
_ON_ITS_SIDE = {  # by whether y' decreases with x, and x' with y
    (False, False): Orientation(90, True),
    (True, False): Orientation(90),
    (False, True): Orientation(-90),
    (True, True): Orientation(-90, True),
}
