"""Which channels of vanilla weights become low ones."""

import pytest
import torch
from torch.nn import functional as F
from trained_norms import vary_norms

from octvideo import create_model
from octvideo.counted_run import noting
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import inflate
from octvideo.weights.sort_channels import BRANCH, smoothest_last
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


def losses(vanilla, readers, clips):
    """Per channel that these layers convolve: what means of 2 x 2 remove, times the kernels'
    energy."""
    convs = {name: vanilla.get_submodule(f"{name}.conv.h2h") for name in readers}
    inputs = {}
    with noting(convs, lambda name, given, _: inputs.__setitem__(name, given[0])), torch.no_grad():
        vanilla.eval()(clips)
    total = []
    for name, conv in convs.items():
        x = inputs[name]
        means = F.interpolate(F.avg_pool3d(x, (1, 2, 2)), scale_factor=(1, 2, 2), mode="nearest")
        energy = (x - means).square().mean((0, 2, 3, 4))
        total.append(energy * conv.weight.detach().square().sum((0, 2, 3, 4)))
    return total


# Of the maps of a network of two blocks in each stage: the layers that convolve them.
OWN = [[f"res{s}.block{b}.{part}"] for s in (2, 3, 4, 5) for b in (0, 1) for part in BRANCH[1:]]
ENTRIES = {s: [f"res{s}.block0.reduce", f"res{s}.block0.shortcut"] for s in (2, 3, 4, 5)}
SHARED = [[f"res{s}.block1.reduce", *ENTRIES.get(s + 1, [])] for s in (2, 3, 4, 5)]


@pytest.mark.parametrize("options", [{}, SLOWFAST])
def test_in_every_map_the_channels_that_lose_most_are_first(options):
    torch.manual_seed(0)
    video = video_network(downsample="stride", **options)
    source = video_network(0.0, **options) if options else image_network()
    state, assumes = vary_norms(source.eval()).state_dict(), Assumptions.of(image_network())
    ordered = smoothest_last(state, video, CLIPS, assumes)
    vanilla = video_network(0.0, **options)
    inflate(ordered, vanilla, assumes)
    before = "slow." if options else ""

    for layers in OWN + SHARED:
        found = losses(vanilla, [f"{before}{name}" for name in layers], CLIPS)
        own = min(map(len, found))  # behind them stand the channels of a lateral
        is_in_order(sum(loss[:own] for loss in found))
    for stage in (2, 3, 4, 5) if options else ():
        added = vanilla.laterals[stage - 2].conv.out_channels.high
        found = losses(vanilla, [f"{before}{name}" for name in ENTRIES[stage]], CLIPS)
        is_in_order(sum(loss[-added:] for loss in found))


def is_in_order(loss):
    assert (loss[1:] <= loss[:-1] * (1 + 1e-4)).all()
    assert loss[0] > loss[-1]


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
