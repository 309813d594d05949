"""What the kernels are told about memory: steps between positions, taps of a kernel, sizes of
tiles."""

import pytest
import torch


def last(x):
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


def test_row_of_tells_the_channels_of_the_map_that_a_view_lies_in(kernels):
    row_of, x = kernels.maps.row_of, last(torch.randn(2, 6, 3, 4, 5))

    assert row_of(x) == 6
    assert row_of(x[:, 2:5]) == 6
    assert row_of(x[:, :, :, :, 1:]) is None
    assert row_of(x[:, :, ::2]) is None
    assert row_of(x[:, ::2]) is None
    assert row_of(x.contiguous()) is None
    assert row_of(torch.ones(()).expand(x.shape)) is None
    assert row_of(last(torch.randn(1, 6, 4, 5))[:, :3]) == 6


def test_maps_of_one_column_one_channel_or_one_position_are_channels_last(kernels):
    row_of = kernels.maps.row_of

    assert row_of(torch.ones(2, 1, 3, 4, 5)) == 1
    assert row_of(last(torch.randn(2, 6, 3, 4, 1))[:, 1:4]) == 6
    assert row_of(torch.ones(1, 7, 1, 1, 1)) == 7


def test_as_map_copies_only_what_the_kernels_cannot_read(kernels):
    x = last(torch.randn(2, 6, 3, 4, 5))

    assert kernels.maps.as_map(x[:, 2:5]).data_ptr() == x[:, 2:5].data_ptr()
    copy = kernels.maps.as_map(x.contiguous())
    assert kernels.maps.row_of(copy) == 6
    assert torch.equal(copy, x)


def test_joined_wants_neighbors_in_one_map(kernels):
    joined, x = kernels.maps.joined, last(torch.randn(2, 6, 3, 4, 5))
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


def test_maps_of_one_position_are_joined_by_the_memory_that_they_share(kernels):
    joined, x = kernels.maps.joined, last(torch.randn(1, 6, 1, 1, 1))

    assert torch.equal(joined(x[:, :4], x[:, 4:]), x)
    assert joined(x[:, :4].clone(), x[:, 4:]) is None


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
    tiles = kernels.tiles
    tile = tiles.Tile(64, 128, 64, 8, 3)

    assert tiles.programs(tile, 64, 128) == 1
    assert tiles.programs(tile, 65, 129) == 4
    assert tiles.candidates(10**6, 256) == tiles.TILES[: tiles.TRIED]
    assert tiles.candidates(1, 16) == tiles.TILES[-tiles.TRIED :]
    middling = tiles.candidates(64 * 127, 128)  # one program too few for the first
    assert middling == tiles.TILES[1 : 1 + tiles.TRIED]


def test_the_interpreter_measures_no_tiles(kernels):
    assert kernels.tiles.interpreted()
    assert kernels.tiles.choose((), pytest.fail, 1, 1, exact=False) == kernels.tiles.INTERPRETED


def test_float32_products_follow_the_setting_of_pytorch(kernels):
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        for allowed, precision in ((False, "ieee"), (True, "tf32")):
            matmul.allow_tf32 = allowed
            assert kernels.tiles.precision(torch.float32) == precision
            assert kernels.tiles.precision(torch.float64) == "ieee"
    finally:
        matmul.allow_tf32 = before
