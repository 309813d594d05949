"""Channels-last maps: (N, C, T, H, W) or (N, C, H, W) whose memory is (N, T, H, W, C).

Two maps may lie side by side as channels of one map, so that a kernel reads both as one operand.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Map(NamedTuple):
    """(N, T, H, W, C) of a channels-last map; T is 1 for images."""

    clips: int
    frames: int
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, x: Tensor) -> "Map":
        n, c, *t, h, w = x.shape
        return cls(n, t[0] if t else 1, h, w, c)

    @property
    def low(self) -> tuple[int, int]:
        """Height and width of the low group's map."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def positions(self) -> int:
        """Positions of the low map, over all frames."""
        return self.clips * self.frames * self.low[0] * self.low[1]

    @property
    def rows(self) -> int:
        return self.clips * self.frames * self.height * self.width


def dense(x: Tensor) -> Tensor:
    """`x` in channels-last memory."""
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


def row_of(x: Tensor) -> int | None:
    """The number of elements between neighboring positions, if `x` is a channels-last map or some
    channels of one; else None."""
    n, c, *inner = x.shape
    row, length = None, 1
    for size, stride in zip(
        (*reversed(inner), n), (*reversed(x.stride()[2:]), x.stride(0)), strict=True
    ):
        if size > 1:
            row = stride // length if row is None else row
            if stride != row * length:
                return None
        length *= size
    if c > 1 and x.stride(1) != 1:
        return None
    return c if row is None else row


def rows(x: Tensor | None) -> int:
    """`row_of` a map that has been through `as_map`."""
    row = 0 if x is None else row_of(x)
    assert row is not None
    return row


def as_map(x: Tensor) -> Tensor:
    """`x` itself where the kernels can read it as a low map, else channels-last."""
    return dense(x) if row_of(x) is None else x


def empty_map(like: Tensor, channels: int, size: tuple[int, int] | None = None) -> Tensor:
    """A channels-last map like `like`, of other channels and size."""
    height, width = size or (like.shape[-2], like.shape[-1])
    shape = (like.shape[0], channels, *like.shape[2:-2], height, width)
    layout = torch.channels_last if like.dim() == 4 else torch.channels_last_3d
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def empty_low(
    high: Tensor, pool_channels: int, low_channels: int
) -> tuple[Tensor | None, Tensor | None]:
    """Maps of the low resolution for the pooled channels of `high` and for a low group, adjacent
    channels of one map; None for 0 channels."""
    if not pool_channels + low_channels:
        return None, None
    whole = empty_map(high, pool_channels + low_channels, Map.of(high).low)
    pool = whole[:, :pool_channels] if pool_channels else None
    return pool, whole[:, pool_channels:] if low_channels else None


def joined(pool: Tensor | None, low: Tensor | None) -> Tensor | None:
    """The map of which `pool` and `low` are adjacent channels; or the one that is not None."""
    if pool is None or low is None:
        return low if pool is None else pool
    channels = pool.shape[1] + low.shape[1]
    offset = low.data_ptr() - pool.data_ptr()
    if offset != pool.shape[1] * pool.element_size():
        return None
    if pool[:, 0].numel() == 1:  # One position has no step to the next that could tell.
        one = pool.untyped_storage().data_ptr() == low.untyped_storage().data_ptr()
    else:
        one = {row_of(pool), row_of(low)} == {channels}
    if not one:
        return None
    shape = (pool.shape[0], channels, *pool.shape[2:])
    return pool.as_strided(shape, pool.stride(), pool.storage_offset())
