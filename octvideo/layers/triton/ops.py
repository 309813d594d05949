"""The kernels on PyTorch tensors, which are channels-last maps (`maps`)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from octvideo.layers.triton import conv_kernel, map_kernels, tiles
from octvideo.layers.triton.maps import Map, empty_low, empty_map, rows
from octvideo.layers.triton.tiles import Tile, accumulator, blocks, precision, triton_type


class Taps(NamedTuple):
    """A kernel as the matrix (out, in) of its first tap, and the step to the next tap."""

    matrix: Tensor
    step: int
    across: bool

    @property
    def strides(self) -> tuple[int, int, int]:
        out, into = self.matrix.stride()
        return (self.step, out, into) if self.across else (self.step, into, out)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The four kernels (C_out, C_in, [kt,] k, k) of an octave convolution, each or None."""

    h2h: Tensor
    l2h: Tensor | None = None
    h2l: Tensor | None = None
    l2l: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The kernel in time and in space."""
        return (self.h2h.shape[2] if self.h2h.dim() == 5 else 1), self.h2h.shape[-1]

    def taps(self, adjoint: bool) -> tuple[Taps | None, ...]:
        """The taps of h2h, l2h, h2l and l2l, seen from the input; the adjoint swaps l2h and h2l."""
        crossing = (self.h2l, self.l2h) if adjoint else (self.l2h, self.h2l)
        paths = (self.h2h, *crossing, self.l2l)
        return tuple(None if w is None else _taps(w, adjoint) for w in paths)


def _taps(weight: Tensor, adjoint: bool) -> Taps:
    step = _tap_step(weight)
    taps = weight.shape[2:]
    last: tuple[Any, ...] = (-1 if adjoint else 0,) * len(taps)
    matrix = weight[(..., *last)]
    return Taps(matrix, -step if adjoint else step, adjoint)


def _tap_step(weight: Tensor) -> int:
    """The distance in memory of one tap from the next: taps go through time, rows, columns."""
    sizes = [(n, s) for n, s in zip(weight.shape[2:], weight.stride()[2:], strict=True) if n > 1]
    if not sizes:
        return 0
    step, length = sizes[-1][1], 1
    for n, stride in reversed(sizes):
        assert stride == step * length, "the taps of this kernel do not lie evenly in memory"
        length *= n
    return step


@dataclass(frozen=True, slots=True)
class Epilogue:
    """Operations fused behind the products: + bias, + residual, ReLU, the 2 x 2 average."""

    bias: tuple[Tensor, Tensor | None] | None = None
    residual: tuple[Tensor, Tensor | None] | None = None
    relu: bool = False
    pool: bool = False
    stats_around: tuple[Tensor, Tensor | None] | None = None


class Output(NamedTuple):
    high: Tensor
    low: Tensor | None
    pool: Tensor | None
    partials: Tensor | None


def join(high: Tensor, low: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The 2 x 2 averages of `high` and a copy of `low`, side by side in one map."""
    shape, low_channels = Map.of(high), 0 if low is None else low.shape[1]
    pool, low_copy = empty_low(high, shape.channels, low_channels)
    assert pool is not None
    block_p, block_r, block_c = blocks(shape.channels)
    blocks_high = triton.cdiv(shape.positions, block_p) * triton.cdiv(shape.channels, block_c)
    blocks_low = triton.cdiv(shape.positions, block_r) * triton.cdiv(low_channels, block_c)
    map_kernels.join[(blocks_high + blocks_low,)](
        high, low, pool, shape.positions, shape.height, shape.width, *shape.low,
        shape.channels, low_channels, rows(low), rows(pool), blocks_high,
        LOW=low is not None, BP=block_p, BR=block_r, BC=block_c,
        ACC=triton_type(accumulator(high.dtype)),
    )  # fmt: skip
    return pool, low_copy


def oct_conv(
    high: Tensor,
    low: Tensor | None,
    pooled: Tensor | None,
    weights: Kernels,
    epilogue: Epilogue = Epilogue(),
    *,
    adjoint: bool = False,
    tile: Tile | None = None,
) -> Output:
    """An octave convolution of stride 1 that keeps the spatial size, and the operations fused
    behind it.

    high (N, C_h, [T,] H, W), low (N, C_l, [T,] ceil(H/2), ceil(W/2)) or None: channels-last.
    pooled: the 2 x 2 averages of `high` (sums for the adjoint); needed by kernels wider than 1.
    adjoint: multiply by the transpose instead: gradients of outputs to gradients of inputs.
    """
    kt, ks = weights.size
    h2h, l2h, h2l, l2l = weights.taps(adjoint)
    assert h2h is not None
    out_axis, in_axis = (1, 0) if adjoint else (0, 1)
    out_high = weights.h2h.shape[out_axis]
    assert high.shape[1] == weights.h2h.shape[in_axis]
    crossing = weights.l2h if adjoint else weights.h2l
    out_low = 0 if crossing is None else crossing.shape[out_axis]
    shape = Map.of(high)
    assert ks == 1 or not out_low or pooled is not None, "a kernel wider than 1 takes a pooled map"

    y_high = empty_map(high, out_high)
    y_pool, y_low = empty_low(high, out_high if epilogue.pool else 0, out_low)

    def launch(tile: Tile) -> Tensor | None:
        blocks_m = -(-shape.positions // tile.positions)
        blocks_h = -(-out_high // tile.channels)
        low_tile = max(16, triton.next_power_of_2(-(-out_low // blocks_h))) if out_low else 16
        blocks_n = max(blocks_h, -(-out_low // low_tile))
        partials = None
        if epilogue.stats_around is not None:
            columns = out_high + out_low
            partials = high.new_empty((blocks_m, 2, columns), dtype=accumulator(high.dtype))
        none = (0, 0, 0)
        bias, residual, around = epilogue.bias, epilogue.residual, epilogue.stats_around
        conv_kernel.oct_conv[(blocks_m * blocks_n,)](
            high, low, pooled,
            h2h.matrix, *(path.matrix if path else None for path in (l2h, h2l, l2l)),
            *(bias or (None, None)), *(residual or (None, None)),
            y_high, y_low, y_pool, partials, *(around or (None, None)),
            shape.positions, shape.frames, shape.height, shape.width, *shape.low,
            shape.channels, low.shape[1] if low is not None and l2h else 0, out_high, out_low,
            rows(low), rows(pooled), rows(residual[1]) if residual else 0, rows(y_low if y_pool is None else y_pool),
            *h2h.strides, *(l2h.strides if l2h else none),
            *(h2l.strides if h2l else none), *(l2l.strides if l2l else none),
            KT=kt, KS=ks, BP=tile.positions, BH=tile.channels, BL=low_tile, BK=tile.depth,
            LOW_IN=low is not None and l2h is not None, LOW_OUT=out_low > 0,
            POOL_IN=pooled is not None, POOL_OUT=epilogue.pool,
            BIAS=bias is not None, RESIDUAL=residual is not None, RELU=epilogue.relu,
            STATS=around is not None, ADJOINT=adjoint,
            PRECISION=precision(high.dtype), ACC=triton_type(accumulator(high.dtype)),
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        return partials

    if tile is None:
        key = (tuple(shape), low is not None, out_high, out_low, kt, ks, adjoint, high.dtype,
               epilogue.bias is None, epilogue.residual is None, epilogue.relu, epilogue.pool,
               epilogue.stats_around is None, pooled is None)  # fmt: skip
        exact = high.dtype == torch.float32 and precision(high.dtype) == "ieee"
        tile = tiles.choose(key, launch, shape.positions, out_high + out_low, exact)
    partials = launch(tile)
    return Output(y_high, y_low, y_pool, partials)
