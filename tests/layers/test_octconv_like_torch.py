"""OctConv2d and OctConv3d are written, called and read as torch's convolutions are."""

from inspect import signature

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo.errors import ConfigError
from octvideo.layers import (
    OctBatchNorm3d,
    OctConv2d,
    OctConv3d,
    OctTensor,
    as_pair,
    compute_in_2d,
    merge,
)

DIMS = {OctConv2d: nn.Conv2d, OctConv3d: nn.Conv3d}


def feature(layer: type, channels: int = 8, size: int = 9) -> torch.Tensor:
    return torch.rand(2, channels, *((3,) if layer is OctConv3d else ()), size, size)


@pytest.mark.parametrize("layer", DIMS)
def test_one_alpha_is_that_of_both_sides(layer):
    assert repr(layer(64, 32, 3, padding=1, alpha=0.25)) == repr(
        layer(64, 32, 3, padding=1, alpha=(0.25, 0.25))
    )
    assert layer(64, 32, 3, padding=1, alpha=0.25).out_channels == (24, 8)


@pytest.mark.parametrize("layer", DIMS)
def test_without_a_low_group_it_replaces_the_plain_convolution_in_a_sequential(layer):
    plain = nn.Sequential(DIMS[layer](8, 16, 3, padding=1), nn.ReLU(), DIMS[layer](16, 4, 1))
    octave = nn.Sequential(
        layer(8, 16, 3, padding=1, alpha=0), nn.ReLU(), layer(16, 4, 1, alpha=(0, 0))
    )
    for mine, theirs in zip(octave.parameters(), plain.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    x = feature(layer)

    assert torch.equal(octave(x), plain(x))


@pytest.mark.parametrize("layer", DIMS)
def test_numbers_of_numpy_are_sizes_and_channels(layer):
    eight, two, three = np.int64(8), np.int32(2), np.array(3)[()]
    octave = layer(eight, eight, three, two, np.uint8(1), groups=two, alpha=np.float32(0.5))

    assert repr(octave) == repr(layer(8, 8, 3, 2, 1, groups=2, alpha=0.5))
    assert octave(OctTensor(feature(layer, 4, 8), feature(layer, 4, 4))).low.shape[-1] == 2
    assert OctBatchNorm3d(eight).channels == (8, 0)
    with pytest.raises(ConfigError, match=r"got the size \[3\]; give one int or"):
        layer(eight, eight, np.array([3]))


@pytest.mark.parametrize("layer", DIMS)
def test_positional_arguments_stand_in_torchs_order(layer):
    arguments = (8, 16, 3, 1, 2, 2, 4, False)  # ..., stride, padding, dilation, groups, bias
    octave, plain = layer(*arguments), DIMS[layer](*arguments)
    octave.h2h.load_state_dict(plain.state_dict())
    x = feature(layer)

    assert torch.equal(octave(x), plain(x))
    assert [*signature(layer).parameters][:8] == [*signature(DIMS[layer]).parameters][:8]


def test_a_plain_tensor_enters_a_sequential_of_pairs():
    net = nn.Sequential(
        OctConv3d(8, 16, 3, padding="same", alpha=(0, 0.25)),
        OctBatchNorm3d((12, 4)),
        OctConv3d(16, 16, 3, padding="same", alpha=0.25),
    )

    out = net(feature(OctConv3d))

    assert isinstance(out, OctTensor)
    assert (out.high.shape[1], out.low.shape[1]) == (12, 4)


@pytest.mark.parametrize("alpha", [0, 0.5])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 3), ((1, 3, 5), (1, 2, 1))])
def test_padding_same_keeps_the_size(alpha, kernel, dilation):
    conv = OctConv3d(8, 8, kernel, padding="same", dilation=dilation, alpha=(0, alpha))
    x = feature(OctConv3d)

    out = conv(x)

    high = out if alpha == 0 else out.high
    assert high.shape[2:] == x.shape[2:]
    if alpha == 0:
        expected = F.conv3d(x, conv.h2h.weight, conv.h2h.bias, padding="same", dilation=dilation)
        torch.testing.assert_close(out, expected)


def test_a_dilated_pair_sees_as_far_as_its_kernels_reach():
    """One bright pixel of the low group reaches two pixels of the low output at dilation 2, and no
    others."""
    conv = OctConv2d(4, 4, 3, padding="same", dilation=2, alpha=0.5, bias=False)
    low = torch.zeros(1, 2, 9, 9)
    low[..., 4, 4] = 1

    out = conv(OctTensor(torch.zeros(1, 2, 18, 18), low)).low

    reached = out.abs().sum((0, 1)).nonzero().unique().tolist()
    assert reached == [2, 4, 6]


def test_the_repr_shows_what_was_asked_for():
    shown = repr(OctConv3d(64, 128, (1, 3, 3), padding="same", groups=2, alpha=0.25))

    assert shown == (
        "OctConv3d(\n  48+16 -> 96+32, alpha=0.25 -> 0.25, kernel=(1, 3, 3), stride=(1, 1, 1), "
        "padding=(0, 1, 1), groups=2\n"
    ) + "\n".join(
        repr(OctConv3d(64, 128, (1, 3, 3), padding=(0, 1, 1), groups=2, alpha=0.25)).splitlines()[
            2:
        ]
    )
    assert "dilation=(1, 2, 2)" in repr(
        OctConv3d(8, 8, (1, 3, 3), padding="same", dilation=(1, 2, 2))
    )


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (OctConv3d(8, 8, 1, alpha=0.5), torch.rand(1, 8, 2, 4, 4), r"pass OctTensor\(high, low\)"),
        (OctConv3d(8, 8, 1), torch.rand(1, 8, 4, 4), r"it takes \(N, C, T, H, W\)"),
        (OctConv2d(8, 8, 1), torch.rand(1, 8, 2, 4, 4), r"it takes \(N, C, H, W\)"),
        (OctConv2d(8, 8, 1), torch.rand(1, 6, 4, 4), "got 6 high and 0 low channels, and takes 8"),
        (
            OctConv2d(8, 8, 1),
            OctTensor(torch.rand(1, 4, 4, 4), torch.rand(1, 4, 2, 2)),
            r"without a low group.* merge\(x\)",
        ),
        (OctBatchNorm3d((4, 4)), torch.rand(1, 8, 2, 4, 4), r"pass OctTensor\(high, low\)"),
    ],
)
def test_a_feature_that_does_not_fit_gets_one_line_that_says_what_to_pass(layer, x, message):
    with pytest.raises(ConfigError, match=message) as caught:
        layer(x)

    assert "\n" not in str(caught.value)


def test_three_alphas_are_refused():
    with pytest.raises(ConfigError, match=r"one number or \(alpha_in, alpha_out\)"):
        OctConv2d(8, 8, 3, padding=1, alpha=(0, 0.25, 0.5))


@pytest.mark.parametrize("groups", [0, -2, False])
def test_fewer_groups_than_one_are_refused(groups):
    with pytest.raises(ConfigError, match="take at least 1"):
        OctConv2d(8, 8, 3, padding=1, groups=groups)


@pytest.mark.parametrize(
    ("padding", "kernel", "message"),
    [("same", 4, "only an odd kernel has a middle"), ("full", 3, "give 'same', 'valid' or a size")],
)
def test_a_padding_that_cannot_be_is_refused(padding, kernel, message):
    with pytest.raises(ConfigError, match=message):
        OctConv2d(8, 8, kernel, padding=padding)


@pytest.mark.parametrize("alpha", [0, 0.5])
@pytest.mark.parametrize("kernel", [1, (1, 3, 3), (3, 1, 1), (3, 3, 3)])
def test_no_clips_give_no_clips_and_a_gradient(kernel, alpha):
    enter = OctConv3d(3, 4, kernel, padding="same", alpha=(0, alpha))
    leave = OctConv3d(4, 4, kernel, (2, 1, 1), padding="same", alpha=(alpha, 0))
    net = compute_in_2d(nn.Sequential(enter, leave), True)

    out = merge(as_pair(net(torch.empty(0, 3, 4, 8, 8))))
    out.sum().backward()

    assert out.shape == (0, 4, 2, 8, 8)
    assert all(not parameter.grad.any() for parameter in net.parameters())
