"""Octave convolution, batch norm, residual and ReLU as one unit with gradients.

Passes over memory in a training step: forward, the products write z and the sums that the batch
statistics need, one more pass writes y and its 2 x 2 averages; backward, one pass for the sums of
the norm's gradient, one for dz and its 2 x 2 sums, then the products with the transposed kernels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from octvideo.layers.triton import norm_kernels
from octvideo.layers.triton.maps import Map, as_map, dense, empty_low, empty_map, joined, rows
from octvideo.layers.triton.ops import Epilogue, Kernels, oct_conv
from octvideo.layers.triton.tiles import blocks, interpreted, triton_type

PROGRAMS = 1056
"""Of a pass that sums: eight on each of 132 multiprocessors."""
MM_OUT_DTYPE = hasattr(torch.ops.aten.mm, "dtype")
"""Whether a product of 16-bit matrices can be had in float32 (torch >= 2.8)."""


class Norm(NamedTuple):
    """Batch norm of a pair: weight, bias, running mean and variance, each of the high and the low
    group; None for no low group."""

    weight: tuple[Tensor, Tensor | None]
    bias: tuple[Tensor, Tensor | None]
    mean: tuple[Tensor, Tensor | None]
    variance: tuple[Tensor, Tensor | None]
    momentum: float
    eps: float


class ConvNormAct(torch.autograd.Function):
    """relu(norm(conv(x)) + residual) in training mode: y_high, y_low, pooled y_high.

    The pooled map has no gradient: consumers account for it through y_high.
    """

    @staticmethod
    def forward(
        ctx: Any,
        high: Tensor,
        low: Tensor | None,
        pooled: Tensor | None,
        copies: list[Tensor | None],
        h2h: Tensor,
        l2h: Tensor | None,
        h2l: Tensor | None,
        l2l: Tensor | None,
        weight_high: Tensor,
        weight_low: Tensor | None,
        bias_high: Tensor,
        bias_low: Tensor | None,
        res_high: Tensor | None,
        res_low: Tensor | None,
        relu: bool,
        norm: Norm,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        conv = Kernels(*cast(copies, high.dtype))  # type: ignore[arg-type]
        z = oct_conv(high, low, pooled, conv, Epilogue(stats_around=norm.mean))
        assert z.partials is not None
        stats = batch_stats(z.partials, z.high, z.low, norm)
        pool = low is not None or z.low is not None
        y_high, y_low, y_pool = norm_act(z.high, z.low, stats, (res_high, res_low), relu, pool=pool)
        ctx.save_for_backward(
            high, low, pooled, conv.h2h, conv.l2h, conv.h2l, conv.l2l,
            z.high, z.low, y_high, y_low, stats,
        )  # fmt: skip
        ctx.relu, ctx.residual, ctx.dtype = relu, res_high is not None, h2h.dtype
        if y_pool is not None:
            ctx.mark_non_differentiable(y_pool)
        return y_high, y_low, y_pool

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_high: Tensor, g_low: Tensor | None, _: Any) -> tuple[Any, ...]:
        high, low, pooled, *weights, z_high, z_low, y_high, y_low, stats = ctx.saved_tensors
        conv, channels = Kernels(*weights), z_high.shape[1]
        grad = (dense(g_high), None if z_low is None or g_low is None else as_map(g_low))
        y, z = (y_high, y_low), (z_high, z_low)
        sums = norm_grad_sums(grad, y, z, stats, ctx.relu, ctx.residual)
        pool = low is not None or z_low is not None
        dz, residual = norm_grad(grad, y, z, stats, sums, ctx.relu, ctx.residual, pool)
        dx = oct_conv(*dz, conv, adjoint=True)
        d_weights = weight_grads(Pair(high, low, pooled), dz, conv, ctx.dtype)
        d_bias, d_weight = sums[0], sums[1]
        low_parts = (None, None) if z_low is None else (d_weight[channels:], d_bias[channels:])
        return (
            dx.high, dx.low, None, None, *d_weights,
            d_weight[:channels], low_parts[0], d_bias[:channels], low_parts[1],
            *residual, None, None,
        )  # fmt: skip


class Pair(NamedTuple):
    """A high map, a low map, and the pooled high map: 2 x 2 averages of features, 2 x 2 sums of
    gradients."""

    high: Tensor
    low: Tensor | None
    pool: Tensor | None


def cast(weights: list[Tensor | None], dtype: torch.dtype) -> list[Tensor | None]:
    """The weights in `dtype`, by one kernel."""
    given = [w for w in weights if w is not None]
    if all(w.dtype == dtype for w in given):
        return weights
    copies = [torch.empty_like(w, dtype=dtype) for w in given]
    torch._foreach_copy_(copies, given)
    left = iter(copies)
    return [None if w is None else next(left) for w in weights]


def batch_stats(partials: Tensor, high: Tensor, low: Tensor | None, norm: Norm) -> Tensor:
    """(4, C_h + C_l): mean, 1 / std, scale, shift; updates the running statistics."""
    out_high, out_low = high.shape[1], 0 if low is None else low.shape[1]
    columns = out_high + out_low
    stats = partials.new_empty((4, columns))

    def pair(both: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        return both[0], both[0] if both[1] is None else both[1]

    block = 16
    norm_kernels.finish_stats[(triton.cdiv(columns, block),)](
        partials, partials.shape[0], *pair(norm.mean), *pair(norm.weight), *pair(norm.bias),
        *pair(norm.mean), *pair(norm.variance), stats,
        Map.of(high).rows, Map.of(low).rows if low is not None else 1, out_high, out_low,
        norm.momentum, norm.eps, BR=256 if not interpreted() else 16, BC=block,
        ACC=triton_type(partials.dtype),
    )  # fmt: skip
    return stats


Groups = tuple[Tensor, Tensor | None]


def norm_act(
    z_high: Tensor, z_low: Tensor | None, stats: Tensor, residual: tuple[Tensor | None, Tensor | None],
    relu: bool, *, pool: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """relu(z * scale + shift + residual) of both groups, and with `pool` the 2 x 2 averages of the
    high one."""
    shape, out_low = Map.of(z_high), 0 if z_low is None else z_low.shape[1]
    y_high = empty_map(z_high, shape.channels)
    y_pool, y_low = empty_low(z_high, shape.channels if pool else 0, out_low)
    grid, sizes = _pointwise(shape, out_low, pool)
    norm_kernels.norm_act[grid](
        z_high, z_low, stats, *residual, y_high, y_low, y_pool,
        shape.positions, shape.rows, shape.height, shape.width, *shape.low, shape.channels, out_low,
        rows(z_low), rows(residual[1]), rows(y_low if y_pool is None else y_pool), sizes.pop("high"),
        LOW=out_low > 0, POOL=pool, RESIDUAL=residual[0] is not None, RELU=relu,
        ACC=triton_type(stats.dtype), **sizes,
    )  # fmt: skip
    return y_high, y_low, y_pool


def _pointwise(shape: Map, out_low: int, pool: bool) -> tuple[tuple[int], dict[str, int]]:
    """The programs of a pass over both groups, how many are the high one's, their block sizes."""
    block_p, block_r, block_c = blocks(shape.channels)
    down = triton.cdiv(shape.positions, block_p) if pool else triton.cdiv(shape.rows, block_r)
    high = down * triton.cdiv(shape.channels, block_c)
    low = triton.cdiv(shape.positions, block_r) * triton.cdiv(out_low, block_c)
    return (high + low,), {"high": high, "BP": block_p, "BR": block_r, "BC": block_c}


def norm_grad_sums(
    grad: Groups, y: Groups, z: Groups, stats: Tensor, relu: bool, residual: bool
) -> Tensor:
    """(2, C_h + C_l): sums of the gradient behind the ReLU, plain and times x-hat."""
    shape, out_low = Map.of(z[0]), 0 if z[1] is None else z[1].shape[1]
    _, block_r, block_c = blocks(shape.channels)
    block_r *= 1 if interpreted() else 2
    across, across_low = triton.cdiv(shape.channels, block_c), triton.cdiv(out_low, block_c)
    loop = 2 if interpreted() else max(1, min(16, shape.rows * across // (block_r * PROGRAMS)))
    down = triton.cdiv(shape.rows, block_r * loop)
    down_low = triton.cdiv(shape.positions, block_r * loop) if out_low else 0
    high = stats.new_empty((down, 2, shape.channels))
    low = stats.new_empty((down_low, 2, out_low)) if out_low else None
    norm_kernels.norm_grad_sums[(down * across + down_low * across_low,)](
        *grad, *y, *z, stats, high, low, shape.rows, shape.positions, shape.channels, out_low,
        rows(grad[1]), rows(y[1]), rows(z[1]), down * across,
        LOW=out_low > 0, RELU=relu, RESIDUAL=residual, BR=block_r, BC=block_c, LOOP=loop,
        ACC=triton_type(stats.dtype), num_warps=8,
    )  # fmt: skip
    out, block = stats.new_empty((2, shape.channels + out_low)), 16
    norm_kernels.sum_partials[(triton.cdiv(2 * shape.channels, block) + triton.cdiv(2 * out_low, block),)](
        high, low, down, down_low, out, shape.channels, out_low,
        LOW=out_low > 0, BR=16 if interpreted() else 128, BC=block, ACC=triton_type(stats.dtype),
    )  # fmt: skip
    return out


def norm_grad(
    grad: Groups,
    y: Groups,
    z: Groups,
    stats: Tensor,
    sums: Tensor,
    relu: bool,
    residual: bool,
    pool: bool,
) -> tuple[Pair, tuple[Tensor | None, Tensor | None]]:
    """Gradients in front of the batch norms with the 2 x 2 sums of the high one, and those of the
    residual."""
    shape, out_low = Map.of(z[0]), 0 if z[1] is None else z[1].shape[1]
    dz_high = empty_map(z[0], shape.channels)
    dz_pool, dz_low = empty_low(z[0], shape.channels if pool else 0, out_low)
    res_high = empty_map(z[0], shape.channels) if residual else None
    res_low = empty_map(z[0], out_low, shape.low) if residual and out_low else None
    grid, sizes = _pointwise(shape, out_low, pool)
    norm_kernels.norm_grad[grid](
        *grad, *y, *z, stats, sums, dz_high, dz_low, dz_pool, res_high, res_low,
        shape.positions, shape.rows, shape.height, shape.width, *shape.low, shape.channels, out_low,
        rows(grad[1]), rows(y[1]), rows(z[1]), rows(dz_low if dz_pool is None else dz_pool),
        sizes.pop("high"), 1.0 / shape.rows, 1.0 / shape.positions,
        LOW=out_low > 0, POOL=pool, RELU=relu, RESIDUAL=residual,
        ACC=triton_type(stats.dtype), **sizes,
    )  # fmt: skip
    return Pair(dz_high, dz_low, dz_pool), (res_high, res_low)


def weight_grads(x: Pair, dz: Pair, conv: Kernels, dtype: torch.dtype) -> list[Tensor | None]:
    """Gradients of h2h, l2h, h2l, l2l: products of features and gradients of one resolution.

    At the low resolution one product of the joined maps gives all four, unless too much of it would
    be between the two pooled groups; then two products do.
    """
    h2h = weight_grad(x.high, dz.high, conv.h2h, dtype)
    l2h = h2l = l2l = None
    below_x, below_dz = joined(x.pool, x.low), joined(dz.pool, dz.low)
    both = x.low is not None and dz.low is not None and below_x is not None and below_dz is not None
    if both and dz.low.shape[1] * 3 >= dz.high.shape[1]:  # type: ignore[union-attr]
        whole = weight_grad(below_x, below_dz, conv.h2h, dtype)
        assert whole is not None
        out, into = dz.high.shape[1], x.high.shape[1]
        l2h, h2l, l2l = whole[:out, into:], whole[out:, :into], whole[out:, into:]
    else:
        l2h = weight_grad(x.low, dz.pool, conv.l2h, dtype)
        if both:
            whole = weight_grad(below_x, dz.low, conv.h2h, dtype)
            assert whole is not None
            h2l, l2l = whole[:, : x.high.shape[1]], whole[:, x.high.shape[1] :]
        else:
            h2l = weight_grad(x.pool, dz.low, conv.h2l, dtype)
            l2l = weight_grad(x.low, dz.low, conv.l2l, dtype)
    return [h2h, l2h, h2l, l2l]


def weight_grad(
    x: Tensor | None, dz: Tensor | None, weight: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """The gradient of a kernel of that size: a matrix product, for several taps PyTorch's."""
    if weight is None or x is None or dz is None:
        return None
    size = weight.shape[2:]
    if weight[0, 0].numel() == 1:
        a, b = _rows(dz).t(), _rows(x)
        fp32 = dtype == torch.float32 and a.dtype in (torch.bfloat16, torch.float16) and a.is_cuda
        grad = (
            torch.mm(a, b, out_dtype=dtype) if fp32 and MM_OUT_DTYPE else torch.mm(a, b).to(dtype)
        )
        return grad.view(*grad.shape, *size)
    if len(size) == 3 and size[0] == 1:
        return _conv_weight_grad(_fold(x), _fold(dz), size[1:]).unsqueeze(2).to(dtype)
    if len(size) == 3 and size[1] == size[2] == 1:
        flat = _conv_weight_grad(dense(x).flatten(3), dense(dz).flatten(3), (size[0], 1))
        return flat.unsqueeze(4).to(dtype)
    return _conv_weight_grad(x, dz, size).to(dtype)


def _conv_weight_grad(x: Tensor, dz: Tensor, size: Sequence[int]) -> Tensor:
    dims, (x, dz) = len(size), (dense(x), dense(dz))
    weight = x.new_empty((dz.shape[1], x.shape[1], *size))
    if dims == 2:
        weight = weight.contiguous(memory_format=torch.channels_last)
    _, grad, _ = torch.ops.aten.convolution_backward(
        dz, x, weight, None, [1] * dims, [k // 2 for k in size], [1] * dims, False, [0] * dims, 1,
        [False, True, False],
    )  # fmt: skip
    assert grad is not None
    return grad


def _rows(x: Tensor) -> Tensor:
    """(N, C, ..., H, W) channels-last -> (positions, C), a view."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def _fold(x: Tensor) -> Tensor:
    """(N, C, T, H, W) channels-last -> (N * T, C, H, W), a view."""
    return x.transpose(1, 2).flatten(0, 1)


class PoolAndJoin(torch.autograd.Function):
    """The input of a layer of stride 2: the pooled high group beside the low one of its size."""

    @staticmethod
    def forward(ctx: Any, high: Tensor, low: Tensor | None, below: Tensor) -> Tensor:
        ctx.size, ctx.channels, ctx.has_low = high.shape[-2:], high.shape[1], low is not None
        return below.view_as(below)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        height, width = ctx.size
        spread = grad[:, : ctx.channels] * _window_share(ctx.size, grad)
        scale = (2.0, 2.0) if grad.dim() == 4 else (1.0, 2.0, 2.0)
        d_high = F.interpolate(spread, scale_factor=scale, mode="nearest")[..., :height, :width]
        return d_high, grad[:, ctx.channels :] if ctx.has_low else None, None


def _window_share(size: tuple[int, int], like: Tensor) -> Tensor:
    """(H2, W2): one over the number of high positions in each 2 x 2 window."""
    rows, columns = (torch.full((-(-n // 2),), 2.0, device=like.device) for n in size)
    if size[0] % 2:
        rows[-1:] = 1.0
    if size[1] % 2:
        columns[-1:] = 1.0
    return (1.0 / (rows[:, None] * columns[None, :])).to(like.dtype)


__all__ = ["ConvNormAct", "Norm", "PoolAndJoin", "norm_act"]
