"""A stem by space to depth: its strided convolution of few channels as an unstrided one of four
times as many. Exact.

A 7 x 7 kernel that strides by 2 over 3 channels fills neither SIMD registers nor tensor cores. The
same numbers are

    picture  (3, H, W)            ->  2 x 2 pixels as channels       (12, H / 2, W / 2)
    kernel   7 x 7, padded by 3   ->  8 x 8 with zeros in front
                                  ->  4 x 4 on 12 channels, padded by 2 before, 1 behind

The parameters stay as they are. Where the convolution also computes in 2D, its frames become
channels too: 60 for 5.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.layers.strided_1x1 import pixels_seen

BySpaceToDepth = bool | Literal["auto"]

FASTER_BY_SPACE_TO_DEPTH = frozenset({("cuda", torch.bfloat16)})
"""The pairs of device type and dtype for which "auto" takes the form, by measurement (decision
005)."""

MAX_CHANNELS = 8
"""Convolutions of more input channels have enough of them."""


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` that may compute by space to depth (`stem_by_space_to_depth`); a strided 1 x 1 of
    few channels computes on `pixels_seen`."""

    by_space_to_depth: BySpaceToDepth = False

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # as in `layers/initialize.py`
            super().reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        if not takes_space_to_depth(self.by_space_to_depth, x):
            weight = self.weight  # read once: a parametrization computes it anew each time
            seen, stride = pixels_seen(x, weight, self.stride, self.padding)
            if seen is x:
                return self._conv_forward(x, weight, self.bias)
            return F.conv2d(seen, weight, self.bias, stride, groups=self.groups)
        return F.conv2d(*space_to_depth(x, self.weight, spatial_padding(self)), self.bias)


def has_space_to_depth(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether a convolution strides by 2 over few channels, zero-padded, undilated, ungrouped."""
    return (
        conv.in_channels <= MAX_CHANNELS
        and conv.groups == 1
        and conv.stride[-2:] == (2, 2)
        and min(conv.kernel_size[-2:]) > 1
        and set(conv.dilation) == {1}
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def takes_space_to_depth(choice: BySpaceToDepth, x: Tensor) -> bool:
    """The choice, or for "auto" what was measured for the device and dtype of the convolution."""
    if choice != "auto":
        return choice
    device, dtype = x.device.type, x.dtype
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return (device, dtype) in FASTER_BY_SPACE_TO_DEPTH


def space_to_depth(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Input and kernel of a convolution of stride 2 in space, to those of one of stride 1 that
    gives the same.

    x, weight: (N, C, [T,] H, W) and (O, C, [kt,] kh, kw), of any size. padding: of height and
    width. Returns (N, 4 C, [T,] H', W'), padded in space already, and (O, 4 C, [kt,] kh', kw'),
    both differentiable and channels-last where `weight` is.
    """
    (ph, pw), (kh, kw) = padding, weight.shape[-2:]
    rows, kernel_rows = _pads(x.shape[-2], kh, ph)
    columns, kernel_columns = _pads(x.shape[-1], kw, pw)
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    parts = _blocks(F.pad(x, columns + rows)), _blocks(F.pad(weight, kernel_columns + kernel_rows))
    if weight.is_contiguous(memory_format=last):
        return parts
    return parts[0].contiguous(), parts[1].contiguous()


def _pads(size: int, kernel: int, padding: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Before and behind the picture, and before and behind the kernel, so that both begin and end
    at whole blocks.

    7 padded by 3 on 224 pixels: 4 and 2, 1 and 0. What no kernel reaches is cut off: then "behind"
    is negative.
    """
    front = padding % 2
    back = (front + kernel) % 2
    outputs = (size + 2 * padding - kernel) // 2 + 1
    seen = 2 * (outputs - 1) + front + kernel + back
    before = padding + front
    return (before, seen - before - size), (front, back)


def _blocks(x: Tensor) -> Tensor:
    """(N, C, [T,] 2 h, 2 w) -> (N, 4 C, [T,] h, w), channels-last; by row, column, channel."""
    *others, height, width = x.shape
    x = x.reshape(*others, height // 2, 2, width // 2, 2)
    return x.movedim((-3, -1, 1), (-3, -2, -1)).flatten(-3).movedim(-1, 1)


def spatial_padding(conv: nn.Conv2d | nn.Conv3d) -> tuple[int, int]:
    """Padding of height and width, in numbers."""
    padding = conv.padding
    assert not isinstance(padding, str)
    return padding[-2], padding[-1]
