"""Residual blocks, post- and pre-activation, 2D and 3D from one code.

post-activation                          pre-activation
x --+-- reduce - spatial - expand --+--  x --+-- reduce - spatial - expand --+--
    +--------- shortcut ------------+ReLU    +--------- shortcut ------------+
each box: convolution, BN                each box: BN, ReLU, convolution
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctBatchNorm2d, OctBatchNorm3d, OctConv2d, OctConv3d, OctTensor
from octvideo.layers.octave import Downsample


@dataclass(frozen=True, slots=True)
class BlockStyle:
    """What all blocks of a network share.

    dims: 2 for images, 3 for clips.
    kind: "post" or "preact" (BN and ReLU after or before each convolution).
    downsample: how a spatial stride is taken ("stride": by the convolution, "pool": by an average pool before it).
    stride_1x1: the stride sits at the first 1x1 (Caffe, video-nonlocal-net's sources) instead of the 3x3.
    """

    dims: Literal[2, 3] = 3
    kind: Literal["post", "preact"] = "post"
    groups: int = 1
    downsample: Downsample = "stride"
    stride_1x1: bool = False
    zero_init_final_bn: bool = True
    bn_eps: float = 1e-5

    def conv(
        self, in_channels: Channels, out_channels: Channels, kernel: tuple[int, int], stride: int = 1, groups: int = 1
    ) -> OctConv2d | OctConv3d:
        """A convolution without bias of `kernel` = (time, space); in 2D the time is dropped."""
        t, s = kernel
        if self.dims == 2:
            return OctConv2d(
                in_channels, out_channels, s, stride, s // 2, groups, bias=False, downsample=self.downsample
            )
        size, strides, padding = (t, s, s), (1, stride, stride), (t // 2, s // 2, s // 2)
        return OctConv3d(
            in_channels, out_channels, size, strides, padding, groups, bias=False, downsample=self.downsample
        )

    def norm(self, channels: Channels) -> OctBatchNorm2d | OctBatchNorm3d:
        return (OctBatchNorm2d if self.dims == 2 else OctBatchNorm3d)(channels, eps=self.bn_eps)


class ConvNorm(nn.Module):
    """Convolution, BN."""

    def __init__(
        self,
        style: BlockStyle,
        in_channels: Channels,
        out_channels: Channels,
        kernel: tuple[int, int],
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.conv = style.conv(in_channels, out_channels, kernel, stride, groups)
        self.bn = style.norm(out_channels)

    def forward(self, x: OctTensor) -> OctTensor:
        return self.bn(self.conv(x))


class NormConv(nn.Module):
    """BN, ReLU, convolution."""

    def __init__(
        self,
        style: BlockStyle,
        in_channels: Channels,
        out_channels: Channels,
        kernel: tuple[int, int],
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.bn = style.norm(in_channels)
        self.conv = style.conv(in_channels, out_channels, kernel, stride, groups)

    def forward(self, x: OctTensor) -> OctTensor:
        return self.conv(self.bn(x).map(F.relu))


class Bottleneck(nn.Module):
    """reduce kt x 1 x 1, spatial 1 x 3 x 3, expand 1 x 1 x 1, and a shortcut; a projection where the shape changes.

    From OctTensor of `in_channels` to OctTensor of `out_channels`, height and width divided by `stride` (rounded up).
    """

    def __init__(
        self,
        style: BlockStyle,
        in_channels: Channels,
        mid_channels: Channels,
        out_channels: Channels,
        *,
        kernel_t: int = 1,
        stride: int = 1,
    ) -> None:
        super().__init__()
        layer = ConvNorm if style.kind == "post" else NormConv
        first, second = (stride, 1) if style.stride_1x1 else (1, stride)
        self.preact = style.kind == "preact"
        self.reduce = layer(style, in_channels, mid_channels, (kernel_t, 1), first)
        self.spatial = layer(style, mid_channels, mid_channels, (1, 3), second, style.groups)
        self.expand = layer(style, mid_channels, out_channels, (1, 1))
        changes = stride > 1 or in_channels != out_channels
        self.shortcut = layer(style, in_channels, out_channels, (1, 1), stride) if changes else nn.Identity()

    def forward(self, x: OctTensor) -> OctTensor:
        if self.preact:
            return self.expand(self.spatial(self.reduce(x))) + self.shortcut(x)
        out = self.reduce(x).map(F.relu)
        out = self.spatial(out).map(F.relu)
        return (self.expand(out) + self.shortcut(x)).map(F.relu)


def make_stage(
    style: BlockStyle,
    in_channels: Channels,
    mid_channels: Channels,
    out_channels: Channels,
    *,
    kernels_t: Sequence[int],
    stride: int = 1,
    after: dict[int, nn.Module] | None = None,
) -> nn.Sequential:
    """One bottleneck per entry of `kernels_t`, the first with the stride; `after[i]` follows block i (non-local)."""
    stage = nn.Sequential()
    for i, kernel_t in enumerate(kernels_t):
        block_in, block_stride = (in_channels, stride) if i == 0 else (out_channels, 1)
        stage.add_module(
            f"block{i}",
            Bottleneck(style, block_in, mid_channels, out_channels, kernel_t=kernel_t, stride=block_stride),
        )
        if after and i in after:
            stage.add_module(f"nonlocal{i}", after[i])
    return stage


def init_weights(model: nn.Module, *, zero_init_final_bn: bool, fc_init_std: float = 0.01) -> None:
    """He initialisation by the fan-out of the undivided kernel (all four paths alike), a small classifier."""
    for module in model.modules():
        if isinstance(module, OctConv2d | OctConv3d):
            for path in module.paths.values():
                nn.init.normal_(path.weight, std=(2 / module.fan_out) ** 0.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=fc_init_std)
            nn.init.zeros_(module.bias)
    if zero_init_final_bn:
        for module in model.modules():
            if isinstance(module, Bottleneck) and not module.preact:
                module.expand.bn.zero_init()
