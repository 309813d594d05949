"""The kernels on PyTorch tensors: which blocks they take, and what memory they need.

Maps are channels-last: (N, C, T, H, W) or (N, C, H, W) whose memory is (N, T, H, W, C).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from octvideo.layers.triton import conv_kernel, map_kernels


class Tile(NamedTuple):
    """Low positions and high channels of a program, the input channels of a step, warps, stages."""

    positions: int
    channels: int
    depth: int
    warps: int
    stages: int


TILES = (
    Tile(64, 128, 64, 8, 3),
    Tile(64, 64, 64, 8, 3),
    Tile(64, 64, 32, 8, 4),
    Tile(64, 32, 64, 4, 3),
    Tile(32, 64, 64, 4, 4),
    Tile(16, 64, 64, 4, 4),
    Tile(16, 32, 64, 4, 4),
)
"""From large to small: a small map needs small tiles to keep all multiprocessors busy."""
TRIED = 4
MULTIPROCESSORS = 128
EXACT = Tile(16, 32, 32, 4, 2)
"""For float32 without TF32, whose products no tensor core computes."""
INTERPRETED = Tile(64, 64, 64, 1, 1)

_chosen: dict[tuple[Any, ...], Tile] = {}


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
    """The four kernels (C_out, C_in, [kt,] k, k) of an octave convolution; None for a missing
    path."""

    h2h: Tensor
    l2h: Tensor | None = None
    h2l: Tensor | None = None
    l2l: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The kernel in time and in space."""
        return (self.h2h.shape[2] if self.h2h.dim() == 5 else 1), self.h2h.shape[-1]

    def taps(self, adjoint: bool) -> tuple[Taps | None, ...]:
        """For h2h, l2h, h2l, l2l as seen from the input; the adjoint swaps the two that cross."""
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
    """The distance in memory of one tap from the next: taps are numbered through time, rows,
    columns."""
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
    """What follows the products, in the same pass: + bias, + residual, ReLU, the 2 x 2 average."""

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


def dense(x: Tensor) -> Tensor:
    """`x` in channels-last memory."""
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


def row_of(x: Tensor) -> int | None:
    """Elements from one position to the next, where `x` is a channels-last map or some channels of
    one."""
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
    """Maps below `high` for its pooled channels and for a low group, side by side in one; None for
    0."""
    if not pool_channels + low_channels:
        return None, None
    whole = empty_map(high, pool_channels + low_channels, Map.of(high).low)
    pool = whole[:, :pool_channels] if pool_channels else None
    return pool, whole[:, pool_channels:] if low_channels else None


def joined(pool: Tensor | None, low: Tensor | None) -> Tensor | None:
    """The map that `pool` and `low` are parts of, side by side; either alone where the other is
    None."""
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


def blocks(channels: int) -> tuple[int, int, int]:
    """Low positions with their four high ones, rows of a plain map, and channels of a pointwise
    program."""
    if interpreted():
        return 64, 64, 64
    across = min(128, max(16, triton.next_power_of_2(channels)))
    return max(1, 1024 // across), max(1, 4096 // across), across


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
    """An octave convolution of stride 1 that keeps the spatial size, and what follows it.

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
        tile = choose(key, launch, shape.positions, out_high + out_low, exact)
    partials = launch(tile)
    return Output(y_high, y_low, y_pool, partials)


def choose(
    key: tuple[Any, ...],
    launch: Callable[[Tile], object],
    positions: int,
    channels: int,
    exact: bool,
) -> Tile:
    """The fastest tile for this shape, measured when it is first met, as cudnn.benchmark does."""
    if interpreted():
        return INTERPRETED
    if exact:
        return EXACT
    if key not in _chosen:
        tiles = candidates(positions, channels)
        if torch.cuda.is_current_stream_capturing():
            return tiles[0]
        timed = {tile: ms for tile in tiles if (ms := _time(partial(launch, tile))) is not None}
        _chosen[key] = min(timed, key=lambda tile: timed[tile])
    return _chosen[key]


def candidates(positions: int, channels: int) -> tuple[Tile, ...]:
    """The largest tiles that give every multiprocessor a program; the smallest where none does."""
    busy = [tile for tile in TILES if programs(tile, positions, channels) >= MULTIPROCESSORS]
    return tuple(busy[:TRIED]) if len(busy) >= TRIED else TILES[-TRIED:]


def programs(tile: Tile, positions: int, channels: int) -> int:
    return -(-positions // tile.positions) * -(-channels // tile.channels)


def _time(call: Callable[[], object], calls: int = 8) -> float | None:
    """Milliseconds of a call; None for a tile that does not fit the GPU.

    As a graph: what a launch costs the host would hide the kernel's own time.
    """
    if not compiled(call):
        return None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    best = float("inf")
    for _ in range(4):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / calls)
    return best


def compiled(call: Callable[[], object]) -> bool:
    """Compile what `call` launches; False for a tile that does not fit the GPU."""
    try:
        call()
    except (triton.runtime.errors.OutOfResources, triton.CompilationError):
        return False
    torch.cuda.synchronize()
    return True


def interpreted() -> bool:
    return not isinstance(conv_kernel.oct_conv, triton.runtime.JITFunction)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def triton_type(dtype: torch.dtype) -> Any:
    return {torch.float64: tl.float64, torch.float32: tl.float32}[dtype]


def precision(dtype: torch.dtype) -> str:
    """float32 products follow PyTorch's setting; Triton's own default would be TF32."""
    return "tf32" if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32 else "ieee"
