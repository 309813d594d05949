"""Which channels of vanilla weights become low ones."""

import pytest
import torch
from trained_norms import vary_norms

from octvideo import create_model
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import inflate
from octvideo.weights.sort_channels import smoothest_last
from octvideo.weights.split_effect import stage_errors

# Drawn with a seed: channels that lose nearly the same may change places when they are sorted again.
CLIPS = torch.nn.functional.interpolate(
    torch.randn(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0)),
    scale_factor=(1, 4, 4),
    mode="trilinear",
)
SMALL = {"width_per_group": 16, "num_classes": 10}
SLOWFAST = {"name": "slowfast_r26", "speed_ratio": 2}


def image_network(name="resnet26", **options):
    return vary_norms(create_model(name, **SMALL, **options).eval())


def video_network(alpha=0.5, name="c2d_r26", **options):
    return create_model(name, alpha=alpha, width_rule="int", **SMALL, **options)


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("resnet26", {}),
        ("preact_resnet26", {"block": "preact"}),
        ("resnet26", {"name": "i3d_r26"}),
        ("resnet26", SLOWFAST),
    ],
)
def test_the_image_network_computes_the_same(name, video):
    model, image = image_network(name), torch.randn(2, 3, 64, 64)
    expected = model(image)

    state = smoothest_last(model.state_dict(), video_network(**video), CLIPS, Assumptions.of(model))
    changed = [
        key for key, value in model.state_dict().items() if not torch.equal(value, state[key])
    ]
    model.load_state_dict(state)

    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-4)
    kernels = {key for key in state if ".conv." in key and key != "stem.conv.weight"}
    assert kernels | {"head.fc.weight"} <= set(changed)


def test_a_channel_that_carries_nothing_goes_to_the_end():
    model = image_network()
    norm = model.get_submodule("res3.block0.reduce.bn.high")
    with torch.no_grad():
        norm.bias.fill_(3)  # so that hardly another is silent
        norm.weight[5] = norm.bias[5] = 0

    state = smoothest_last(model.state_dict(), video_network(), CLIPS, Assumptions.of(model))

    assert (state["res3.block0.reduce.bn.high.weight"] == 0).nonzero() >= 28  # of 32


@pytest.mark.parametrize(("name", "block"), [("resnet26", "post"), ("preact_resnet26", "preact")])
def test_weights_without_a_classifier_are_sorted_too(name, block):
    model = image_network(name)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("head.")}

    found = smoothest_last(
        dict(reversed(state.items())), video_network(block=block), CLIPS, Assumptions.of(model)
    )

    assert found.keys() == state.keys()
    assert not torch.equal(
        found["res5.block1.expand.conv.h2h.weight"], state["res5.block1.expand.conv.h2h.weight"]
    )


def test_weights_of_a_network_that_pools_are_measured_with_pools():
    model = image_network(downsample="pool")
    expected = model(CLIPS[:, :, 0])

    state = smoothest_last(model.state_dict(), video_network(), CLIPS, Assumptions.of(model))
    model.load_state_dict(state)

    torch.testing.assert_close(model(CLIPS[:, :, 0]), expected, rtol=1e-4, atol=1e-4)


def test_sorted_weights_stay_as_they_are():
    model = image_network()
    assumes = Assumptions.of(model)

    once = smoothest_last(model.state_dict(), video_network(), CLIPS, assumes)
    twice = smoothest_last(once, video_network(), CLIPS, assumes)

    assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("options", [{}, SLOWFAST])
def test_less_is_lost_than_by_dividing_as_the_channels_come(options):
    model, video = image_network(), video_network(downsample="stride", **options)
    state, assumes = model.state_dict(), Assumptions.of(model)
    inflate(state, video, assumes)
    plain = stage_errors(state, video, CLIPS, assumes)

    ordered = smoothest_last(state, video, CLIPS, assumes)
    inflate(ordered, video, assumes)

    assert all(
        a.error < b.error
        for a, b in zip(stage_errors(ordered, video, CLIPS, assumes), plain, strict=True)
    )


def test_kernels_of_groups_stay_where_they_are():
    model = image_network(num_groups=2, bottleneck_width=32)
    video = video_network(num_groups=2)

    state = smoothest_last(model.state_dict(), video, CLIPS, Assumptions.of(model))

    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
