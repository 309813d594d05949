"""Functions that a rewritten graph calls besides the network's own operations."""

from typing import Any

import torch
from torch import Tensor, nn

from octvideo.errors import ConfigError
from octvideo.layers import OctTensor, down, merge


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
