"""Octave convolution (Chen et al., "Drop an Octave", ICCV 2019): features in a high and a low
spatial frequency group.

               h2h
    X_H  ------------->  Y_H        the low group has half the height and width;
       \\  pool, h2l  /              time, where there is time, is never halved
        \\           /
         \\         /
          ---> <---
         /         \\
        /           \\
       /  l2h, up    \\
    X_L  ------------->  Y_L
               l2l
"""

import math
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks

from octvideo.errors import ConfigError, logger
from octvideo.layers.arguments import (
    Size,
    check_pair,
    expand_alpha,
    expand_padding,
    expand_size,
)
from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.depthwise import is_transformed
from octvideo.layers.initialize import uniform_
from octvideo.layers.memory import AddUpsampled, add_upsampled, recomputed
from octvideo.layers.oct_tensor import Channels, OctTensor, add, as_channels
from octvideo.layers.resize import down, up_to
from octvideo.layers.space_to_depth import Conv2d

Downsample = Literal["stride", "pool"]
PATHS = ("h2h", "h2l", "l2h", "l2l")


class _OctConv(nn.Module):
    """Octave convolution of an OctTensor (eq. 4), called as `nn.Conv2d` / `nn.Conv3d` would be.

        Y_H = conv(X_H; h2h) + up(conv(X_L; l2h))
        Y_L = conv(X_L; l2l) + conv(pool(X_H); h2l)

    A plain tensor is a pair without a low group; it comes out plain where the output has no low
    group either. So with alpha = 0 the layer replaces the plain convolution in `nn.Sequential`.

    in_channels, out_channels: ints, split by `alpha` with low = int(alpha * C), or `Channels`.
    alpha: the share of low channels on both sides, or (alpha_in, alpha_out).
    stride: one int for height and width, in 3D also (t, s, s); s is 1 or 2 wherever a low group
    exists. Time is
        strided in the four convolutions alike.
    padding: must keep the spatial size wherever a low group exists: "same", or k // 2 of an odd k.
    dilation: of all four convolutions; an odd k keeps the size with padding dilation * (k // 2).
    groups: the same in all four paths; groups == channels is depthwise, which has no exchange
    paths.
    bias: on h2h and h2l, so that each output group has one.
    downsample: how a spatial stride is taken: "stride" by the convolutions, "pool" by an average
    pool before them.
        None is "stride" when neither side has a low group, else "pool", as in the official
        networks.

    Raises ConfigError for an alpha outside [0, 1), groups that do not divide a path, the sizes
    excluded above, and features whose channels are not the layer's.
    """

    dims: ClassVar[int]
    conv: ClassVar[type[nn.Conv2d] | type[nn.Conv3d]]
    memory_saving = False
    """Pool again in the backward pass instead of keeping the pooled input; `save_memory` sets it
    for a network."""

    def __init__(
        self,
        in_channels: int | Channels,
        out_channels: int | Channels,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | Literal["same", "valid"] = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        alpha: float | tuple[float, float] | None = None,
        downsample: Downsample | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        alpha_in, alpha_out = expand_alpha(alpha, name)
        self.in_channels = as_channels(in_channels, alpha_in)
        self.out_channels = as_channels(out_channels, alpha_out)
        self.kernel_size, self.stride, self.dilation = (
            expand_size(size, self.dims, name) for size in (kernel_size, stride, dilation)
        )
        self.padding = expand_padding(padding, self.kernel_size, self.dilation, name)
        self.groups = groups
        has_low = bool(self.in_channels.low or self.out_channels.low)
        self.downsample = downsample or ("pool" if has_low else "stride")
        self._check(has_low)
        self.pool = self.stride[-1] if self.downsample == "pool" else 1

        high_in, low_in = self.in_channels
        high_out, low_out = self.out_channels
        exchange = not self.depthwise
        unstrided = (*self.stride[:-2], 1, 1)
        strided = self.stride if self.downsample == "stride" else unstrided
        self.h2h = self._path(high_in, high_out, strided, bias)
        self.h2l = self._path(high_in, low_out, strided, bias) if low_out and exchange else None
        self.l2h = self._path(low_in, high_out, unstrided, False) if low_in and exchange else None
        self.l2l = (
            self._path(low_in, low_out, strided, bias and not exchange)
            if low_in and low_out
            else None
        )
        if has_low:
            self.reset_parameters()

    def forward(self, x: OctTensor | Tensor) -> OctTensor | Tensor:
        if isinstance(x, Tensor):
            out = self.pair(OctTensor(x))
            return out.high if out.low is None else out
        return self.pair(x)

    def pair(self, x: OctTensor) -> OctTensor:
        """The pair of a pair, whether or not either has a low group."""
        check_pair(x, self.in_channels, self.dims, type(self).__name__)
        pooled = down(x.high, self.pool)
        return OctTensor(self.to_high(pooled, x.low), self.to_low(pooled, x.low))

    def to_high(self, pooled: Tensor, low: Tensor | None) -> Tensor:
        """Y_H of X_H, pooled already where this layer takes its stride so, and X_L."""
        high = self.h2h(pooled)
        if low is None or self.l2h is None:
            return high
        from_low = self.l2h(low)
        # Under a stride of 2 the low input already has the size of the high output.
        return high + from_low if self.stride[-1] == 2 else self._add_up(high, from_low)

    def to_low(self, pooled: Tensor, low: Tensor | None) -> Tensor | None:
        """Y_L of the same; None without a low output."""
        from_high = self._from_high(pooled) if self.h2l is not None else None
        return add(
            from_high, None if low is None or self.l2l is None else self.l2l(down(low, self.pool))
        )

    def _add_up(self, high: Tensor, low: Tensor) -> Tensor:
        """high + up(low); in evaluation into `high`, the output of h2h, unless a hook saw it."""
        if is_transformed() or (torch.is_grad_enabled() and not self.memory_saving):
            return high + up_to(low, high)
        if torch.is_grad_enabled():
            return AddUpsampled.apply(high, low)  # type: ignore[no-untyped-call]
        is_seen = self.h2h._forward_hooks or _global_forward_hooks
        return add_upsampled(high, low, out=torch.empty_like(high) if is_seen else high)

    def _from_high(self, high: Tensor) -> Tensor:
        assert self.h2l is not None
        pooled = down(high, 2)
        # A compiler decides by itself what to compute again; it and torch.func cannot see where
        # memory lies.
        if not (self.memory_saving and torch.is_grad_enabled()) or is_transformed():
            return self.h2l(pooled)
        with recomputed(pooled, partial(down, high.detach(), 2)):
            return self.h2l(pooled)

    @property
    def paths(self) -> dict[str, nn.Conv2d | nn.Conv3d]:
        """The convolutions that exist, by name: h2h, h2l, l2h, l2l."""
        return {name: path for name in PATHS if (path := getattr(self, name)) is not None}

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.in_channels.total == self.out_channels.total

    @property
    def fan_in(self) -> int:
        """Inputs that one output sees, over both groups: initialization scales by it."""
        return self.in_channels.total // self.groups * math.prod(self.kernel_size)

    @property
    def fan_out(self) -> int:
        """Outputs that one input reaches, over both groups; the fan-out of h2l alone would be far
        too small."""
        return self.out_channels.total * math.prod(self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw the four kernels as parts of one: torch's bound, from the undivided fan-in."""
        bound = 1 / math.sqrt(self.fan_in)
        for parameter in self.parameters():
            uniform_(parameter, bound)

    def extra_repr(self) -> str:
        shares = [f"{side.low / side.total:.3g}" for side in (self.in_channels, self.out_channels)]
        sizes = f"kernel={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        dilation = f", dilation={self.dilation}" if set(self.dilation) != {1} else ""
        return (
            f"{self.in_channels} -> {self.out_channels}, alpha={' -> '.join(shares)},"
            f" {sizes}{dilation}, groups={self.groups}"
        )

    def _path(
        self, in_channels: int, out_channels: int, stride: tuple[int, ...], bias: bool
    ) -> nn.Module:
        groups = in_channels if self.depthwise else self.groups
        # The tuples have `dims` entries; the two classes differ in nothing else.
        sizes: tuple[Any, Any, Any, Any] = (self.kernel_size, stride, self.padding, self.dilation)
        return self.conv(in_channels, out_channels, *sizes, groups=groups, bias=bias)

    def _check(self, has_low: bool) -> None:
        name = type(self).__name__
        if self.groups < 1:
            raise ConfigError(f"{name} got groups={self.groups}; take at least 1")
        if self.depthwise:
            if self.in_channels != self.out_channels:
                raise ConfigError(
                    f"{name} is depthwise but splits {self.in_channels} -> {self.out_channels}; a"
                    " depthwise octave convolution keeps its groups: give alpha_in = alpha_out"
                )
        elif any(width % self.groups for width in (*self.in_channels, *self.out_channels)):
            raise ConfigError(
                f"{name} got groups={self.groups} for {self.in_channels} -> {self.out_channels}"
                " channels; groups must divide every branch: choose another alpha, width or number"
                " of groups"
            )
        if self.stride[-1] != self.stride[-2]:
            raise ConfigError(
                f"{name} got stride {self.stride}; height and width are strided alike"
            )
        if not has_low:
            return
        if self.stride[-1] not in (1, 2):
            raise ConfigError(
                f"{name} got stride {self.stride}; beside a low group the spatial stride is 1 or 2"
            )
        sizes = zip(self.kernel_size[-2:], self.padding[-2:], self.dilation[-2:], strict=True)
        if any(k % 2 == 0 or 2 * p != d * (k - 1) for k, p, d in sizes):
            raise ConfigError(
                f"{name} got kernel {self.kernel_size} with padding {self.padding}; the two groups"
                " keep their sizes apart by a factor of 2 only if an odd kernel k is padded by k"
                " // 2 (times its dilation)"
            )


class OctConv2d(_OctConv):
    __doc__ = _OctConv.__doc__
    dims = 2
    conv = Conv2d


class OctConv3d(_OctConv):
    __doc__ = _OctConv.__doc__
    dims = 3
    conv = Conv3d


def save_memory(model: nn.Module, on: bool = True) -> nn.Module:
    """Let every octave convolution of `model` pool again in the backward pass instead of saving the
    pooled map, or not; gradients are equal bit for bit. Where no layer passes anything between two
    groups, a line says that this changes nothing."""
    convs = [module for module in model.modules() if isinstance(module, _OctConv)]
    for conv in convs:
        conv.memory_saving = on
    if on and all(conv.h2l is None and conv.l2h is None for conv in convs):
        logger.warning(
            "memory_saving changes nothing in this %s, which has no low groups, until it is made"
            " octave: give it an alpha above 0, or leave the setting out",
            type(model).__name__,
        )
    return model
