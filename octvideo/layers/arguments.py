"""The arguments of an octave layer, as `nn.Conv3d` takes them, and the features that fit it. An
error says what to pass instead."""

from numbers import Integral

import torch
from torch import Tensor

from octvideo.errors import ConfigError
from octvideo.layers.oct_tensor import Channels, OctTensor

Size = int | tuple[int, ...]


def expand_size(size: Size, dims: int, layer: str) -> tuple[int, ...]:
    """3 -> (3, 3, 3). Raises ConfigError for a sequence that has not `dims` entries."""
    expanded = (int(size),) * dims if isinstance(size, int | Integral) else tuple(size)
    if len(expanded) != dims:
        raise ConfigError(f"{layer} got the size {size}; give one int or {dims} of them")
    return expanded


def expand_alpha(
    alpha: float | tuple[float, float] | None, layer: str
) -> tuple[float | None, float | None]:
    """.25 -> (.25, .25): the octave ratio of the input and of the output."""
    if not isinstance(alpha, tuple | list):
        return alpha, alpha
    if len(alpha) != 2:
        raise ConfigError(f"{layer} got alpha={alpha}; give one number or (alpha_in, alpha_out)")
    return alpha[0], alpha[1]


def expand_padding(
    padding: Size | str, kernel: tuple[int, ...], dilation: tuple[int, ...], layer: str
) -> tuple[int, ...]:
    """ "same" -> dilation * (k // 2), which keeps the size where the stride is 1; "valid" -> 0."""
    if not isinstance(padding, str):
        return expand_size(padding, len(kernel), layer)
    if padding == "valid":
        return (0,) * len(kernel)
    if padding != "same":
        raise ConfigError(f"{layer} got padding {padding!r}; give 'same', 'valid' or a size")
    if any(k % 2 == 0 for k in kernel):
        raise ConfigError(
            f"{layer} got padding 'same' with kernel {kernel}; only an odd kernel has a middle: "
            "make it odd, or give the padding as a size"
        )
    return tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True))


def check_pair(x: OctTensor, channels: Channels, dims: int, layer: str) -> None:
    """Raise ConfigError for a pair that does not have the layer's (high, low) input channels."""
    high, low = x.high, x.low
    if not isinstance(high, Tensor) or torch.compiler.is_compiling():
        return
    size = "(N, C, H, W)" if dims == 2 else "(N, C, T, H, W)"
    if high.dim() != dims + 2:
        raise ConfigError(f"{layer} got a tensor {tuple(high.shape)}; it takes {size}")
    given = (high.shape[1], 0 if low is None else low.shape[1])
    if given == tuple(channels):
        return
    got = f"{layer} got {given[0]} high and {given[1]} low channels"
    if channels.low and low is None:
        raise ConfigError(
            f"{got}, and takes {channels.high} high and {channels.low} low ones: pass"
            " OctTensor(high, low), or let the first layer enter the octave with alpha=(0, alpha)"
        )
    if low is not None and not channels.low:
        raise ConfigError(
            f"{got}, and takes {channels.high} without a low group: give it the alpha of the layer"
            " before, or pass merge(x)"
        )
    raise ConfigError(f"{got}, and takes {channels.high} and {channels.low}")
