"""Functions that a rewritten graph calls besides the network's own operations."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import ConfigError
from octvideo.layers import OctTensor, down, merge, up_to


def split_map(x: Tensor, high: int, order: Tensor | None = None) -> OctTensor:
    """(N, C, [T,] H, W) to a pair: the first `high` channels, and the others pooled by 2.

    order: (C,), puts the channels of the high group first.
    """
    if order is not None:
        x = x.index_select(1, order)
    return OctTensor(x[:, :high], down(x[:, high:], 2))


def merge_map(x: OctTensor, restore: Tensor | None = None) -> Tensor:
    """A pair to (N, C, [T,] H, W): the low group upsampled, channels in order. restore: (C,)."""
    whole = merge(x)
    return whole if restore is None else whole.index_select(1, restore)


def join_channels(high: Tensor, low: Tensor, restore: Tensor | None = None) -> Tensor:
    """The outputs of a global pool for each group, (N, C_high, ...) and (N, C_low, ...), as one map
    in the channels' order."""
    whole = torch.cat([high, low], 1)
    return whole if restore is None else whole.index_select(1, restore)


def split_gate(x: Tensor, dim: int, high: int, order: Tensor | None = None) -> OctTensor:
    """One value per channel, along `dim`, to the values of each group; nothing is pooled."""
    if order is not None:
        x = x.index_select(dim, order)
    return OctTensor(x.narrow(dim, 0, high), x.narrow(dim, high, x.shape[dim] - high))


def half_of(high: Tensor, low: Tensor) -> Tensor:
    """The low group at half the size of the high one, from which an operation may have left it a
    row or column away: a 2 x 2 pool makes 31 of 62 rows, and 15 of their half.

    The last row or column is repeated, or left out. Raises ConfigError where more of them differ.
    """
    half, found = [-(-size // 2) for size in high.shape[-2:]], list(low.shape[-2:])
    if found == half:
        return low
    rows, columns = (a - b for a, b in zip(half, found, strict=True))
    if max(abs(rows), abs(columns)) > 1:
        raise ConfigError(
            f"the high group is {tuple(high.shape[-2:])} here and the low one {tuple(found)}, not"
            f" its half, {tuple(half)}; call octavize with an example of this shape"
        )
    in_time = (0, 0) * (low.dim() - 4)
    return F.pad(low, (0, columns, 0, rows, *in_time), mode="replicate")


def for_mean(high: Tensor, low: Tensor) -> Tensor:
    """The low group as a mean over positions takes it: at odd sizes at the size of the high one,
    since the last row or column counts half."""
    return up_to(low, high) if any(size % 2 for size in high.shape[-2:]) else low


def shape_of(high: Tensor, channels: int) -> torch.Size:
    """The shape that the undivided map would have."""
    return torch.Size([high.shape[0], channels, *high.shape[2:]])


def require(found: Any, expected: Any, where: str) -> None:
    """Raise ConfigError if an input would take another branch of the network than the example."""
    if found != expected:
        raise ConfigError(
            f"at `{where}` the input gives {found}, the example of octavize gave {expected}; "
            "call octavize with an example of this shape"
        )


class EachGroup(nn.Module):
    """A layer for each group of a pair: group normalization, instance normalization, PReLU."""

    def __init__(self, high: nn.Module, low: nn.Module) -> None:
        super().__init__()
        self.high, self.low = high, low

    def forward(self, x: OctTensor) -> OctTensor:
        assert x.low is not None
        return OctTensor(self.high(x.high), self.low(x.low))
