"""Inflation: a clip that repeats one image gives the image network's features; what cannot be is
refused by name."""

import pytest
import torch
from reparametrized import REPARAMETRIZED
from still_clip import FULL_FRAMES, error_on_a_still_clip
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from octvideo import create_model
from octvideo.errors import CheckpointError
from octvideo.layers import Channels, channels_last
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import inflate, inflate_conv, join_paths, split_kernel

OFFICIAL = {"stages": (2, 3, 4), "width_rule": "int"}  # what the image networks do


def randomize(model: nn.Module) -> nn.Module:
    """Norms as after training: none is the identity, no branch starts at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.3, 0.8)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def image_model(name: str, **options: object) -> nn.Module:
    return randomize(create_model(name, num_classes=10, **options))


@pytest.mark.parametrize(
    ("image", "alpha", "options"),
    [
        ("resnet26", 0.0, {}),
        ("resnet26", 0.125, {}),
        ("resnet26", 0.5, {}),
        ("resnet26", 0.0, {"stride_1x1": True}),
        ("resnet26", 0.25, {"stride_1x1": True}),
        ("preact_resnet26", 0.25, {"block": "preact"}),
    ],
)
def test_c2d_sees_the_image_in_every_frame(image: str, alpha: float, options: dict) -> None:
    model_2d = image_model(image, alpha=alpha, **options)
    model_3d = create_model("c2d_r26", alpha=alpha, num_classes=6, **options, **OFFICIAL)

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert report.is_exact
    assert error_on_a_still_clip(model_2d, model_3d, 4, slice(None)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5])
def test_a_resnet50_is_seen_by_c2d_in_every_frame_and_by_i3d_where_its_window_is_full(
    alpha: float,
) -> None:
    model_2d = image_model("resnet50", alpha=alpha, width_per_group=32)
    c2d, i3d = (
        create_model(f"{name}_r50", alpha=alpha, num_classes=6, width_per_group=32, **OFFICIAL)
        for name in ("c2d", "i3d")
    )

    for model_3d in (c2d, i3d):
        inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert error_on_a_still_clip(model_2d, c2d, 4, slice(None)) < 1e-5
    assert error_on_a_still_clip(model_2d, i3d, 40, FULL_FRAMES) < 1e-5
    assert error_on_a_still_clip(model_2d, i3d, 40, slice(0, 1)) > 1e-3


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_the_slow_pathway_sees_the_image_where_its_window_is_full_and_does_not_hear_the_fast_one(
    alpha: float,
) -> None:
    model_2d = image_model("resnet26", alpha=alpha, width_per_group=32)
    options = {
        "alpha": alpha,
        "num_classes": 10,
        "width_per_group": 32,
        "speed_ratio": 2,
        **OFFICIAL,
    }
    model_3d = create_model("slowfast_r26", **options)
    randomize(model_3d)  # laterals that say something

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert report.is_exact
    assert set(report.fresh) == {"fast", "laterals", "head.fc"}
    assert error_on_a_still_clip(model_2d, model_3d, 24, slice(5, 7)) < 1e-5
    assert error_on_a_still_clip(model_2d, model_3d, 24, slice(0, 1)) > 1e-3


def test_vanilla_weights_are_divided_for_an_octave_slow_pathway() -> None:
    model_2d = image_model("resnet26", width_per_group=32)
    model_3d = create_model("slowfast_r26", alpha=0.25, num_classes=6, width_per_group=32)
    fast = {name: tensor.clone() for name, tensor in model_3d.fast.state_dict().items()}

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    reduce = model_3d.slow.res3.block0.reduce.conv  # 128 channels of res2 and 32 of the lateral
    kernel = join_paths({path: conv.weight.sum(2) for path, conv in reduce.paths.items()})
    high, low = torch.split(kernel, list(reduce.in_channels), dim=1)
    own = torch.cat([high[:, :96], low[:, :32]], dim=1)
    torch.testing.assert_close(own, model_2d.state_dict()["res3.block0.reduce.conv.h2h.weight"])
    assert all(part.shape[1] and not part.any() for part in (high[:, 96:], low[:, 32:]))
    assert report.split["res3.block0.reduce.conv"] == "64 -> 48+16"
    assert all(
        torch.equal(tensor, model_3d.fast.state_dict()[name]) for name, tensor in fast.items()
    )


def test_laterals_wider_than_the_slow_pathway_are_not_heard_either() -> None:
    model_2d = image_model("resnet26", width_per_group=16)
    options = {
        "width_per_group": 16,
        "beta_inv": 1,
        "alpha": 0.1,
        "width_rule": "round16",
        "speed_ratio": 2,
    }
    model_3d = create_model("slowfast_r26", num_classes=6, **options)

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    reduce = model_3d.slow.res3.block0.reduce.conv
    assert reduce.in_channels.low  # all of them the lateral's
    assert not reduce.paths["l2h"].weight.any()
    assert "res3.block0.reduce.conv" in report.copied


def test_what_laterals_add_is_learned_from_the_first_step() -> None:
    model_2d = image_model("resnet26", width_per_group=16)
    model_3d = create_model("slowfast_r26", num_classes=6, width_per_group=16, speed_ratio=2)
    inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    model_3d.train()(torch.randn(2, 3, 4, 64, 64)).square().sum().backward()

    for number in (2, 3, 4, 5):
        weight = model_3d.slow.stage(number)[0].reduce.conv.paths["h2h"].weight
        assert not weight[:, -4:].any()  # a lateral brings four channels or more
        assert weight.grad[:, -4:].any()


def test_the_classifier_is_taken_when_the_classes_agree() -> None:
    model_2d = image_model("resnet26", alpha=0.25, width_per_group=16)
    model_3d = create_model(
        "c2d_r26", alpha=0.25, num_classes=10, width_per_group=16, **OFFICIAL
    ).eval()
    image = torch.randn(2, 3, 64, 64)

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert not report.fresh
    torch.testing.assert_close(
        model_3d(image.unsqueeze(2).expand(-1, -1, 4, -1, -1)), model_2d(image)
    )


def test_kernels_are_repeated_and_divided() -> None:
    weight = torch.randn(4, 3, 7, 7)

    inflated = inflate_conv(weight, 5)

    assert inflated.shape == (4, 3, 5, 7, 7)
    torch.testing.assert_close(inflated.sum(2), weight)


@pytest.mark.parametrize(
    "split",
    [(Channels(5, 3), Channels(4, 2)), (Channels(8), Channels(4, 2)), (Channels(8), Channels(6))],
)
def test_joined_paths_are_the_kernel_that_was_split(split: tuple[Channels, Channels]) -> None:
    weight = torch.randn(split[1].total, split[0].total, 3, 3)

    paths = split_kernel(weight, *split)

    assert len(paths) == (1 + bool(split[0].low)) * (1 + bool(split[1].low))
    torch.testing.assert_close(join_paths(paths), weight)


def test_vanilla_weights_enter_an_octave_network_and_are_exact_on_a_plain_picture() -> None:
    model_2d = image_model("resnet26", width_per_group=32)
    model_3d = create_model("c2d_r26", alpha=0.25, num_classes=10, width_per_group=32).eval()

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))
    gray = torch.full((1, 3, 640, 640), 0.3)
    with torch.no_grad():
        (features,) = model_3d.features(gray.unsqueeze(2).expand(-1, -1, 2, -1, -1))

    # Far from the border a picture of one color has features constant in space, whatever the
    # groups.
    torch.testing.assert_close(features[0, :, 0, 10, 10], model_2d.features(gray)[0][0, :, 10, 10])
    assert report.split["res3.block0.reduce.conv"] == "64 -> 48+16"
    assert "res2.block0.expand.conv" in report.split
    assert any(line.startswith("split in res5: ") for line in report.lines())


def test_another_width_rule_or_other_stages_are_reported_layer_by_layer() -> None:
    model_2d = image_model("resnet26", alpha=0.125)
    model_3d = create_model("c2d_r26", alpha=0.2, num_classes=6, stages=(3,))

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert report.merged["res2.block1.spatial.conv"] == "56+8 -> 64"
    assert report.split["res3.block1.spatial.conv"] == "112+16 -> 96+32"
    assert report.fresh == {"head.fc": "10 classes in the image weights, 6 in the network"}
    assert "res5.block1.spatial.conv" in report.copied
    layers = {name for name, module in model_3d.named_modules() if hasattr(module, "paths")} | {
        "stem.conv",
        "head.fc",
    }
    assert layers == {*report.copied, *report.split, *report.merged, *report.fresh}


def test_nonlocal_blocks_start_fresh_and_are_announced() -> None:
    model_2d = image_model("resnet26", width_per_group=16)
    model_3d = create_model("i3d_nln_r26", num_classes=10, width_per_group=16)
    before = {
        name: tensor.clone() for name, tensor in model_3d.state_dict().items() if "nonlocal" in name
    }

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert set(report.fresh) == {"res3.nonlocal1", "res4.nonlocal1"}
    assert all(torch.equal(tensor, model_3d.state_dict()[name]) for name, tensor in before.items())


def test_another_eps_is_folded_into_the_scales() -> None:
    model_2d = image_model("resnet26", bn_eps=1e-2, width_per_group=16)
    model_3d = create_model("c2d_r26", num_classes=6, width_per_group=16)

    report = inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert error_on_a_still_clip(model_2d, model_3d, 2, slice(None)) < 1e-5
    assert (
        "the weights' BN eps 0.01 is folded into the scales; the network's is 1e-05" in report.notes
    )


def test_what_the_weights_do_not_say_is_announced() -> None:
    model_2d = image_model("resnet26", width_per_group=16)
    model_3d = create_model("c2d_r26", num_classes=6, width_per_group=16)

    notes = inflate(model_2d.state_dict(), model_3d).notes + Assumptions().check_input(
        (0.45,) * 3, (0.225,) * 3, True
    )

    order = "DATA.REVERSE_INPUT_CHANNEL True"
    for setting in ("RESNET.STRIDE_1X1 False", "BN eps", "DATA.MEAN", "DATA.STD", order):
        assert any(setting in note for note in notes)


@pytest.mark.parametrize(
    ("image", "image_options", "video", "video_options", "message"),
    [
        ("resnet26", {"stride_1x1": True}, "c2d_r26", {}, "set RESNET.STRIDE_1X1 True"),
        ("resnet26", {}, "c2d_r26", {"stride_1x1": True}, "set RESNET.STRIDE_1X1 False"),
        (
            "resnet26",
            {"alpha": 0.25},
            "c2d_r26",
            {"alpha": 0.25, "downsample": "stride"},
            "OCTCONV.DOWNSAMPLE pool",
        ),
        ("preact_resnet26", {}, "c2d_r26", {"block": "preact"}, "set OCTCONV.DOWNSAMPLE stride"),
        ("preact_resnet26", {}, "c2d_r26", {}, "set RESNET.BLOCK preact"),
        ("resnet26", {}, "c2d_r26", {"block": "preact"}, "set RESNET.BLOCK post"),
        ("resnet50", {}, "c2d_r26", {}, "no place in the network; RESNET.DEPTH"),
        ("resnet26", {}, "c2d_r50", {}, "lack res2.block2"),
        ("resnet18", {}, "c2d_r26", {}, "lack res2.block0.reduce"),
        (
            "resnet26",
            {},
            "c2d_r26",
            {"width_per_group": 8},
            r"res2.* RESNET.DEPTH, WIDTH_PER_GROUP",
        ),
        ("resnet26", {"stem": "deep32"}, "c2d_r26", {}, r"stem.conv.weight is \(16, 8, 3, 3\)"),
        (
            "resnet26",
            {"stem_pool": "conv"},
            "c2d_r26",
            {},
            r"stem.pool.conv.weight .* has no place",
        ),
        ("resnet26", {"stride_last": True}, "c2d_r26", {}, "strides at the last 1x1"),
        ("resnet26", {"stride_1x1": True}, "slowfast_r26", {}, "set RESNET.STRIDE_1X1 True"),
        ("resnet50", {}, "slowfast_r26", {}, "no place in the network; RESNET.DEPTH"),
        ("preact_resnet26", {}, "slowfast_r26", {}, "SlowFast takes those of a post-activation"),
    ],
)
def test_a_network_that_the_weights_do_not_fit_is_refused_and_left_alone(
    image: str, image_options: dict, video: str, video_options: dict, message: str
) -> None:
    model_2d = create_model(image, **{"width_per_group": 16, "num_classes": 10, **image_options})
    model_3d = create_model(video, **{"width_per_group": 16, "num_classes": 6, **video_options})
    before = {name: tensor.clone() for name, tensor in model_3d.state_dict().items()}

    with pytest.raises(CheckpointError, match=message) as caught:
        inflate(model_2d.state_dict(), model_3d, Assumptions.of(model_2d))

    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, model_3d.state_dict()[name]) for name, tensor in before.items())


def test_an_input_normalized_otherwise_is_refused_with_the_setting() -> None:
    assumes = Assumptions(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    assert assumes.check_input((0.4850, 0.4563, 0.406), (0.229, 0.224, 0.225), False) == []
    with pytest.raises(CheckpointError, match=r"set DATA.MEAN \[0.485, 0.456, 0.406\]"):
        assumes.check_input((0.45,) * 3, (0.229, 0.224, 0.225), False)
    with pytest.raises(CheckpointError, match=r"set DATA.STD \[0.229, 0.224, 0.225\]"):
        assumes.check_input((0.485, 0.456, 0.406), (0.25,) * 3, False)


@pytest.mark.parametrize("reverse", [True, False])
def test_channels_in_another_order_are_refused_with_the_setting(reverse: bool) -> None:
    assumes = Assumptions(reverse_channels=reverse)
    setting = f"set DATA.REVERSE_INPUT_CHANNEL {reverse}$"

    assert assumes.check_input((0.45,) * 3, (0.225,) * 3, reverse)
    with pytest.raises(CheckpointError, match=setting):
        assumes.check_input((0.45,) * 3, (0.225,) * 3, not reverse)


def test_grouped_kernels_are_copied_but_never_divided() -> None:
    model_2d = create_model("resnet26", num_groups=4, width_per_group=16)
    same = create_model("c2d_r26", num_groups=4, width_per_group=16, num_classes=6)
    octave = create_model("c2d_r26", num_groups=4, width_per_group=16, num_classes=6, alpha=0.5)

    assert inflate(model_2d.state_dict(), same, Assumptions.of(model_2d)).is_exact
    with pytest.raises(CheckpointError, match="4 groups, whose kernels cannot be divided"):
        inflate(model_2d.state_dict(), octave, Assumptions.of(model_2d))


def test_float16_weights_are_read_as_numbers() -> None:
    model_2d = image_model("resnet26", width_per_group=16)
    state: dict[str, Tensor] = {
        name: tensor.half() for name, tensor in model_2d.state_dict().items()
    }
    model_3d = create_model("c2d_r26", num_classes=6, width_per_group=16)

    inflate(state, model_3d)

    assert error_on_a_still_clip(model_2d, model_3d, 2, slice(None)) < 1e-2


@pytest.mark.parametrize("computed", [*REPARAMETRIZED, weight_norm])
def test_weights_that_the_network_computes_are_refused_and_left_alone(computed) -> None:
    state = create_model("resnet26", num_classes=5, width_per_group=16).state_dict()
    model = channels_last(create_model("i3d_r26", num_classes=5, width_per_group=16), False)
    computed(model.get_submodule("res3.block0.reduce.conv").h2h)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(
        CheckpointError, match=r"^res3\.block0\.reduce\.conv\.h2h\.weight .* is computed, .*; fill"
    ):
        inflate(state, model)

    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
