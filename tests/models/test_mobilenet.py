"""MobileNets: which widths are divided."""

import pytest
import torch

from octvideo import create_model
from octvideo.errors import ConfigError


def blocks(name, **options):
    with torch.device("meta"):
        return create_model(name, alpha=0.5, **options).blocks


def test_v1_is_octave_from_its_first_pointwise_to_its_eleventh():
    divided = [bool(block.pointwise.conv.out_channels.low) for block in blocks("mobilenet_v1")]

    assert divided == [True] * 10 + [False] * 3
    assert blocks("mobilenet_v1").block11.depthwise.conv.in_channels.low == 256


def test_depthwise_convolutions_exchange_nothing():
    for block in blocks("mobilenet_v1"):
        assert set(block.depthwise.conv.paths) <= {"h2h", "l2l"}


def test_v2_keeps_its_residual_path_undivided():
    divided = [bool(block.depthwise.conv.in_channels.low) for block in blocks("mobilenet_v2")]
    ends = [
        (block.expand.conv.in_channels.low, block.project.conv.out_channels.low)
        for block in blocks("mobilenet_v2")
    ]

    assert divided == [True] * 13 + [False] * 4
    assert set(ends) == {(0, 0)}


def test_v2_keeps_the_expansion_of_its_first_block():
    assert blocks("mobilenet_v2").block1.expand.conv.out_channels.total == 32


@pytest.mark.parametrize(("width", "last"), [(0.5, 1280), (1.0, 1280), (1.125, 1440)])
def test_v2_widens_its_last_layer_only_above_one(width, last):
    with torch.device("meta"):
        model = create_model("mobilenet_v2", width=width)

    assert model.head.fc.in_features == last


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_a_width_that_leaves_a_layer_no_channel_is_refused(name):
    with pytest.raises(ConfigError, match=r"width is 0\.01; it leaves none of the 32 channels"):
        create_model(name, width=0.01)
