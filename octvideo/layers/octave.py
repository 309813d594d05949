"""Octave convolution (Chen et al., "Drop an Octave", ICCV 2019): features in a high and a low spatial frequency group.

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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import ConfigError
from octvideo.layers.arguments import Size, check_pair, expand_padding, expand_size
from octvideo.layers.conv3d_as_2d import Conv3d, fold_time, in_2d, unfold_time
from octvideo.layers.memory import AddUpsampled, add_upsampled, recomputed
from octvideo.layers.space_to_depth import Conv2d

Downsample = Literal["stride", "pool"]


@dataclass(frozen=True, slots=True)
class OctTensor:
    """A feature inside a network: `high` (N, C_h, [T,] H, W) and `low` (N, C_l, [T,] ceil(H/2), ceil(W/2)) or None."""

    high: Tensor
    low: Tensor | None = None
    pooled: Tensor | None = None
    """The 2 x 2 averages of `high`, where its producer wrote them in the same pass; no gradient."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> "OctTensor":
        """Apply `fn` to each group."""
        return OctTensor(fn(self.high), None if self.low is None else fn(self.low))

    def __add__(self, other: "OctTensor") -> "OctTensor":
        return OctTensor(self.high + other.high, _add(self.low, other.low))


class Channels(NamedTuple):
    """How many channels the high and the low group have."""

    high: int
    low: int = 0

    @property
    def total(self) -> int:
        return self.high + self.low

    def __str__(self) -> str:
        return f"{self.high}+{self.low}" if self.low else str(self.high)


def check_alpha(alpha: float) -> float:
    """Return `alpha`, or raise ConfigError where it is outside [0, 1)."""
    if not 0 <= alpha < 1:
        raise ConfigError(
            f"alpha is {alpha}; the share of low-frequency channels lies in [0, 1); 0 is the plain convolution"
        )
    return alpha


def split_int(channels: int, alpha: float) -> Channels:
    """low = int(alpha * C), as in the official image networks."""
    low = int(alpha * channels)
    return Channels(channels - low, low)


def split_round16(channels: int, alpha: float) -> Channels:
    """high = the multiple of 16 nearest to C(1 - alpha), half up: 64 at .1 is 64+0, 128 is 112+16.

    The widths of Table 6's C2D and I3D rows; multiples of 16 are also what SIMD units and tensor cores want.
    """
    high = _nearest_16(channels * (1 - alpha)) if alpha else channels
    high = min(max(high, min(channels, 16)), channels)
    return Channels(high, channels - high)


def split_round16_min16(channels: int, alpha: float) -> Channels:
    """low = the multiple of 16 nearest to alpha * C, half up, at least 16: 64 at .1 is 48+16 (Table 6's SlowFast)."""
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


def down(x: Tensor, factor: int) -> Tensor:
    """Average-pool height and width by `factor`; a last odd row or column is averaged by itself."""
    if factor == 1:
        return x
    if x.dim() == 4:
        return F.avg_pool2d(x, factor, ceil_mode=True, count_include_pad=False)
    if in_2d():
        return unfold_time(down(fold_time(x), factor), x.shape[0])
    # The 3D pool refuses a map that is smaller than its window.
    window = (1, min(factor, x.shape[-2]), min(factor, x.shape[-1]))
    return F.avg_pool3d(x, window, (1, factor, factor), ceil_mode=True, count_include_pad=False)


def up_to(x: Tensor, like: Tensor) -> Tensor:
    """Nearest upsampling of height and width by 2, cropped to the size of `like` (odd maps end in half a pixel)."""
    if x.dim() == 5 and in_2d():
        return unfold_time(up_to(fold_time(x), like), x.shape[0])
    height, width = like.shape[-2:]
    scale = (2.0, 2.0) if x.dim() == 4 else (1.0, 2.0, 2.0)
    return F.interpolate(x, scale_factor=scale, mode="nearest")[..., :height, :width]


def merge(x: OctTensor) -> Tensor:
    """End a pair: the low group, brought to the size of the high one, is concatenated behind it (`Adapter`)."""
    return x.high if x.low is None else torch.cat([x.high, up_to(x.low, x.high)], dim=1)


class _OctConv(nn.Module):
    """Octave convolution of an OctTensor (eq. 4), called as `nn.Conv2d` / `nn.Conv3d` would be.

        Y_H = conv(X_H; h2h) + up(conv(X_L; l2h))
        Y_L = conv(X_L; l2l) + conv(pool(X_H); h2l)

    A plain tensor is a pair without a low group; it comes out plain where the output has no low group either. So
    with alpha = 0 the layer replaces the plain convolution in `nn.Sequential`.

    in_channels, out_channels: ints, split by `alpha` with low = int(alpha * C), or `Channels`.
    alpha: the share of low channels on both sides, or (alpha_in, alpha_out).
    stride: one int for height and width, in 3D also (t, s, s); s is 1 or 2 wherever a low group exists. Time is
        strided in the four convolutions alike.
    padding: must keep the spatial size wherever a low group exists: "same", or k // 2 of an odd k.
    dilation: of all four convolutions; an odd k keeps the size with padding dilation * (k // 2).
    groups: the same in all four paths; groups == channels is depthwise, which has no exchange paths.
    bias: on h2h and h2l, so that each output group has one.
    downsample: how a spatial stride is taken: "stride" by the convolutions, "pool" by an average pool before them.
        None is "stride" when neither side has a low group, else "pool", as in the official networks.

    Raises ConfigError for an alpha outside [0, 1), groups that do not divide a path, the sizes excluded above, and
    features whose channels are not the layer's.
    """

    dims: ClassVar[int]
    conv: ClassVar[type[nn.Conv2d] | type[nn.Conv3d]]
    memory_saving = False
    """Pool again in the backward pass instead of keeping the pooled input; `save_memory` sets it for a network."""

    def __init__(
        self,
        in_channels: int | Channels,
        out_channels: int | Channels,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | Literal["same", "valid"] = 0,
        groups: int = 1,
        bias: bool = True,
        *,
        alpha: float | tuple[float, float] | None = None,
        dilation: Size = 1,
        downsample: Downsample | None = None,
    ) -> None:
        super().__init__()
        alpha_in, alpha_out = alpha if isinstance(alpha, tuple | list) else (alpha, alpha)
        self.in_channels = _as_channels(in_channels, alpha_in)
        self.out_channels = _as_channels(out_channels, alpha_out)
        self.kernel_size, self.stride, self.dilation = map(
            self._expand, (kernel_size, stride, dilation)
        )
        self.padding = expand_padding(padding, self.kernel_size, self.dilation, type(self).__name__)
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
        return _add(
            from_high, None if low is None or self.l2l is None else self.l2l(down(low, self.pool))
        )

    def _add_up(self, high: Tensor, low: Tensor) -> Tensor:
        """high + up(low), `high` being a tensor that nobody else sees."""
        if torch.compiler.is_compiling() or (torch.is_grad_enabled() and not self.memory_saving):
            return high + up_to(low, high)
        if torch.is_grad_enabled():
            return AddUpsampled.apply(high, low)  # type: ignore[no-untyped-call]
        return add_upsampled(high, low, out=high)

    def _from_high(self, high: Tensor) -> Tensor:
        assert self.h2l is not None
        pooled = down(high, 2)
        # A compiler decides by itself what to compute again, and cannot trace where memory lies.
        if not (self.memory_saving and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return self.h2l(pooled)
        with recomputed(pooled, partial(down, high.detach(), 2)):
            return self.h2l(pooled)

    @property
    def paths(self) -> dict[str, nn.Conv2d | nn.Conv3d]:
        """The convolutions that exist, by name: h2h, h2l, l2h, l2l."""
        return {
            name: path
            for name in ("h2h", "h2l", "l2h", "l2l")
            if (path := getattr(self, name)) is not None
        }

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.in_channels.total == self.out_channels.total

    @property
    def fan_in(self) -> int:
        """Inputs that one output sees, over both groups: what initialisation should scale by."""
        return self.in_channels.total // self.groups * math.prod(self.kernel_size)

    @property
    def fan_out(self) -> int:
        """Outputs that one input reaches, over both groups; that of h2l alone would be far too small."""
        return self.out_channels.total * math.prod(self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw the four kernels as parts of one: torch's default bound, from the undivided fan-in."""
        bound = 1 / math.sqrt(self.fan_in)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        shares = [f"{side.low / side.total:.3g}" for side in (self.in_channels, self.out_channels)]
        sizes = f"kernel={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        dilation = f", dilation={self.dilation}" if set(self.dilation) != {1} else ""
        return (
            f"{self.in_channels} -> {self.out_channels}, alpha={' -> '.join(shares)}, {sizes}{dilation}, "
            f"groups={self.groups}"
        )

    def _path(
        self, in_channels: int, out_channels: int, stride: tuple[int, ...], bias: bool
    ) -> nn.Module:
        groups = in_channels if self.depthwise else self.groups
        # The tuples have `dims` entries; the two classes differ in nothing else.
        sizes: tuple[Any, Any, Any, Any] = (self.kernel_size, stride, self.padding, self.dilation)
        return self.conv(in_channels, out_channels, *sizes, groups=groups, bias=bias)

    def _expand(self, size: Size) -> tuple[int, ...]:
        return expand_size(size, self.dims, type(self).__name__)

    def _check(self, has_low: bool) -> None:
        name = type(self).__name__
        if self.depthwise:
            if self.in_channels != self.out_channels:
                raise ConfigError(
                    f"{name} is depthwise but splits {self.in_channels} -> {self.out_channels}; a depthwise octave "
                    "convolution keeps its groups: give alpha_in = alpha_out"
                )
        elif any(width % self.groups for width in (*self.in_channels, *self.out_channels)):
            raise ConfigError(
                f"{name} got groups={self.groups} for {self.in_channels} -> {self.out_channels} channels; groups must "
                "divide every branch: choose another alpha, width or number of groups"
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
                f"{name} got kernel {self.kernel_size} with padding {self.padding}; the two groups keep their sizes "
                "apart by a factor of 2 only if an odd kernel k is padded by k // 2 (times its dilation)"
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
    """Let every octave convolution of `model` pool again in the backward pass, or not; gradients are the same bits."""
    for module in model.modules():
        if isinstance(module, _OctConv):
            module.memory_saving = on
    return model


class _OctBatchNorm(nn.Module):
    """Batch normalisation of each group by itself; the parameter count is that of the undivided layer."""

    dims: ClassVar[int]
    norm: ClassVar[type[nn.BatchNorm2d] | type[nn.BatchNorm3d]]

    def __init__(
        self,
        channels: int | Channels,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.channels = _as_channels(channels, None)
        self.high = self.norm(self.channels.high, eps, momentum, affine)
        self.low = (
            self.norm(self.channels.low, eps, momentum, affine) if self.channels.low else None
        )

    def forward(self, x: OctTensor | Tensor) -> OctTensor | Tensor:
        """A plain tensor is normalized as a pair without a low group, and stays plain."""
        pair = OctTensor(x) if isinstance(x, Tensor) else x
        check_pair(pair, self.channels, self.dims, type(self).__name__)
        high = self.high(pair.high)
        if isinstance(x, Tensor):
            return high
        return OctTensor(high, x.low if self.low is None else self.low(x.low))

    @property
    def groups(self) -> list[nn.Module]:
        """The normalisations that exist: high, or high and low."""
        return [self.high] if self.low is None else [self.high, self.low]

    def zero_init(self) -> Self:
        """Start a residual branch at zero: both gammas are set to 0 (Goyal et al. 2017)."""
        for group in self.groups:
            nn.init.zeros_(group.weight)  # type: ignore[arg-type]
        return self


class OctBatchNorm2d(_OctBatchNorm):
    __doc__ = _OctBatchNorm.__doc__
    dims = 2
    norm = nn.BatchNorm2d


class OctBatchNorm3d(_OctBatchNorm):
    __doc__ = _OctBatchNorm.__doc__
    dims = 3
    norm = nn.BatchNorm3d


def _as_channels(channels: int | Channels, alpha: float | None) -> Channels:
    if isinstance(channels, int):
        return split_int(channels, check_alpha(alpha or 0))
    if alpha is not None:
        raise ConfigError(
            f"got {channels!r} and alpha={alpha}; Channels are split already: leave alpha out, or give an int"
        )
    return Channels(*channels)


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b
