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
    compute_in_2d,
    down,
    stem_by_space_to_depth,
)
from octvideo.layers.conv3d_as_2d import Conv3d

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
    tile = kernels.ops.Tile(16, 16, 16, 1, 1)
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
    assert torch.equal(kernels.ops.joined(pool, copy), whole)


# --- What the kernels are told about memory


def test_row_of_tells_the_channels_of_the_map_that_a_view_lies_in(kernels):
    row_of, x = kernels.ops.row_of, random_map(6, (2, 3, 4, 5), torch.float32)

    assert row_of(x) == 6
    assert row_of(x[:, 2:5]) == 6
    assert row_of(x[:, :, :, :, 1:]) is None
    assert row_of(x[:, :, ::2]) is None
    assert row_of(x[:, ::2]) is None
    assert row_of(x.contiguous()) is None
    assert row_of(torch.ones(()).expand(x.shape)) is None
    assert row_of(random_map(6, (1, None, 4, 5), torch.float32)[:, :3]) == 6


def test_maps_of_one_column_one_channel_or_one_position_are_channels_last(kernels):
    row_of = kernels.ops.row_of

    assert row_of(torch.ones(2, 1, 3, 4, 5)) == 1
    assert row_of(random_map(6, (2, 3, 4, 1), torch.float32)[:, 1:4]) == 6
    assert row_of(torch.ones(1, 7, 1, 1, 1)) == 7


def test_as_map_copies_only_what_the_kernels_cannot_read(kernels):
    x = random_map(6, (2, 3, 4, 5), torch.float32)

    assert kernels.ops.as_map(x[:, 2:5]).data_ptr() == x[:, 2:5].data_ptr()
    copy = kernels.ops.as_map(x.contiguous())
    assert kernels.ops.row_of(copy) == 6
    assert torch.equal(copy, x)


def test_joined_wants_neighbors_in_one_map(kernels):
    joined, x = kernels.ops.joined, random_map(6, (2, 3, 4, 5), torch.float32)
    first, second = x[:, :4], x[:, 4:]

    assert joined(None, None) is None
    assert joined(first, None) is first
    assert joined(None, second) is second
    assert torch.equal(joined(first, second), x)
    assert joined(first, second).data_ptr() == x.data_ptr()
    assert joined(second, first) is None
    assert joined(x[:, :3], second) is None
    assert joined(last(first.clone()), second) is None
    assert joined(x[:, 1:4], second) is None


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (3, 1, 1), (1, 3, 3), (1, 1)])
def test_taps_reach_every_element_of_a_kernel(kernels, size, channels_last, adjoint):
    weight = torch.arange(2.0 * 4 * torch.Size(size).numel()).view(2, 4, *size)
    weight = last(weight) if channels_last else weight
    conv = kernels.ops.Kernels(weight, h2l=last(weight) + 100)

    h2h, l2h, h2l, l2l = conv.taps(adjoint)

    assert (h2l is None, l2h is None, l2l) == (adjoint, not adjoint, None)
    tap, into, out = h2h.strides
    first = h2h.matrix.storage_offset()
    count = weight[0, 0].numel()
    shape = (count, *((2, 4) if adjoint else (4, 2)))
    seen = [
        weight.as_strided((), (), first + k * tap + i * into + o * out)
        for k, i, o in torch.cartesian_prod(*map(torch.arange, shape)).tolist()
    ]
    taps = weight.flatten(2).movedim(2, 0)
    expected = taps.flip(0) if adjoint else taps.transpose(1, 2)
    assert torch.equal(torch.stack(seen).view(shape), expected)


def test_taps_that_do_not_lie_evenly_are_refused(kernels):
    weight = torch.ones(2, 2, 3, 4)[..., :3]

    with pytest.raises(AssertionError, match="evenly"):
        kernels.ops.Kernels(weight).taps(adjoint=False)


def test_candidates_are_the_largest_tiles_that_keep_the_gpu_busy(kernels):
    ops = kernels.ops
    tile = ops.Tile(64, 128, 64, 8, 3)

    assert ops.programs(tile, 64, 128) == 1
    assert ops.programs(tile, 65, 129) == 4
    assert ops.candidates(10**6, 256) == ops.TILES[: ops.TRIED]
    assert ops.candidates(1, 16) == ops.TILES[-ops.TRIED :]
    middling = ops.candidates(64 * 127, 128)  # one program too few for the first
    assert middling == ops.TILES[1 : 1 + ops.TRIED]


def test_the_interpreter_measures_no_tiles(kernels):
    assert kernels.ops.interpreted()
    assert kernels.ops.choose((), pytest.fail, 1, 1, exact=False) == kernels.ops.INTERPRETED


def test_float32_products_follow_the_setting_of_pytorch(kernels):
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        for allowed, precision in ((False, "ieee"), (True, "tf32")):
            matmul.allow_tf32 = allowed
            assert kernels.ops.precision(torch.float32) == precision
            assert kernels.ops.precision(torch.float64) == "ieee"
    finally:
        matmul.allow_tf32 = before


# --- The stem


@pytest.mark.parametrize(
    ("kernel_t", "kernel", "padding", "size"),
    [(5, 7, 3, (12, 10)), (1, 7, 3, (9, 11)), (5, 7, 3, (7, 8)), (3, 5, 2, (8, 9)),
     (1, 3, 1, (5, 6)), (1, 7, 2, (9, 10))],
)  # fmt: skip
def test_the_stem_is_its_convolution(kernels, kernel_t, kernel, padding, size):
    x = torch.randn(2, 3, 3, *size, dtype=torch.float64)
    weight = torch.randn(4, 3, kernel_t, kernel, kernel, dtype=torch.float64).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64)
    pads = (kernel_t // 2, padding, padding)
    expected = F.conv3d(x, weight, bias, (1, 2, 2), pads)

    found = kernels.stem.stem_conv(x, weight, bias, pads)

    assert_near(found, expected, torch.float64)
    grad = torch.randn_like(expected)
    grads = [torch.autograd.grad(y, weight, grad)[0] for y in (found, expected)]
    torch.testing.assert_close(*grads, atol=1e-11, rtol=1e-11)


def test_the_stem_reads_clips_of_any_layout(kernels):
    x, weight = torch.randn(1, 3, 4, 9, 7).double(), torch.randn(4, 3, 3, 5, 5).double()
    expected = F.conv3d(x, weight, None, (1, 2, 2), (1, 2, 2))

    for clip in (last(x), x.transpose(3, 4).contiguous().transpose(3, 4)):
        found = kernels.stem.stem_conv(clip, weight, None, (1, 2, 2))
        assert_near(found, expected, torch.float64)


class OnGpu(torch.Tensor):
    """A tensor of the CPU that calls itself one of a GPU."""

    is_cuda = True


@pytest.mark.parametrize(
    ("kernel_t", "stride_t", "padding_t", "covered"),
    [(3, 1, 1, True), (1, 1, 0, True), (3, 2, 1, False), (3, 1, 0, False), (2, 1, 1, False)],
)
def test_a_stem_that_changes_the_frames_computes_as_before(
    kernels, monkeypatch, kernel_t, stride_t, padding_t, covered
):
    seen = []
    stem_conv = kernels.stem.stem_conv
    monkeypatch.setattr(kernels.stem, "stem_conv", lambda *a: (seen.append(a), stem_conv(*a))[1])
    conv = Conv3d(3, 4, (kernel_t, 5, 5), (stride_t, 2, 2), (padding_t, 2, 2)).double()
    x = torch.randn(1, 3, 4, 9, 7).double()
    expected = conv(x)

    found = stem_by_space_to_depth(compute_in_2d(conv, True), True)(x.as_subclass(OnGpu))

    assert_near(found.as_subclass(torch.Tensor), expected, torch.float64)
    assert bool(seen) == covered
