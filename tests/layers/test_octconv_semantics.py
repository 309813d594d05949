"""What an octave convolution is: the equation of the paper, path by path, and what follows from
it."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctBatchNorm3d, OctConv2d, OctConv3d, OctTensor, merge
from octvideo.layers.resize import down

ALPHAS = (0.0, 0.125, 0.25, 0.5, 0.75, 0.9)


def random_pair(
    channels: Channels, size: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> OctTensor:
    """A pair on a high map of `size` = ([T,] H, W)."""
    half = (*size[:-2], -(-size[-2] // 2), -(-size[-1] // 2))
    low = torch.randn(2, channels.low, *half, dtype=dtype) if channels.low else None
    return OctTensor(torch.randn(2, channels.high, *size, dtype=dtype), low)


# --- A slow oracle: numpy, float64, one loop per kernel tap, every path written out from the
# paper's equation


def slow_conv(x: np.ndarray, conv: nn.Conv3d, stride: tuple[int, int, int]) -> np.ndarray:
    weight, groups = conv.weight.detach().numpy(), conv.groups
    pad = [(0, 0), (0, 0), *((p, p) for p in conv.padding)]
    x = np.pad(x, pad)
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], weight.shape[2:], stride, strict=True)]
    out = np.zeros((x.shape[0], weight.shape[0], *size))
    per_in, per_out = x.shape[1] // groups, weight.shape[0] // groups
    for g, tap in itertools.product(range(groups), np.ndindex(*weight.shape[2:])):
        window = tuple(
            slice(i, i + (n - 1) * s + 1, s) for i, n, s in zip(tap, size, stride, strict=True)
        )
        seen = x[(slice(None), slice(g * per_in, (g + 1) * per_in), *window)]
        rows = slice(g * per_out, (g + 1) * per_out)
        out[:, rows] += np.einsum("oi,nithw->nothw", weight[(rows, slice(None), *tap)], seen)
    return out if conv.bias is None else out + conv.bias.detach().numpy()[:, None, None, None]


def slow_pool(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 cells; the cells of a last odd row or column are smaller."""
    height, width = x.shape[-2:]
    out = np.zeros((*x.shape[:-2], -(-height // 2), -(-width // 2)))
    for i, j in np.ndindex(*out.shape[-2:]):
        out[..., i, j] = x[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((-2, -1))
    return out


def slow_up(x: np.ndarray, height: int, width: int) -> np.ndarray:
    return x.repeat(2, -2).repeat(2, -1)[..., :height, :width]


def slow_octconv(
    conv: OctConv3d, high: np.ndarray, low: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    time_only = (conv.stride[0], 1, 1)
    if conv.stride[-1] == 2:
        high = slow_pool(high)
    y_high = slow_conv(high, conv.h2h, time_only)
    y_low = slow_conv(slow_pool(high), conv.h2l, time_only) if conv.h2l is not None else None
    if low is not None:
        if conv.l2h is not None:
            from_low = slow_conv(low, conv.l2h, time_only)
            y_high = y_high + (
                slow_up(from_low, *y_high.shape[-2:]) if conv.stride[-1] == 1 else from_low
            )
        if conv.l2l is not None:
            own = slow_conv(slow_pool(low) if conv.stride[-1] == 2 else low, conv.l2l, time_only)
            y_low = own if y_low is None else y_low + own
    return y_high, y_low


@pytest.mark.parametrize(
    ("channels_in", "channels_out", "groups"),
    [
        (Channels(6, 2), Channels(4, 4), 1),
        (Channels(8), Channels(4, 4), 1),
        (Channels(6, 2), Channels(8), 1),
        (Channels(4, 4), Channels(2, 6), 2),
        (Channels(5, 3), Channels(5, 3), 8),
    ],
    ids=["inner", "first", "last", "grouped", "depthwise"],
)
@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3)], ids=str)
@pytest.mark.parametrize("stride", [1, (1, 2, 2), (2, 1, 1), (2, 2, 2)], ids=str)
def test_layer_equals_the_slow_oracle_path_by_path(
    channels_in, channels_out, groups, kernel, stride
):
    padding = tuple(k // 2 for k in kernel)
    conv = OctConv3d(
        channels_in, channels_out, kernel, stride, padding, groups=groups, downsample="pool"
    ).double()
    x = random_pair(channels_in, (5, 7, 6), torch.float64)

    got = conv(x)

    low = None if x.low is None else x.low.numpy()
    high, low = slow_octconv(conv, x.high.numpy(), low)
    np.testing.assert_allclose(got.high.detach().numpy(), high, atol=1e-12)
    assert (got.low is None) == (low is None)
    if low is not None:
        np.testing.assert_allclose(got.low.detach().numpy(), low, atol=1e-12)


# --- What follows


def block_matrix(conv: OctConv3d) -> torch.Tensor:
    """The undivided kernel: rows are high then low outputs, columns high then low inputs."""
    high = torch.cat([conv.h2h.weight, conv.l2h.weight], dim=1)
    return torch.cat([high, torch.cat([conv.h2l.weight, conv.l2l.weight], dim=1)])


@pytest.mark.parametrize("alpha", ALPHAS[1:])
@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (3, 3, 3)], ids=str)
def test_features_constant_in_space_convolve_as_if_undivided(alpha, kernel):
    conv = OctConv3d(
        16, 16, kernel, 1, tuple(k // 2 for k in kernel), alpha=(alpha, alpha)
    ).double()
    over_time = torch.randn(2, 16, 5, 1, 1, dtype=torch.float64)
    width = conv.in_channels.high
    x = OctTensor(
        over_time[:, :width].expand(-1, -1, -1, 12, 12),
        over_time[:, width:].expand(-1, -1, -1, 6, 6),
    )

    y = conv(x)

    bias = torch.cat([conv.h2h.bias, conv.h2l.bias])
    undivided = F.conv3d(
        over_time.expand(-1, -1, -1, 12, 12), block_matrix(conv), bias, padding=conv.padding
    )
    # The zeros around a map lie at twice the distance in the low group: compare where neither group
    # sees them.
    torch.testing.assert_close(y.high[..., 2:-2, 2:-2], undivided[:, :width, :, 2:-2, 2:-2])
    torch.testing.assert_close(y.low[..., 1:-1, 1:-1], undivided[:, width:, :, 2:-2:2, 2:-2:2])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_parameters_are_as_many_as_in_the_undivided_layer_at_every_alpha(alpha, groups, bias):
    octave = OctConv3d(16, 16, (3, 3, 3), 1, 1, 1, groups, bias, alpha=(alpha, alpha))
    plain = nn.Conv3d(16, 16, 3, 1, 1, groups=groups, bias=bias)

    assert sum(p.numel() for p in octave.parameters()) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("alphas", [(0.0, 0.5), (0.5, 0.0), (0.25, 0.75), (0.9, 0.1)], ids=str)
def test_alpha_before_and_behind_a_layer_are_independent(alphas):
    conv = OctConv3d(20, 40, 1, alpha=alphas)

    y = conv(random_pair(conv.in_channels, (2, 4, 4)))

    assert conv.in_channels == Channels(20 - int(20 * alphas[0]), int(20 * alphas[0]))
    assert y.high.shape[1] == 40 - int(40 * alphas[1])
    assert (0 if y.low is None else y.low.shape[1]) == int(40 * alphas[1])
    assert sum(p.numel() for p in conv.parameters()) == 20 * 40 + 40


@pytest.mark.parametrize("stride", [1, 2, (2, 1, 1), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("kernel", [1, 3, (3, 1, 1), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_alpha_zero_is_exactly_a_plain_convolution(stride, kernel, groups):
    padding = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
    octave = OctConv3d(8, 8, kernel, stride, padding, groups=groups, alpha=(0.0, 0.0))
    plain = nn.Conv3d(8, 8, kernel, stride, padding, groups=groups)
    plain.load_state_dict({name.removeprefix("h2h."): w for name, w in octave.state_dict().items()})
    x = torch.randn(2, 8, 4, 7, 9, requires_grad=True)

    ours, theirs = octave(OctTensor(x)), plain(x)

    assert ours.low is None
    assert torch.equal(ours.high, theirs)
    for a, b in zip(
        torch.autograd.grad(ours.high.sum(), [x, *octave.parameters()]),
        torch.autograd.grad(theirs.sum(), [x, *plain.parameters()]),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_alpha_zero_is_initialized_as_a_plain_convolution():
    torch.manual_seed(3)
    octave = OctConv3d(8, 8, 3)
    torch.manual_seed(3)
    plain = nn.Conv3d(8, 8, 3)

    assert torch.equal(octave.h2h.weight, plain.weight)
    assert torch.equal(octave.h2h.bias, plain.bias)


@pytest.mark.parametrize("layer", [OctConv2d, OctConv3d])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_nothing_is_drawn_on_the_meta_device(layer, alpha, monkeypatch):
    def draw(*_: object, **__: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(torch.Tensor, "uniform_", draw, raising=False)

    with torch.device("meta"):
        conv = layer(8, 8, 3, padding=1, alpha=alpha)

    assert all(parameter.is_meta for parameter in conv.parameters())
    with pytest.raises(AssertionError, match="drawn"):
        layer(8, 8, 3, padding=1, alpha=alpha)


def test_told_to_pool_a_plain_layer_pools_as_the_official_networks_do():
    conv = OctConv2d(4, 4, 1, 2, downsample="pool")
    x = torch.randn(2, 4, 7, 6)

    y = conv(OctTensor(x)).high

    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(y, conv.h2h(pooled))


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 1, 1)], ids=str)
def test_gradients_are_those_of_finite_differences(stride):
    conv = OctConv3d(4, 4, (3, 3, 3), stride, 1, alpha=(0.5, 0.5)).double()
    pair = random_pair(conv.in_channels, (3, 5, 4), torch.float64)
    inputs = [t.requires_grad_() for t in (pair.high, pair.low, *conv.parameters())]
    names = [name for name, _ in conv.named_parameters()]

    def run(high, low, *weights):
        y = torch.func.functional_call(
            conv, dict(zip(names, weights, strict=True)), (OctTensor(high, low),)
        )
        return y.high, y.low

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("stride_t", [1, 2, 4])
@pytest.mark.parametrize("frames", [1, 5, 8])
def test_both_groups_keep_the_same_number_of_frames(frames, stride_t):
    conv = OctConv3d(8, 8, (5, 3, 3), (stride_t, 1, 1), (2, 1, 1), alpha=(0.5, 0.5))

    y = conv(random_pair(conv.in_channels, (frames, 6, 6)))

    assert y.high.shape[2] == y.low.shape[2] == (frames - 1) // stride_t + 1


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (7, 7), (13, 8), (55, 55)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_odd_maps_give_a_low_group_of_half_the_size_rounded_up(size, stride):
    conv = OctConv2d(8, 8, 3, stride, 1, alpha=(0.5, 0.5))

    y = conv(random_pair(conv.in_channels, size))

    assert tuple(y.high.shape[-2:]) == tuple(-(-n // stride) for n in size)
    assert tuple(y.low.shape[-2:]) == tuple(-(-n // 2) for n in y.high.shape[-2:])


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (5, 6)], ids=str)
def test_pooled_in_3d_as_in_an_export_a_map_may_be_smaller_than_the_window(size, monkeypatch):
    monkeypatch.setattr("octvideo.layers.resize.in_2d", lambda: False)
    x = torch.randn(2, 3, 4, *size, dtype=torch.float64)

    np.testing.assert_allclose(down(x, 2).numpy(), slow_pool(x.numpy()), atol=1e-12)


def test_merge_upsamples_the_low_group_and_puts_it_behind_the_high_one():
    x = OctTensor(
        torch.arange(9.0).view(1, 1, 3, 3), torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    )

    merged = merge(x)

    assert merged.shape == (1, 2, 3, 3)
    assert torch.equal(merged[:, :1], x.high)
    assert merged[0, 1].tolist() == [[1, 1, 2], [1, 1, 2], [3, 3, 4]]


def test_addition_and_map_act_on_each_group():
    a, b = random_pair(Channels(3, 2), (4, 4)), random_pair(Channels(3, 2), (4, 4))

    total = a.map(F.relu) + b

    assert torch.equal(total.high, a.high.relu() + b.high)
    assert torch.equal(total.low, a.low.relu() + b.low)
    assert (OctTensor(a.high) + OctTensor(b.high)).low is None


def test_batch_norm_normalizes_each_group_and_has_the_parameters_of_one():
    norm = OctBatchNorm3d(Channels(5, 3), eps=1e-3)

    y = norm(random_pair(Channels(5, 3), (2, 4, 4)))

    for group in (y.high, y.low):
        torch.testing.assert_close(
            group.mean((0, 2, 3, 4)), torch.zeros(group.shape[1]), atol=1e-6, rtol=0
        )
    assert sum(p.numel() for p in norm.parameters()) == 2 * 8
    assert {module.eps for module in norm.groups} == {1e-3}
    assert OctBatchNorm3d(8).low is None


def test_both_groups_are_normalized_with_the_same_options():
    norm = OctBatchNorm3d(Channels(5, 3), momentum=0.01, affine=False)

    assert [(group.momentum, group.affine) for group in norm.groups] == [(0.01, False)] * 2


@pytest.mark.parametrize("groups", [1, 4, 512])
def test_the_kernels_are_drawn_as_parts_of_one(groups):
    conv = OctConv2d(512, 512, 3, 1, 1, groups=groups, alpha=(0.125, 0.125))

    spreads = {name: path.weight.std().item() for name, path in conv.paths.items()}

    undivided = nn.Conv2d(512, 512, 3, groups=groups).weight.std().item()
    names = ("h2h", "l2l") if groups == 512 else ("h2h", "h2l", "l2h", "l2l")
    assert spreads == pytest.approx(dict.fromkeys(names, undivided), rel=0.05)
