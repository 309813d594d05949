"""The kernel of the octave convolution, in Triton's interpreter, against the layers of PyTorch."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from octvideo.layers import (
    Channels,
    OctConv2d,
    OctConv3d,
    OctTensor,
    down,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3}
"""Relative. The interpreter multiplies the bits of bfloat16 as integers: only a GPU can test it."""

SIZES = st.integers(1, 9)
WIDTHS = st.integers(1, 20)
CASES = {
    "clips_and_frames": st.sampled_from([(1, 1), (1, 3), (2, 1), (2, 2)]),
    "picture": st.tuples(SIZES, SIZES),
    "widths": st.tuples(
        st.tuples(WIDTHS, st.just(0) | WIDTHS), st.tuples(WIDTHS, st.just(0) | WIDTHS)
    ),
    "kernel": st.sampled_from([(1, 1), (3, 1), (1, 3)]),
    "dims": st.sampled_from([2, 3]),
}
PAIRS = ((17, 5), (18, 3))
"""Wider than a tile of 16 channels, on both sides."""


def make_conv(dims, widths, kernel, dtype):
    """An octave convolution without bias that keeps the size, of kernel = (time, space)."""
    channels = [Channels(*pair) for pair in widths]
    t, s = kernel
    if dims == 2:
        conv = OctConv2d(*channels, s, padding=s // 2, bias=False)
    else:
        conv = OctConv3d(*channels, (t, s, s), padding=(t // 2, s // 2, s // 2), bias=False)
    return conv.to(dtype)


def random_map(channels, size, dtype, low=False):
    """(N, C, T, H, W) of size = (N, T, H, W), channels-last; without T where that is None."""
    n, t, h, w = size
    if low:
        h, w = -(-h // 2), -(-w // 2)
    return last(torch.randn(n, channels, *([] if t is None else [t]), h, w).to(dtype))


def last(x):
    return x.contiguous(
        memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    )


def among_nan(x):
    """`x` as some channels of a wider map, whose others no kernel may use."""
    if x is None:
        return None
    nan = torch.full_like(x[:, :1], float("nan"))
    wide = last(torch.cat([nan, x, nan], 1))
    return wide[:, 1:-1]


def window_size(high):
    """High positions below each low one: 4, or less at an odd end."""
    ones = torch.ones_like(high[:1, :1])
    return 4 * down(F.pad(ones, (0, high.shape[-1] % 2, 0, high.shape[-2] % 2)), 2)


def run(kernels, conv, high, low, pooled, *epilogue, **options):
    """oct_conv with small tiles; memory that it leaves unwritten is NaN."""
    paths = (conv.h2h, conv.l2h, conv.h2l, conv.l2l)
    weights = kernels.ops.Kernels(*[None if p is None else p.weight.detach() for p in paths])
    tile = kernels.tiles.Tile(16, 16, 16, 1, 1)
    torch.use_deterministic_algorithms(True)
    try:
        return kernels.ops.oct_conv(
            high, among_nan(low), among_nan(pooled), weights, *epilogue, tile=tile, **options
        )
    finally:
        torch.use_deterministic_algorithms(False)


def assert_near(found, expected, dtype):
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found.shape == expected.shape
        scale = max(1.0, expected.abs().max().item())
        error = (found.double() - expected.double()).abs().max().item()
        assert error <= TOLERANCE[dtype] * scale


def check_forward(kernels, size, widths, kernel, dims, dtype=torch.float64):
    size = size if dims == 3 else (size[0], None, *size[2:])
    conv = make_conv(dims, widths, kernel, dtype)
    high = random_map(widths[0][0], size, dtype)
    low = random_map(widths[0][1], size, dtype, low=True) if widths[0][1] else None
    pooled = down(high, 2) if kernel[1] > 1 else None
    exact = OctTensor(high.double(), None if low is None else low.double())
    with torch.no_grad():
        expected = copy.deepcopy(conv).double()(exact)

    found = run(kernels, conv, high, low, pooled)

    assert found.pool is None
    assert_near(found.high, expected.high, dtype)
    assert_near(found.low, expected.low, dtype)


@given(**CASES)
@example(clips_and_frames=(1, 1), picture=(9, 7), widths=PAIRS, kernel=(1, 3), dims=3)
@example(clips_and_frames=(2, 2), picture=(3, 4), widths=PAIRS, kernel=(3, 1), dims=3)
@settings(max_examples=4, deadline=None, derandomize=True)
def test_forward_is_the_layer_for_all_sizes_widths_and_kernels(
    kernels, clips_and_frames, picture, widths, kernel, dims
):
    check_forward(kernels, (*clips_and_frames, *picture), widths, kernel, dims)


@given(**CASES)
@example(clips_and_frames=(1, 1), picture=(9, 7), widths=PAIRS, kernel=(1, 3), dims=3)
@example(clips_and_frames=(2, 2), picture=(3, 4), widths=PAIRS, kernel=(3, 1), dims=3)
@settings(max_examples=4, deadline=None, derandomize=True)
def test_the_adjoint_is_the_gradient_of_the_layer(
    kernels, clips_and_frames, picture, widths, kernel, dims
):
    clips, frames = clips_and_frames
    size = (clips, frames if dims == 3 else None, *picture)
    conv = make_conv(dims, widths, kernel, torch.float64)
    groups = [(width, low) for low, width in enumerate(widths[0]) if width]
    x = [random_map(width, size, torch.float64, low=low).requires_grad_() for width, low in groups]
    y = conv(OctTensor(*x))
    ys = [y.high] if y.low is None else [y.high, y.low]
    grads = [last(torch.randn_like(group)) for group in ys]
    expected = torch.autograd.grad(ys, x, grads)
    sums = down(grads[0], 2) * window_size(grads[0]) if kernel[1] > 1 else None

    g_low = grads[1] if len(grads) > 1 else None
    found = run(kernels, conv, grads[0], g_low, sums, adjoint=True)

    assert_near(found.high, expected[0], torch.float64)
    assert_near(found.low, expected[1] if len(x) > 1 else None, torch.float64)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_types_accumulate_in_float32(kernels, dtype, kernel):
    check_forward(kernels, (1, 1, 5, 3), ((17, 1), (17, 1)), kernel, 3, dtype)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("widths", [PAIRS, ((17, 5), (18, 0)), ((17, 0), (18, 0))])
def test_the_epilogue_adds_bias_and_residual_and_pools(kernels, widths, with_residual, relu):
    dtype, size = torch.float64, (2, 1, 5, 3)
    conv = make_conv(3, widths, (1, 1), dtype)
    (in_high, in_low), (out_high, out_low) = widths
    high = random_map(in_high, size, dtype)
    low = random_map(in_low, size, dtype, low=True) if in_low else None
    bias = torch.randn(out_high, dtype=dtype), torch.randn(out_low, dtype=dtype)
    res_low = random_map(out_low, size, dtype, low=True) if out_low else None
    res = random_map(out_high, size, dtype), res_low
    y = conv(OctTensor(high, low))
    expected = [
        None if z is None else z.detach() + b.view(1, -1, 1, 1, 1) + (r if with_residual else 0)
        for z, b, r in zip((y.high, y.low), bias, res, strict=True)
    ]
    if relu:
        expected = [None if z is None else z.relu() for z in expected]

    residual = (res[0], among_nan(res[1])) if with_residual else None
    found = run(
        kernels, conv, high, low, None, kernels.ops.Epilogue(bias, residual, relu, pool=True)
    )

    assert_near(found.high, expected[0], dtype)
    assert_near(found.low, expected[1], dtype)
    assert_near(found.pool, down(expected[0], 2), dtype)


def test_statistics_are_partial_sums_around_a_shift(kernels):
    conv, size = make_conv(3, PAIRS, (1, 1), torch.float64), (2, 1, 7, 9)
    high = random_map(17, size, torch.float64)
    low = random_map(5, size, torch.float64, low=True)
    around = torch.randn(18, dtype=torch.float64), torch.randn(3, dtype=torch.float64)

    found = run(kernels, conv, high, low, None, kernels.ops.Epilogue(stats_around=around))

    sums, squares = found.partials.sum(0)
    centered = [
        z.transpose(0, 1).flatten(1) - shift[:, None]
        for z, shift in zip((found.high, found.low), around, strict=True)
    ]
    assert found.partials.shape[0] > 1
    assert_near(sums, torch.cat([z.sum(1) for z in centered]), torch.float64)
    assert_near(squares, torch.cat([(z * z).sum(1) for z in centered]), torch.float64)


@pytest.mark.parametrize("size", [(8, 6), (5, 7), (1, 1), (2, 1)])
@pytest.mark.parametrize("low_channels", [0, 3])
def test_join_puts_averages_beside_the_low_group(kernels, size, low_channels):
    high = random_map(5, (1, 2, *size), torch.float64)
    low = random_map(3, (1, 2, *size), torch.float64, low=True) if low_channels else None

    pool, copy = kernels.ops.join(high, among_nan(low))

    assert_near(pool, down(high, 2), torch.float64)
    assert_near(copy, low, torch.float64)
    whole = torch.cat([pool] if copy is None else [pool, copy], 1)
    assert torch.equal(kernels.maps.joined(pool, copy), whole)
