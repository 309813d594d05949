"""Tile sizes of the octave kernels, and the choice of one for a shape."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from octvideo.layers.triton import conv_kernel


class Tile(NamedTuple):
    """Sizes of the block that a program computes: low positions, high channels, input channels per
    step; warps and stages."""

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


def blocks(channels: int) -> tuple[int, int, int]:
    """Block sizes of a pointwise program: low positions (each with its four high ones), rows of a
    plain map, channels."""
    if interpreted():
        return 64, 64, 64
    across = min(128, max(16, triton.next_power_of_2(channels)))
    return max(1, 1024 // across), max(1, 4096 // across), across


def choose(
    key: tuple[Any, ...],
    launch: Callable[[Tile], object],
    positions: int,
    channels: int,
    exact: bool,
) -> Tile:
    """The fastest tile for a shape, timed when it first occurs, as cudnn.benchmark does."""
    if interpreted():
        return INTERPRETED
    if exact:
        return EXACT
    if key not in _chosen:
        tiles = candidates(positions, channels)
        if torch.cuda.is_current_stream_capturing():
            return tiles[0]
        timed = {
            tile: ms for tile in tiles if (ms := milliseconds(partial(launch, tile))) is not None
        }
        _chosen[key] = min(timed, key=lambda tile: timed[tile])
    return _chosen[key]


def candidates(positions: int, channels: int) -> tuple[Tile, ...]:
    """The largest tiles that give every multiprocessor a program; the smallest where none does."""
    busy = [tile for tile in TILES if programs(tile, positions, channels) >= MULTIPROCESSORS]
    return tuple(busy[:TRIED]) if len(busy) >= TRIED else TILES[-TRIED:]


def programs(tile: Tile, positions: int, channels: int) -> int:
    return -(-positions // tile.positions) * -(-channels // tile.channels)


def milliseconds(call: Callable[[], object], calls: int = 8) -> float | None:
    """Milliseconds of a call; None for a tile that does not fit the GPU.

    The call runs as a CUDA graph: otherwise the host's launch time would hide the kernel's own
    time.
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
