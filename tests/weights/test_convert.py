"""Foreign image weights: recognized, renamed, and computing what they did at home."""

import logging
import re

import oracles
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.errors import CheckpointError, ConfigError
from octvideo.weights import load_weights
from octvideo.weights.convert import convert_weights, find_alpha, identify
from octvideo.weights.layouts import find_layout

TINY = {"width_per_group": 8, "num_classes": 7}


def torchvision_names(model):
    """The state of a vanilla ResNet of this package as torchvision would name it."""
    words = {"reduce": "1", "spatial": "2", "expand": "3", "first": "1", "second": "2"}
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("res"):
            stage, block, layer, kind, _, field = name.split(".")
            place = (
                f"downsample.{'01'[kind == 'bn']}"
                if layer == "shortcut"
                else f"{kind}{words[layer]}"
            )
            name = f"layer{int(stage[3]) - 1}.{block.removeprefix('block')}.{place}.{field}"
        name = (
            name.replace("stem.conv.", "conv1.")
            .replace("stem.bn.", "bn1.")
            .replace("head.fc.", "fc.")
        )
        state[name] = tensor
    return state


def d_li14_names(model):
    words = {"reduce": "1", "spatial": "2", "expand": "3"}
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("res"):
            stage, block, layer, kind, group, field = name.split(".")
            place = "downsample.0" if layer == "shortcut" else f"conv{words[layer]}"
            inner = f"conv.conv_{group}" if kind == "conv" else f"bn_{group[0]}"
            name = f"layer{int(stage[3]) - 1}.{block.removeprefix('block')}.{place}.{inner}.{field}"
        name = (
            name.replace("stem.conv.", "conv1.")
            .replace("stem.bn.", "bn1.")
            .replace("head.fc.", "fc.")
        )
        state[name] = tensor
    return state


def trained(name, **options):
    """A network whose batch norms have statistics."""
    model = create_model(name, **options).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model


def same_logits(weights, model):
    converted = create_model(**weights.model).eval()
    converted.load_state_dict(weights.state, strict=False)
    x = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(converted(x), model(x))
    return True


def test_names_that_are_not_one_a_class_are_refused(tmp_path):
    torch.save(torchvision_names(create_model("resnet18", **TINY)), tmp_path / "r.pth")
    weights = convert_weights(tmp_path / "r.pth")

    with pytest.raises(CheckpointError, match=r"r\.pth: classifies 7 classes; 2 names were given"):
        weights.checkpoint(["a", "b"], "r.pth")
    assert weights.checkpoint(list("abcdefg")).class_names == tuple("abcdefg")


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_torchvisions_layout_is_recognized(name, wrapped, tmp_path):
    model = trained(name, **TINY)
    state = torchvision_names(model)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in state.items()}} if wrapped else state,
        tmp_path / "w.pth",
    )

    weights = convert_weights(tmp_path / "w.pth")

    assert (weights.model["name"], weights.model["alpha"], weights.model["num_classes"]) == (
        name,
        0.0,
        7,
    )
    assert (weights.layout, weights.assumed) == ("torchvision's layout", True)
    assert same_logits(weights, model)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_d_li14s_octave_networks_are_recognized(prefix, tmp_path):
    model = trained("resnet26", alpha=0.5, **TINY)
    torch.save(
        {f"{prefix}{name}": tensor for name, tensor in d_li14_names(model).items()},
        tmp_path / "w.pth",
    )

    weights = convert_weights(tmp_path / "w.pth")

    assert (weights.model["name"], weights.model["alpha"]) == ("resnet26", 0.5)
    assert same_logits(weights, model)


@pytest.mark.parametrize(
    ("name", "alpha", "rename"),
    [("resnet50", 0.0, torchvision_names), ("resnet26", 0.5, d_li14_names)],
)
def test_load_weights_takes_the_same_files_as_they_are(name, alpha, rename, tmp_path):
    theirs, ours = (
        trained(name, alpha=alpha, **TINY),
        create_model(name, alpha=alpha, **TINY).eval(),
    )
    torch.save(rename(theirs), tmp_path / "w.pth")
    x = torch.randn(2, 3, 40, 40)

    report = load_weights(ours, str(tmp_path / "w.pth"))

    assert report.layout == ("d-li14" if alpha else "torchvision")
    assert len(report.loaded) == len(ours.state_dict())
    assert torch.equal(ours(x), theirs(x))


def test_d_li14s_names_become_ours():
    names = [
        "layer4.2.conv3.bn_h.running_var",
        "layer1.0.downsample.0.conv.conv_h2l.weight",
        "bn1.bias",
        "fc.weight",
    ]
    mark = "layer1.0.conv1.conv.conv_h2h.weight"

    layout = find_layout([mark, *names])
    ours = layout.names([mark, "layer1.0.conv3.bn_h.bias", *names])

    assert layout.title == "d-li14"
    assert [ours[name] for name in names] == [
        "res5.block2.expand.bn.high.running_var",
        "res2.block0.shortcut.conv.h2l.weight",
        "stem.bn.bias",
        "head.fc.weight",
    ]


def test_a_stride_at_the_first_1x1_is_taken_on_word(tmp_path):
    model = trained("resnet26", stride_1x1=True, **TINY)
    torch.save(torchvision_names(model), tmp_path / "w.pth")

    weights = convert_weights(tmp_path / "w.pth", stride_1x1=True)

    assert weights.model["stride_1x1"] is True
    assert same_logits(weights, model)


def test_a_stride_at_the_first_1x1_is_refused_of_blocks_without_one(tmp_path):
    model = trained("resnet18", **TINY)
    torch.save(torchvision_names(model), tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=r"of none .* with stride_1x1=True"):
        convert_weights(tmp_path / "w.pth", stride_1x1=True)


@pytest.mark.parametrize("name", oracles.SMALL)
def test_official_files_are_recognized(name, tmp_path):
    oracles.write_file(name, tmp_path / "w.params")
    expected, options = oracles.SMALL[name]
    by_symbol = expected.startswith("preact")

    weights = convert_weights(tmp_path / "w.params")

    assert {key: weights.model[key] for key in options} == options
    assert (weights.model["name"], weights.model["downsample"]) == (expected, "pool")
    assert weights.model["bn_eps"] == (1e-4 if by_symbol else 1e-5)
    assert weights.mean[0] * 255 == pytest.approx(124 if by_symbol else 123.68)
    assert weights.std[0] * 255 == pytest.approx(1 / 0.0167 if by_symbol else 58.393)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(oracles.ALL.keys() - oracles.SMALL.keys()))
def test_every_official_file_is_recognized(name, shared, tmp_path):
    oracles.write_shapes(name, tmp_path / "w.params", folder=shared / "oracles" / "nets")
    expected, options = oracles.ALL[name]

    weights = convert_weights(tmp_path / "w.params")

    assert (weights.model["name"], weights.model["alpha"]) == (expected, options.get("alpha", 0.0))


@pytest.mark.parametrize("alpha", [0.1, 0.125, 0.2, 0.25, 0.3, 0.375, 0.5, 0.75])
@pytest.mark.parametrize("width", [256, 1024])
def test_alpha_is_found_in_the_widest_layer(alpha, width):
    low = int(alpha * width)
    layers = {
        "a.h2h.weight": width - low,
        "a.h2l.weight": low,
        "b.h2h.weight": 12,
        "b.h2l.weight": 4,
    }

    assert (
        find_alpha({name: torch.empty(channels, 1) for name, channels in layers.items()}) == alpha
    )


def test_the_alpha_found_is_the_shortest_that_fits():
    """8 of 64 channels are .125, which .13 makes too."""
    state = {"a.h2l.weight": torch.zeros(8, 1), "a.h2h.weight": torch.zeros(56, 1)}

    assert find_alpha(state) == 0.13


def test_a_checkpoint_says_what_its_weights_assume(tmp_path):
    torch.save(torchvision_names(trained("resnet18", **TINY)), tmp_path / "w.pth")

    checkpoint = (
        convert_weights(tmp_path / "w.pth")
        .with_input([0.45], [0.2, 0.21, 0.22])
        .checkpoint(list("abcdefg"))
        .contents()
    )

    assert checkpoint["meta"]["preprocessing"]["mean"] == [0.45, 0.45, 0.45]
    assert checkpoint["meta"]["preprocessing"]["std"] == [0.2, 0.21, 0.22]
    assert checkpoint["meta"]["class_names"] == list("abcdefg")
    assert checkpoint["meta"]["model"]["bn_eps"] == 1e-5
    assert checkpoint["meta"]["model"]["downsample"] == "stride"


PREPROCESSOR = """
model = dict(
    backbone=dict(type="ResNet", depth=26),
    data_preprocessor=dict(mean=[51, 51, 102], std=[51, 51, 51], to_rgb=True),
)
"""
IN_CFG = "DATA: {MEAN: [0.4, 0.2, 0.2], STD: [0.2, 0.2, 0.2], REVERSE_INPUT_CHANNEL: true}"


@pytest.mark.parametrize("content", [{"meta": {"cfg": PREPROCESSOR}}, {"cfg": IN_CFG}])
def test_image_weights_have_the_input_that_their_file_says(content, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    state = torchvision_names(trained("resnet26", **TINY))
    if "meta" in content:
        state = mmaction2_names(state)
    torch.save({"state_dict": state, **content}, tmp_path / "w.pth")

    weights = convert_weights(tmp_path / "w.pth")
    seen = weights.checkpoint().input

    assert (seen.mean, seen.std, seen.reverse_channels) == ((0.2, 0.2, 0.4), (0.2,) * 3, True)
    assert not weights.assumed
    assert not caplog.text
    assert weights.with_input([0.45], None).mean == (0.45,) * 3
    assert "mean [0.45, 0.45, 0.45] instead of [0.2, 0.2, 0.4]" in caplog.text


def mmaction2_names(state):
    """Names of mmaction2's 2D ResNet for those of torchvision's."""
    theirs = {}
    for name, tensor in state.items():
        name = re.sub(r"\b(conv|bn)(\d)\.(\w+)$", r"conv\2.\1.\3", name)
        name = name.replace("downsample.0.", "downsample.conv.")
        name = name.replace("downsample.1.", "downsample.bn.")
        is_head = name.startswith("fc.")
        theirs[f"cls_head.fc_cls.{name[3:]}" if is_head else f"backbone.{name}"] = tensor
    return theirs


@pytest.mark.parametrize(("mean", "std"), [([0.4, 0.5], None), (None, [0.0]), ([0.4], [-1.0] * 3)])
def test_a_normalization_that_cannot_be_is_refused(mean, std, tmp_path):
    torch.save(torchvision_names(trained("resnet18", **TINY)), tmp_path / "w.pth")

    with pytest.raises(ConfigError, match=r"^mean .*; mean and std are one number or three, std"):
        convert_weights(tmp_path / "w.pth").with_input(mean, std)


def test_half_precision_weights_are_widened(tmp_path):
    half = {
        name: tensor.half()
        for name, tensor in torchvision_names(trained("resnet18", **TINY)).items()
    }
    torch.save(half, tmp_path / "w.pth")

    weights = convert_weights(tmp_path / "w.pth")

    assert weights.state["stem.conv.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(1)}, "not a ResNet"),
        (
            {"meta": {"model": {"name": "resnet50"}}, "model_state": {"w": torch.zeros(1)}},
            "is a checkpoint of this package already",
        ),
        ({"layer1.0.conv1.weight": torch.zeros(8, 8, 1, 1)}, "of none of the image networks"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=message):
        convert_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("without", [("fc.weight", "fc.bias"), ("fc.weight",), ("fc.bias",)])
@pytest.mark.parametrize("name", ["resnet18", "resnet26"])
def test_a_file_without_its_classifier_is_refused_by_what_it_lacks(name, without, tmp_path):
    state = torchvision_names(trained(name, **TINY))
    rest = {key: tensor for key, tensor in state.items() if key not in without}
    torch.save(rest, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=rf"w\.pth: is a {name} without a classifier; inf"):
        convert_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(("name", "alpha"), [("mobilenet_v1", 0.5), ("densenet121", 0.0)])
def test_other_image_networks_without_their_classifier_are_known_too(name, alpha):
    with torch.device("meta"):
        state = create_model(name, alpha=alpha, num_classes=7).state_dict()
    rest = {key: tensor for key, tensor in state.items() if not key.startswith("head.fc.")}

    with pytest.raises(CheckpointError, match=rf"is a {name} without a classifier"):
        identify(rest, "w", {})


def test_a_classifier_that_is_no_list_of_classes_is_refused():
    with torch.device("meta"):
        state = create_model("resnet26", num_classes=7).state_dict()
    del state["head.fc.weight"]

    with pytest.raises(CheckpointError, match="of none of the image networks"):
        identify({**state, "head.fc.bias": torch.tensor(1.0)}, "w", {})


def test_a_file_that_lacks_more_than_its_classifier_is_of_no_network(tmp_path):
    state = torchvision_names(trained("resnet26", **TINY))
    rest = {key: t for key, t in state.items() if not key.startswith(("fc.", "layer4.1.bn3"))}
    torch.save(rest, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match="of none of the image networks"):
        convert_weights(tmp_path / "w.pth")


def test_the_stride_1x1_resnet_classifies_as_a_plain_implementation_does(shared):
    """The shared ImageNet ResNet-50, against its definition written out with torch's functions."""
    path = shared / "data" / "weights" / "resnet50_imagenet_stride1x1.pth"
    state = {
        k: v.float()
        for k, v in torch.load(path, weights_only=True).items()
        if v.is_floating_point()
    }
    weights = convert_weights(path, stride_1x1=True)
    model = create_model(**weights.model).eval()
    model.load_state_dict(weights.state, strict=False)
    x = torch.randn(1, 3, 64, 64)

    with torch.no_grad():
        torch.testing.assert_close(model(x), plain_resnet50(state, x), rtol=1e-4, atol=1e-4)


def plain_resnet50(state, x):
    def conv_bn(x, conv, bn, stride=1, padding=0):
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        stats = (
            state[f"{bn}.{field}"] for field in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, *stats)

    x = F.max_pool2d(F.relu(conv_bn(x, "conv1", "bn1", 2, 3)), 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            out = F.relu(conv_bn(x, f"{name}.conv1", f"{name}.bn1", stride))
            out = F.relu(conv_bn(out, f"{name}.conv2", f"{name}.bn2", 1, 1))
            out = conv_bn(out, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = F.relu(out + x)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("path", ["h2l", "l2h", "l2l"])
def test_octave_paths_without_the_one_from_high_to_high_are_refused(path):
    state = {f"res2.block0.reduce.conv.{path}.weight": torch.zeros(4, 4, 1, 1)}

    with pytest.raises(CheckpointError, match=r"no res2\.block0\.reduce\.conv\.h2h\.weight"):
        identify(state, "w.pth", {})
