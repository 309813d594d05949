"""Convolution, batch norm, residual and ReLU of a block in one pass, on GPUs with Triton.

`fuse(model)` decides. A layer that the kernels do not cover computes without them.
"""

from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from octvideo.layers.calls import CONVOLUTIONS, NORMS, computes_as, hooks_of, with_parts
from octvideo.layers.conv3d_as_2d import has_triton
from octvideo.layers.depthwise import is_transformed
from octvideo.layers.oct_tensor import OctTensor
from octvideo.layers.octave import OctConv2d, OctConv3d

Fused = bool | Literal["auto"]
Conv = OctConv2d | OctConv3d

LARGEST = 2**31 - 1
"""Positions in memory are 32-bit numbers in the kernels."""

_casts: Any = WeakTensorKeyDictionary()
"""While a network computes: weight -> its copy in the type that autocast computes in."""


def fuse(model: nn.Module, on: Fused = True) -> nn.Module:
    """Let the blocks of `model` compute in fused passes where the kernels cover them; returns
    `model`.

    on: True wherever the kernels cover a block; "auto" where that was measured to be faster: octave
    layers with folded batch norms in 16 bits (docs/gpu.md). False switches fused passes off.
    """
    for module in model.modules():
        if hasattr(module, "fused"):
            module.fused = on  # type: ignore[assignment]
    for hooks in (model._forward_pre_hooks, model._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in (_cast_weights, _drop_casts)]:
            del hooks[key]
    if on is True:
        model.register_forward_pre_hook(_cast_weights)
        model.register_forward_hook(_drop_casts, always_call=True)
    return model


def conv_norm_act(
    conv: Conv, norm: nn.Module, x: OctTensor, residual: OctTensor | None, relu: bool, choice: Fused
) -> OctTensor | None:
    """relu(norm(conv(x)) + residual); None where fusing is switched off or the kernels do not cover
    the block.

    norm: an octave batch norm in training mode, or nn.Identity after folding.
    """
    folded = isinstance(norm, nn.Identity)
    if not isinstance(conv, Conv):  # A merged layer computes in its own way.
        return None
    if choice == "auto":
        octave = conv.in_channels.low or conv.out_channels.low
        is_half = x.high.is_cuda and x.high.dtype in (torch.bfloat16, torch.float16)
        if not (folded and octave and is_half):
            return None
    if not covers(conv, x) or not _is_known(conv, norm):
        return None
    if _differentiated(conv, x) if folded else not _is_plain(norm):
        return None
    from octvideo.layers.triton.maps import as_map, dense
    from octvideo.layers.triton.ops import join

    x = _cast(x)
    weights = {name: _of(getattr(conv, name), "weight") for name in ("h2h", "l2h", "h2l", "l2l")}
    high, low, pooled = dense(x.high), None if x.low is None else as_map(x.low), x.pooled
    if conv.pool == 2:
        high, weights = _stride(weights, high, low, pooled)
        low = pooled = None
    if pooled is None and weights["h2l"] is not None and (conv.kernel_size[-1] > 1 or not folded):
        pooled = join(high.detach(), None)[0]
    res: tuple[Any, Any] = (None, None)
    if residual is not None:
        res = (dense(residual.high), None if residual.low is None else as_map(residual.low))
    if folded:
        return _inference(conv, (high, low, pooled), weights, res, relu)
    return _training(norm, (high, low, pooled), weights, res, relu)


def covers(conv: Conv, x: OctTensor) -> bool:
    """Whether the kernels compute `conv` on `x`: odd, size-keeping, no groups, no time stride."""
    if not runs_on(x.high.device):
        return False
    if is_transformed():  # A compiler fuses by itself; the others see no kernel of ours.
        return False
    if conv.groups != 1 or (len(conv.stride) == 3 and conv.stride[0] != 1):
        return False
    if conv.stride[-1] != conv.pool or conv.pool > 2 or len(conv.kernel_size) + 2 != x.high.dim():
        return False
    if conv.kernel_size[-1] != conv.kernel_size[-2] or set(conv.dilation) != {1}:
        return False
    if any(k != 2 * p + 1 for k, p in zip(conv.kernel_size, conv.padding, strict=True)):
        return False
    widest = max(conv.in_channels.total, conv.out_channels.total)
    return x.high.numel() // x.high.shape[1] * widest <= LARGEST


def runs_on(device: torch.device) -> bool:
    """Whether the kernels run there: on a GPU with Triton, or in Triton's interpreter."""
    return (device.type == "cuda" and has_triton()) or _interpreting()


def _is_known(conv: Conv, norm: nn.Module) -> bool:
    """Whether a call of the layers, and of those inside them, does what the kernels do: a hook
    sees one or computes a weight, and a class may have a forward of its own."""
    convs, norms = with_parts(conv), with_parts(norm)
    kinds = (nn.Identity,) if isinstance(norm, nn.Identity) else NORMS
    return (
        not any(any(hooks_of(layer)) for layer in (*convs, *norms))
        and all(computes_as(layer, CONVOLUTIONS) for layer in convs)
        and all(computes_as(layer, kinds) for layer in norms)
    )


def _is_plain(norm: Any) -> bool:
    """Whether the batch norm of each group is in training mode, not frozen, and has all that
    PyTorch's own has by default."""
    return all(
        group.training and group.affine and group.track_running_stats and group.momentum is not None
        for group in norm.groups
    )


def _differentiated(conv: Conv, x: OctTensor) -> bool:
    """Whether autograd may need a gradient; the fused pass of a folded layer has none."""
    leaves = (x.high, x.low, conv.h2h.weight)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves)


def _training(
    norm: Any,
    x: tuple[Tensor | None, ...],
    weights: dict[str, Tensor | None],
    residual: Any,
    relu: bool,
) -> OctTensor:
    from octvideo.layers.triton.conv_norm import ConvNormAct

    assert x[0] is not None
    copies = [as_cast(weight) for weight in weights.values()]
    y = ConvNormAct.apply(
        *x, copies, *weights.values(),
        norm.high.weight, _of(norm.low, "weight"), norm.high.bias, _of(norm.low, "bias"),
        *residual, relu, _norm(norm),
    )  # type: ignore[no-untyped-call]  # fmt: skip
    torch._foreach_add_([group.num_batches_tracked for group in norm.groups], 1)
    return OctTensor(*y)


def _inference(
    conv: Conv, x: tuple[Tensor, Tensor | None, Tensor | None], weights: dict[str, Tensor | None],
    residual: Any, relu: bool,
) -> OctTensor:  # fmt: skip
    from octvideo.layers.triton.conv_norm import cast
    from octvideo.layers.triton.ops import Epilogue, Kernels, oct_conv

    kernels = Kernels(*cast(list(weights.values()), x[0].dtype))  # type: ignore[arg-type]
    bias: Any = None if conv.h2h.bias is None else (conv.h2h.bias, _of(conv.h2l, "bias"))
    pool = x[1] is not None or weights["h2l"] is not None
    epilogue = Epilogue(bias, residual if residual[0] is not None else None, relu, pool)
    out = oct_conv(*x, kernels, epilogue)
    return OctTensor(out.high, out.low, out.pool)


def _stride(
    weights: dict[str, Tensor | None], high: Tensor, low: Tensor | None, pooled: Tensor | None
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """A stride of 2 as a layer of stride 1: of the pooled high group beside the low."""
    from octvideo.layers.triton.conv_norm import PoolAndJoin
    from octvideo.layers.triton.maps import joined
    from octvideo.layers.triton.ops import join

    with torch.no_grad():
        below = None if pooled is None else joined(pooled, low)
        if below is None:
            below = joined(*join(high, low))
    x = PoolAndJoin.apply(high, low, below)  # type: ignore[no-untyped-call]
    return x, {
        "h2h": _join(weights["h2h"], weights["l2h"]),
        "l2h": None,
        "h2l": _join(weights["h2l"], weights["l2l"]),
        "l2l": None,
    }


def _join(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Two kernels as one over the channels of both inputs."""
    if a is None or b is None:
        return a if b is None else b
    return torch.cat([a, b], 1)


def _norm(norm: Any) -> Any:
    from octvideo.layers.triton.conv_norm import Norm

    def pair(name: str) -> tuple[Tensor, Tensor | None]:
        return getattr(norm.high, name), _of(norm.low, name)

    return Norm(
        pair("weight"), pair("bias"), pair("running_mean"), pair("running_var"),
        norm.high.momentum, norm.high.eps,
    )  # fmt: skip


# --- The types that autocast computes in


def _cast_weights(model: nn.Module, args: Any) -> None:
    """Cast the weights of all fused layers by one kernel, instead of by one per layer; not those
    that are computed anew where they are read."""
    if not torch.is_grad_enabled() or not torch.is_autocast_enabled("cuda"):
        return
    paths = (
        path
        for module in model.modules()
        if getattr(module, "fused", False) is True
        and isinstance(getattr(module, "conv", None), Conv)
        for path in module.conv.paths.values()  # type: ignore[union-attr,operator]
    )
    parameters = (path._parameters.get("weight") for path in paths)
    weights = [weight for weight in parameters if weight is not None and weight.is_cuda]
    if weights:
        dtype = torch.get_autocast_dtype("cuda")
        copies = [torch.empty_like(weight, dtype=dtype, requires_grad=False) for weight in weights]
        with torch.no_grad():
            torch._foreach_copy_(copies, weights)
        _casts.update(zip(weights, copies, strict=True))


def _drop_casts(model: nn.Module, args: Any, output: Any) -> None:
    """Forget the copies after each forward pass: weights may change in ways that leave no trace."""
    for parameter in model.parameters():
        with suppress(KeyError):
            del _casts[parameter]


def as_cast(weight: Tensor | None) -> Tensor | None:
    """The copy of `weight` that was made at the start of this forward pass, or `weight` itself."""
    return None if weight is None else _casts.get(weight, weight)


def _cast(x: OctTensor) -> OctTensor:
    """Cast to the dtype of autocast."""
    device = x.high.device.type
    if not torch.is_autocast_enabled(device):
        return x
    dtype = torch.get_autocast_dtype(device)
    return x if x.high.dtype == dtype else x.map(lambda t: t.to(dtype))


def _of(module: Any, name: str) -> Any:
    return None if module is None else getattr(module, name)


def _interpreting() -> bool:
    import sys

    tiles = sys.modules.get("octvideo.layers.triton.tiles")
    return tiles is not None and tiles.interpreted()
