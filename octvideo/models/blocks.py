"""Residual blocks, post- and pre-activation, 2D and 3D from one code.

post-activation                          pre-activation
x --+-- reduce - spatial - expand --+--  x --+-- reduce - spatial - expand --+--
    +--------- shortcut ------------+ReLU    +--------- shortcut ------------+
each box: convolution, BN                each box: BN, ReLU, convolution

The basic block of ResNet-18 and 34 has two 3x3 boxes, `first` and `second`, instead of the three.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from octvideo.layers import (
    Channels,
    OctBatchNorm2d,
    OctBatchNorm3d,
    OctConv2d,
    OctConv3d,
    OctTensor,
)
from octvideo.layers.fused import Fused, conv_norm_act
from octvideo.layers.initialize import normal_
from octvideo.layers.octave import Downsample
from octvideo.layers.squeeze_excite import SqueezeExcite


@dataclass(frozen=True, slots=True)
class BlockStyle:
    """Options that all blocks of a network share.

    dims: 2 for images, 3 for clips.
    kind: "post" or "preact" (BN and ReLU after or before each convolution).
    downsample: how a spatial stride is taken ("stride": by the convolution, "pool": by an average
    pool before it).
    stride_1x1: the stride is in the first 1x1 (Caffe, video-nonlocal-net's sources) instead of the
    3x3.
    stride_last: the stride is in the last 1x1 (the official ResNet-152 v1e and v1f).
    basic: blocks of two 3x3 instead of bottlenecks.
    se: squeeze-excite at the end of the residual branch.
    """

    dims: Literal[2, 3] = 3
    kind: Literal["post", "preact"] = "post"
    groups: int = 1
    downsample: Downsample = "stride"
    stride_1x1: bool = False
    stride_last: bool = False
    basic: bool = False
    se: bool = False
    bn_eps: float = 1e-5

    def conv(
        self,
        in_channels: Channels,
        out_channels: Channels,
        kernel: tuple[int, int],
        stride: int = 1,
        groups: int = 1,
    ) -> OctConv2d | OctConv3d:
        """A convolution without bias of `kernel` = (time, space); in 2D the time is dropped."""
        t, s = kernel
        size, strides = (t, s, s)[-self.dims :], (1, stride, stride)[-self.dims :]
        padding = tuple(k // 2 for k in size)
        layer = OctConv2d if self.dims == 2 else OctConv3d
        return layer(
            in_channels,
            out_channels,
            size,
            strides,
            padding,
            groups=groups,
            bias=False,
            downsample=self.downsample,
        )

    def norm(self, channels: Channels, affine: bool = True) -> OctBatchNorm2d | OctBatchNorm3d:
        return (OctBatchNorm2d if self.dims == 2 else OctBatchNorm3d)(
            channels, eps=self.bn_eps, affine=affine
        )

    @property
    def layer(self) -> "type[ConvNorm | NormConv]":
        """The layer type that blocks consist of."""
        return NormConv if self.kind == "preact" else ConvNorm

    @property
    def entry(self) -> "type[ConvNorm | NormConv]":
        """The type of the layers that read a block's input: the first one and the projection."""
        return WhitenConvNorm if self.se and self.kind == "post" else self.layer

    def strides(self, stride: int) -> tuple[int, int, int]:
        """The strides of reduce, spatial and expand in a bottleneck with `stride`."""
        if self.stride_1x1:
            return stride, 1, 1
        return (1, 1, stride) if self.stride_last else (1, stride, 1)


class ConvNorm(nn.Module):
    """Convolution, BN."""

    norm_follows: ClassVar = {"bn": "conv"}

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

    fused: Fused = False
    """Compute in one pass where the kernels cover it; `fuse` sets it for a network."""

    def forward(
        self, x: OctTensor, *, residual: OctTensor | None = None, relu: bool = False
    ) -> OctTensor:
        if self.fused:
            out = conv_norm_act(self.conv, self.bn, x, residual, relu, self.fused)
            if out is not None:
                return out
        out = self.bn(self.conv(x))
        if residual is not None:
            out = out + residual
        return out.map(F.relu) if relu else out


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


class WhitenConvNorm(ConvNorm):
    """BN without gamma and beta, convolution, BN: as official post-activation SE blocks begin."""

    def __init__(self, style: BlockStyle, in_channels: Channels, *layer: Any) -> None:
        super().__init__(style, in_channels, *layer)
        self.whiten = style.norm(in_channels, affine=False)

    def forward(
        self, x: OctTensor, *, residual: OctTensor | None = None, relu: bool = False
    ) -> OctTensor:
        return super().forward(self.whiten(x), residual=residual, relu=relu)


class Bottleneck(nn.Module):
    """reduce kt x 1 x 1, spatial 1 x 3 x 3, expand 1 x 1 x 1, and a shortcut; a projection where
    the shape changes.

    From OctTensor of `in_channels` to OctTensor of `out_channels`, height and width divided by
    `stride` (rounded up).
    """

    may_be_recomputed = True

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
        self.preact = style.kind == "preact"
        first, second, third = style.strides(stride)
        self.reduce = style.entry(style, in_channels, mid_channels, (kernel_t, 1), first)
        self.spatial = style.layer(style, mid_channels, mid_channels, (1, 3), second, style.groups)
        self.expand = style.layer(style, mid_channels, out_channels, (1, 1), third)
        self.excite = SqueezeExcite(out_channels) if style.se else nn.Identity()
        self.shortcut = make_shortcut(style, in_channels, out_channels, stride)

    @property
    def norm_follows(self) -> dict[str, str]:
        """Norm -> the convolution before it: with pre-activation, that of the previous layer."""
        return {"spatial.bn": "reduce.conv", "expand.bn": "spatial.conv"} if self.preact else {}

    def forward(self, x: OctTensor) -> OctTensor:
        if self.preact:
            return self.excite(self.expand(self.spatial(self.reduce(x)))) + self.shortcut(x)
        out = self.spatial(self.reduce(x, relu=True), relu=True)
        if isinstance(self.excite, nn.Identity):
            return self.expand(out, residual=self.shortcut(x), relu=True)
        return (self.excite(self.expand(out)) + self.shortcut(x)).map(F.relu)

    @property
    def last(self) -> nn.Module:
        return self.expand


class BasicBlock(nn.Module):
    """Two 3x3, the first with the stride, and a shortcut: ResNet-18, 34 and the small CIFAR
    networks. Its arguments are those of `Bottleneck`.

    `mid_channels` is the width between the two; the first has `kernel_t` in time.
    """

    may_be_recomputed = True

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
        self.preact = style.kind == "preact"
        self.first = style.entry(style, in_channels, mid_channels, (kernel_t, 3), stride)
        self.second = style.layer(style, mid_channels, out_channels, (1, 3))
        self.excite = SqueezeExcite(out_channels) if style.se else nn.Identity()
        self.shortcut = make_shortcut(style, in_channels, out_channels, stride)

    @property
    def norm_follows(self) -> dict[str, str]:
        """See `Bottleneck.norm_follows`."""
        return {"second.bn": "first.conv"} if self.preact else {}

    def forward(self, x: OctTensor) -> OctTensor:
        if self.preact:
            return self.excite(self.second(self.first(x))) + self.shortcut(x)
        out = self.first(x, relu=True)
        if isinstance(self.excite, nn.Identity):
            return self.second(out, residual=self.shortcut(x), relu=True)
        return (self.excite(self.second(out)) + self.shortcut(x)).map(F.relu)

    @property
    def last(self) -> nn.Module:
        return self.second


def make_shortcut(
    style: BlockStyle, in_channels: Channels, out_channels: Channels, stride: int
) -> nn.Module:
    """The identity, or a 1x1 projection where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return style.entry(style, in_channels, out_channels, (1, 1), stride)


def make_stage(
    style: BlockStyle,
    in_channels: Channels,
    mid_channels: Channels,
    out_channels: Channels,
    *,
    kernels_t: Sequence[int],
    stride: int = 1,
    after: dict[int, nn.Module] | None = None,
    after_name: str = "nonlocal",
) -> nn.Sequential:
    """One block per entry of `kernels_t`, the first with the stride; `after[i]` follows block i as
    `after_name`i."""
    stage, block = nn.Sequential(), BasicBlock if style.basic else Bottleneck
    for i, kernel_t in enumerate(kernels_t):
        block_in, block_stride = (in_channels, stride) if i == 0 else (out_channels, 1)
        stage.add_module(
            f"block{i}",
            block(
                style, block_in, mid_channels, out_channels, kernel_t=kernel_t, stride=block_stride
            ),
        )
        if after and i in after:
            stage.add_module(f"{after_name}{i}", after[i])
    return stage


def concatenate(a: OctTensor, b: OctTensor) -> OctTensor:
    """Concatenate two pairs' channels, group by group; a group that one lacks is the other's."""
    low = [t for t in (a.low, b.low) if t is not None]
    return OctTensor(torch.cat([a.high, b.high], 1), torch.cat(low, 1) if low else None)


def init_weights(model: nn.Module, *, zero_init_final_bn: bool, fc_init_std: float = 0.01) -> None:
    """He initialization by the fan-out of the undivided kernel, for all four paths; a small
    Gaussian for the classifier `head.fc`."""
    for name, module in model.named_modules():
        if isinstance(module, OctConv2d | OctConv3d):
            for path in module.paths.values():
                normal_(path.weight, std=(2 / module.fan_out) ** 0.5)
        elif name == "head.fc":
            normal_(module.weight, std=fc_init_std)
            nn.init.zeros_(module.bias)
        elif (
            zero_init_final_bn and isinstance(module, Bottleneck | BasicBlock) and not module.preact
        ):
            module.last.bn.zero_init()  # type: ignore[operator,union-attr]
