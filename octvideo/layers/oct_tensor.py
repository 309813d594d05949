"""A feature in two groups, and the number of channels of each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import NamedTuple

from torch import Tensor

from octvideo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OctTensor:
    """A feature inside a network: `high` (N, C_h, [T,] H, W) and `low` (N, C_l, [T,] ceil(H/2),
    ceil(W/2)) or None."""

    high: Tensor
    low: Tensor | None = None
    pooled: Tensor | None = None
    """The 2 x 2 averages of `high`, where its producer wrote them in the same pass; no gradient."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> "OctTensor":
        """Apply `fn` to each group."""
        return OctTensor(fn(self.high), None if self.low is None else fn(self.low))

    def __add__(self, other: "OctTensor") -> "OctTensor":
        return OctTensor(self.high + other.high, add(self.low, other.low))


def as_pair(feature: OctTensor | Tensor) -> OctTensor:
    """A plain tensor is a pair without a low group."""
    return OctTensor(feature) if isinstance(feature, Tensor) else feature


class Channels(NamedTuple):
    """The number of channels of the high and of the low group."""

    high: int
    low: int = 0

    @property
    def total(self) -> int:
        return self.high + self.low

    def __str__(self) -> str:
        return f"{self.high}+{self.low}" if self.low else str(self.high)


def check_alpha(alpha: float) -> float:
    """Return `alpha`, or raise ConfigError where it is no number in [0, 1)."""
    if not (isinstance(alpha, Real) and 0 <= alpha < 1):
        raise ConfigError(
            f"alpha is {alpha!r}; the share of low-frequency channels lies in [0, 1); 0 is the"
            " plain convolution"
        )
    return alpha


def split_int(channels: int, alpha: float) -> Channels:
    """low = int(alpha * C), as in the official image networks."""
    low = int(alpha * channels)
    return Channels(channels - low, low)


def split_round16(channels: int, alpha: float) -> Channels:
    """high = the multiple of 16 nearest to C(1 - alpha), half up: 64 at .1 is 64+0, 128 is 112+16.

    The widths of Table 6's C2D and I3D rows; multiples of 16 are also what SIMD units and tensor
    cores want.
    """
    high = _nearest_16(channels * (1 - alpha)) if alpha else channels
    high = min(max(high, 16), channels)
    return Channels(high, channels - high)


def split_round16_min16(channels: int, alpha: float) -> Channels:
    """low = the multiple of 16 nearest to alpha * C, half up, at least 16: 64 at .1 is 48+16 (Table
    6's SlowFast)."""
    low = min(max(_nearest_16(channels * alpha), 16), max(channels - 16, 0)) if alpha else 0
    return Channels(channels - low, low)


def _nearest_16(width: float) -> int:
    # 1 - alpha is not exact in binary: 0.5 - 1e-9 must still round up, as it would on paper.
    return 16 * math.floor(width / 16 + 0.5 + 1e-9)


WIDTH_RULES: dict[str, Callable[[int, float], Channels]] = {
    "int": split_int,
    "round16": split_round16,
    "round16_min16": split_round16_min16,
}


def as_channels(channels: int | Channels, alpha: float | None) -> Channels:
    """An int is split by `alpha` with low = int(alpha * C); Channels or a (high, low) tuple are
    returned unchanged."""
    if isinstance(channels, int | Integral):
        return split_int(int(channels), check_alpha(alpha or 0))
    if alpha is not None:
        raise ConfigError(
            f"got {channels!r} and alpha={alpha}; Channels are split already: leave alpha out, or"
            " give an int"
        )
    return Channels(*channels)


def add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b, where None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b
