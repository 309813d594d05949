"""SlowFast: one clip in, two pathways, octave where rule G puts it."""

import pytest
import torch

from octvideo import create_model
from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctConv3d


def on_meta(**options):
    with torch.device("meta"):
        return create_model("slowfast_r50", **options)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(32, [0, 10, 20, 31]), (64, [0, 9, 18, 27, 36, 45, 54, 63]), (8, [0]), (20, [0, 19])],
)
def test_slow_frames_are_spread_from_the_first_to_the_last(frames, expected):
    """torch.linspace(0, T - 1, T // 8), truncated: PySlowFast's rule."""
    model = create_model("slowfast_r26", width_per_group=32)
    clip = torch.arange(float(frames)).view(1, 1, frames, 1, 1).expand(1, 3, frames, 2, 2)

    picked = model._slow_frames(clip)

    assert picked[0, 0, :, 0, 0].tolist() == expected


def test_slow_frames_may_be_every_eighth_from_the_first():
    model = create_model("slowfast_r26", width_per_group=32, slow_frames="every")
    clip = torch.arange(20.0).view(1, 1, 20, 1, 1).expand(1, 3, 20, 2, 2)

    assert model._slow_frames(clip)[0, 0, :, 0, 0].tolist() == [0, 8]


def test_laterals_may_be_bare_convolutions_and_the_fast_pathway_of_another_depth():
    model = on_meta(fusion_norm=False, depth_fast=26)

    names = [name for name, _ in model.laterals.named_parameters()]
    assert names == [f"{i}.conv.h2h.weight" for i in range(4)]
    assert (len(model.slow.res4), len(model.fast.res4)) == (6, 2)


@pytest.mark.parametrize(
    "options", [{"slow_frames": "odd"}, {"depth_fast": 34}, {"stem_strides_t": (2, 2)}]
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        on_meta(**options)


def test_octave_is_in_the_slow_pathway_up_to_res4_and_in_the_laterals_behind_octave_stages():
    model = on_meta(alpha=0.1)

    octave = {
        ".".join(name.split(".")[:2])
        for name, module in model.named_modules()
        if isinstance(module, OctConv3d) and module.out_channels.low
    }

    assert octave == {
        "slow.res2",
        "slow.res3",
        "slow.res4",
        "laterals.1",
        "laterals.2",
        "laterals.3",
    }
    assert model.laterals[0].conv.out_channels == Channels(16)
    assert model.laterals[1].conv.out_channels == Channels(48, 16)
    assert model.slow.res3.block0.reduce.conv.in_channels == Channels(224 + 48, 32 + 16)


def test_laterals_stride_over_time_and_join_both_groups():
    model = create_model("slowfast_r26", alpha=0.2, width_per_group=32).eval()
    seen = []
    model.laterals[1].register_forward_hook(lambda module, args, out: seen.append((args[0], out)))

    with torch.no_grad():
        model(torch.randn(1, 3, 24, 33, 32))

    (slow, joined) = seen[0]
    assert model.laterals[1].conv.stride == (8, 1, 1)
    assert joined.high.shape[2] == joined.low.shape[2] == 3
    assert torch.equal(joined.high[:, : slow.high.shape[1]], slow.high)
    assert torch.equal(joined.low[:, : slow.low.shape[1]], slow.low)


def test_the_last_stride_of_an_octave_slowfast_pools_and_its_fast_pathway_strides():
    model = on_meta(alpha=0.1)

    assert model.slow.res5.block0.spatial.conv.downsample == "pool"
    assert model.fast.res5.block0.spatial.conv.downsample == "stride"


def test_options_of_the_two_pathways():
    model = on_meta(beta_inv=4, fusion_kernel_size=7, fusion_conv_channel_ratio=3, speed_ratio=4)

    assert model.fast.stem.conv.out_channels == 16
    assert model.laterals[0].conv.kernel_size == (7, 1, 1)
    assert model.laterals[0].conv.stride == (4, 1, 1)
    assert model.laterals[0].conv.out_channels == Channels(48)
    assert model(torch.empty(1, 3, 12, 32, 32, device="meta")).shape == (1, 400)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_inv": 7}, "beta_inv is 7; it divides the slow width, here 64"),
        ({"fusion_kernel_size": 4}, "fusion_kernel_size is 4; it is odd"),
        ({"block": "preact"}, "post-activation blocks only"),
        ({"nonlocal_location_fast": ((), (9,), (), ())}, "names blocks \\(9,\\) of res3"),
    ],
)
def test_what_a_slowfast_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        on_meta(**options)


def test_too_few_frames_for_one_slow_frame_are_refused():
    model = create_model("slowfast_r26", width_per_group=32)

    with pytest.raises(
        ConfigError, match="7 frames of 32 x 32 pixels; its strides need at least 8 frames"
    ):
        model(torch.randn(1, 3, 7, 32, 32))
