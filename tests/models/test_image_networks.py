"""Image networks: sizes of the paper, where the pair begins and ends, any input, and what they
share with video."""

import pytest
import torch
from torch import nn

from octvideo import create_model, list_models
from octvideo.complexity import count
from octvideo.errors import ConfigError
from octvideo.layers import OctConv2d
from octvideo.models.image_options import ImageOptions
from octvideo.models.registry import MODELS

IMAGE_MODELS = [name for name in list_models() if issubclass(MODELS[name].options, ImageOptions)]

# Parameters in millions, multiply-adds in G of convolutions and linear layers at 224 px, as counted
# from the official definitions (design facts, section 2; the paper's Tables 2-5 print them
# rounded).
RESNET_50_MACS = {0: 4.089, 0.125: 3.565, 0.25: 3.104, 0.5: 2.367, 0.75: 1.880}
RESNEXT_50 = {"stem": "deep8", "stem_pool": "conv"}
SIZES = [
    *(
        ("preact_resnet50", {"alpha": alpha}, 25.553, macs)
        for alpha, macs in RESNET_50_MACS.items()
    ),
    *(("resnet50", {"alpha": alpha}, 25.557, macs) for alpha, macs in RESNET_50_MACS.items()),
    ("preact_resnet26", {"alpha": 0.25}, 15.991, 1.858),
    ("preact_resnext50_32x4d", {"alpha": 0.25}, 25.025, 3.171),
    ("preact_resnext50_32x4d", {"alpha": 0.5}, 25.025, 2.387),
    ("preact_se_resnet50", {"alpha": 0.125}, 28.08, 3.57),
    ("mobilenet_v1", {"alpha": 0.375, "width": 0.75}, 2.586, 0.2114),
    ("mobilenet_v1", {"alpha": 0.5}, 4.232, 0.3182),
    ("mobilenet_v2", {"alpha": 0.375}, 3.506, 0.2540),
    ("mobilenet_v2", {"alpha": 0.5, "width": 1.125}, 4.243, 0.2928),
    ("resnet50_glore", {}, 30.478, 5.162),
    ("resnet50_glore", {"alpha": 0.5}, 30.478, 3.151),
    ("resnet50", {"alpha": 0.5, "stem_pool": "conv"}, 25.594, 2.483),
    ("resnext50_32x4d", {"alpha": 0.5, **RESNEXT_50}, 25.078, 2.655),
]
LARGE_SIZES = [
    ("preact_resnext101_32x4d", {"alpha": 0.25}, 224, 44.174, 5.684),
    ("preact_resnext101_32x4d", {"alpha": 0.5}, 224, 44.174, 4.023),
    (
        "resnext101_32x4d",
        {"alpha": 0.5, "stem": "deep8", "stem_pool": "bottleneck"},
        224,
        44.207,
        4.249,
    ),
    (
        "resnext101_32x4d",
        {"alpha": 0.5, "blocks": (4, 9, 18, 3), "stem_pool": "conv"},
        224,
        40.067,
        4.234,
    ),
    ("resnet152_v1f", {"alpha": 0.125}, 224, 60.222, 10.819),
    ("resnet152_v1f", {"alpha": 0.125}, 320, 60.222, 22.078),
    ("resnet152_v1e", {"alpha": 0.125, "se": True}, 224, 66.841, 10.839),
    ("resnet152_v1e", {"alpha": 0.125, "se": True}, 320, 66.841, 22.111),
]


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def small(name, **options):
    """A network of few channels, fast to run."""
    narrow = {"width_per_group": 16} if "resne" in name and "_cifar" not in name else {}
    if name == "densenet121":
        narrow = {"layers": (2, 2, 2, 2), "growth_rate": 8, "stem_width": 16}
    elif name.startswith("mobilenet"):
        narrow = {"width": 0.25}
    if MODELS[name].fixed.get("blocks"):
        narrow["blocks"] = (1,) * len(MODELS[name].fixed["blocks"])
    return create_model(name, **{"num_classes": 10, **narrow, **options}).eval()


def octave_convolutions(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, OctConv2d)}


@pytest.mark.parametrize(("name", "options", "parameters", "macs"), SIZES)
def test_sizes_are_the_papers(name, options, parameters, macs):
    cost = count(on_meta(name, **options), (3, 224, 224))

    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=1e-3)
    assert cost.macs / 1e9 == pytest.approx(macs, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "size", "parameters", "macs"), LARGE_SIZES)
def test_sizes_of_large_networks_are_the_papers(name, options, size, parameters, macs):
    cost = count(on_meta(name, **options), (3, size, size))

    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=1e-3)
    assert cost.macs / 1e9 == pytest.approx(macs, rel=1e-3)


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_network_builds_rebuilds_and_gives_logits(name):
    model = small(name, alpha=0.25)

    again = create_model(**model.config)

    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 10)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert again.config == model.config


@pytest.mark.parametrize(
    "name", ["resnet50", "preact_resnet26", "resnet152_v1f", "densenet121", "mobilenet_v2"]
)
@pytest.mark.parametrize("size", [33, 55, 91])
def test_odd_maps_are_normal_inputs(name, size):
    model = small(name, alpha=0.5)

    scores = model.window_scores(torch.randn(2, 3, size, size + 6))

    assert scores.shape == (2, 10)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


@pytest.mark.parametrize("name", ["resnet50", "preact_resnet50", "resnext50_32x4d"])
def test_the_pair_runs_from_the_first_block_of_res2_to_the_first_of_res5(name):
    layers = octave_convolutions(on_meta(name, alpha=0.25))

    begins = [n for n, conv in layers.items() if conv.out_channels.low and not conv.in_channels.low]
    ends = [n for n, conv in layers.items() if conv.in_channels.low and not conv.out_channels.low]

    assert begins == ["res2.block0.reduce.conv", "res2.block0.shortcut.conv"]
    assert ends == ["res5.block0.reduce.conv", "res5.block0.shortcut.conv"]


@pytest.mark.parametrize("alpha", [0, 0.25])
def test_only_the_vanilla_network_strides_its_convolutions(alpha):
    model = on_meta("resnet50", alpha=alpha)

    strided = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride[0] > 1
    }

    in_blocks = {
        f"res{i}.block0.{layer}.conv.h2h" for i in (3, 4, 5) for layer in ("spatial", "shortcut")
    }
    assert strided == ({"stem.conv"} if alpha else {"stem.conv", *in_blocks})


def test_alpha_zero_can_downsample_as_octave_networks_do():
    layers = octave_convolutions(on_meta("resnet26", downsample="pool"))

    assert {layer.downsample for layer in layers.values()} == {"pool"}


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("resnet50", {}, "spatial"),
        ("resnet50", {"stride_1x1": True}, "reduce"),
        ("resnet152_v1e", {}, "expand"),
    ],
)
def test_where_the_stride_of_a_stage_sits(name, options, place):
    layers = octave_convolutions(on_meta(name, **options))

    strided = {name.split(".")[-2] for name, layer in layers.items() if layer.stride[0] == 2}

    assert strided == {place, "shortcut"}


@pytest.mark.parametrize("block", ["post", "preact"])
@pytest.mark.parametrize("alpha", [0, 0.25])
def test_tensors_are_named_as_in_the_video_network(block, alpha):
    image = on_meta("resnet26", block=block, alpha=alpha)
    video = on_meta("c2d_r26", block=block, alpha=alpha, stages=(2, 3, 4), width_rule="int")

    assert image.state_dict().keys() == video.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "eps"), [("resnet26", 1e-5), ("preact_resnet26", 1e-4), ("mobilenet_v1", 1e-5)]
)
def test_batch_norm_has_the_official_eps(name, eps):
    for options, expected in (({}, eps), ({"bn_eps": 1e-3}, 1e-3)):
        model = on_meta(name, **options)

        assert {m.eps for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {expected}


def test_small_cifar_networks_keep_32_pixels_until_their_second_stage():
    model = create_model("resnet20_cifar").eval()

    (features,) = model.features(torch.randn(1, 3, 32, 32))

    assert features.shape == (1, 64, 8, 8)
    assert model.head.fc.out_features == 10
    assert (
        0.27 < sum(p.numel() for p in model.parameters()) / 1e6 < 0.28
    )  # printed as .27 M (He et al. 2016, table 6)


def test_a_cifar_stem_suits_the_large_networks_too():
    model = small("resnet50", stem="3x3", stem_pool="none", alpha=0.125)

    assert model.features(torch.randn(1, 3, 32, 32))[0].shape[-2:] == (4, 4)


def test_global_reasoning_starts_as_the_identity():
    torch.manual_seed(1)
    with_unit = small("resnet50_glore", blocks=(1, 1, 2, 1), glore_location=(0, 1), alpha=0.25)
    without = create_model(**{**with_unit.config, "glore_location": ()}).eval()
    without.load_state_dict(with_unit.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)

    assert [name for name, _ in with_unit.res4.named_children()] == [
        "block0",
        "glore0",
        "block1",
        "glore1",
    ]
    torch.testing.assert_close(with_unit(x), without(x))
    with_unit.res4.glore0.bn.high.weight.data.fill_(1.0)
    assert not torch.allclose(with_unit(x), without(x))


@pytest.mark.parametrize(
    "name", ["resnet50", "preact_se_resnet50", "resnet50_glore", "mobilenet_v1"]
)
def test_every_parameter_learns(name):
    model = small(
        name, alpha=0.25, **({"zero_init_final_bn": False} if "resnet" in name else {})
    ).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)

    model(torch.randn(2, 3, 64, 64)).square().sum().backward()

    assert [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, "did you mean"),
        ("resnet50", {"widht_per_group": 32}, "did you mean width_per_group"),
        ("mobilenet_v1", {"stem": "3x3"}, "mobilenet_v1 has no option 'stem'"),
        ("resnet50", {"alpha": 1.0}, r"alpha lies|alpha is 1\.0"),
        ("resnet50", {"stem": "5x5"}, "stem is '5x5'; it is one of '7x7'"),
        ("mobilenet_v2", {"downsample": "max"}, "downsample is 'max'"),
        (
            "resnet50",
            {"stride_1x1": True, "stride_last": True},
            "a block has its stride in one place",
        ),
        ("preact_resnext50_32x4d", {"alpha": 0.125}, "groups must divide every branch"),
        (
            "resnet50",
            {"glore_location": (6,)},
            "glore_location names block 6 of res4; it has blocks 0..5",
        ),
        ("resnet50_glore", {"blocks": (2, 2)}, "names block 1 of res4; there is no res4: leave it"),
        ("resnet18", {"num_groups": 32}, "num_groups is 32; it is an option of bottlenecks"),
        ("resnet34", {"bottleneck_width": 128}, "bottleneck_width is 128; it is an option of"),
        ("resnet20_cifar", {"stride_1x1": True}, "stride_1x1 is True; it is an option of"),
        ("resnet50", {"basic": True, "stride_last": True}, "stride_last is True; it is an option"),
        (
            "densenet121",
            {"layers": (0,) * 4, "stem_width": 4, "growth_rate": 8, "alpha": 0.5},
            "stem_width is 4; it leaves none of the 1 channels",
        ),
        (
            "resnet152_v1f",
            {"width_per_group": 4},
            "width_per_group is 4; it leaves none of the 8 channels",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)


def test_a_clip_is_no_image():
    with pytest.raises(ConfigError, match=r"it takes images \(N, 3, H, W\)"):
        small("resnet26")(torch.zeros(1, 3, 8, 32, 32))
