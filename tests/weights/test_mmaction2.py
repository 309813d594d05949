"""mmaction2's checkpoints give mmaction2's outputs, and what computes otherwise is refused by
name."""

import json
import logging
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import octvideo
from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.weights import load_weights
from octvideo.weights.convert import TORCHVISION_MEAN, convert_weights
from octvideo.weights.describe import describe
from octvideo.weights.load import network_of

# Logits of mmaction2's backbones (commit 4d6c934, on mmcv-lite 2.1.0) behind global averages and
# its classifier, with the weights of `drawn` in float32, on RandomState(0).randn of the shape
# beside them.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/mmaction2_logits.json").read_text())
ARGUMENTS = {
    "i3d": ("i3d_r50", {}),
    "i3d_heavy": ("i3d_heavy_r50", {}),
    "i3d_nl_dot_product": ("i3d_nln_r50", {}),
    "i3d_nl_embedded_gaussian": ("i3d_nln_r50", {}),
    "i3d_caffe": ("i3d_r50", {}),
    "slowonly": ("slow_r50", {}),
    "slowonly_nl": ("slow_r50", {"nonlocal_location": ((), (1, 3), (1, 3, 5), ())}),
    "slowfast_4x16": ("slowfast_r50", {"fusion_norm": False}),
    "slowfast_8x8": ("slowfast_r50", {"fusion_norm": False, "fusion_kernel_size": 7}),
    "slowfast_with_norms": ("slowfast_r50", {"fusion_kernel_size": 7}),
}
PARTS = {"reduce": "conv1", "spatial": "conv2", "expand": "conv3", "shortcut": "downsample"}


def theirs(name):
    """mmaction2's name of a tensor, said anew here."""
    pathway, name = re.fullmatch(r"(slow\.|fast\.|)(.+)", name).groups()
    pathway = pathway.replace(".", "_path.")
    name = name.replace("h2h.", "").replace("high.", "")
    if name.startswith("head.fc"):
        return name.replace("head.fc", "cls_head.fc_cls")
    if match := re.fullmatch(r"laterals\.(\d)\.(.+)", name):
        stage = f"layer{match[1]}" if match[1] != "0" else "conv1"
        return f"backbone.slow_path.{stage}_lateral.{match[2]}"
    if match := re.fullmatch(r"stem\.(.+)", name):
        return f"backbone.{pathway}conv1.{match[1]}"
    if match := re.fullmatch(r"res(\d)\.nonlocal(\d+)\.attend\.(.+)", name):
        layer = {"norm": "conv_out.bn", "conv_out": "conv_out.conv", "conv_theta": "theta.conv"}
        layer |= {"conv_phi": "phi.0.conv", "conv_g": "g.0.conv"}
        part, tensor = match[3].split(".")
        return (
            f"backbone.{pathway}layer{int(match[1]) - 1}.{match[2]}"
            f".non_local_block.{layer[part]}.{tensor}"
        )
    stage, block, part, rest = re.fullmatch(r"res(\d)\.block(\d+)\.(\w+)\.(.+)", name).groups()
    return f"backbone.{pathway}layer{int(stage) - 1}.{block}.{PARTS[part]}.{rest}"


def drawn(name, shape):
    """Weights by their name in mmaction2, such that features neither grow nor vanish."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (".bn." in name and name.endswith("weight")):
        small = "conv3.bn.w" in name or "out.bn.w" in name
        values = draw.uniform(0.5, 1.5, shape) * (0.2 if small else 1)
    elif name.endswith(("bias", "running_mean")):
        values = draw.randn(*shape) * 0.1
    else:
        fan = max(int(np.prod(shape[1:])), 1)
        values = draw.randn(*shape) * (2 / fan) ** 0.5 * (0.2 if "non_local" in name else 1)
    return torch.from_numpy(values).float()


def written(path, model, config="", draw=drawn):
    """A file of mmaction2 for the network of ours that has its shapes."""
    state = {
        theirs(name): tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith(("num_batches_tracked", "conv_out.bias"))
    }
    if draw:
        state = {name: draw(name, tensor.shape) for name, tensor in state.items()}
    meta = {"cfg": config} if config else {}
    torch.save({"meta": meta, "state_dict": state}, path)
    return str(path)


def without(path, model, start):
    """The file of `written` without the names that begin so."""
    content = torch.load(written(path, model))
    kept = {n: t for n, t in content["state_dict"].items() if not n.startswith(start)}
    torch.save({**content, "state_dict": kept}, path)
    return str(path)


def changed(path, state, model, config=""):
    """The file of `written` with other tensors."""
    content = torch.load(written(path, model, config))
    content["state_dict"].update(state)
    torch.save(content, path)
    return str(path)


def golden_file(name, path, with_config=True):
    model, options = ARGUMENTS[name]
    width = 32 if model.startswith("slowfast") else 8
    with torch.device("meta"):
        network = create_model(model, num_classes=5, width_per_group=width, **options)
    config = (
        f"model = dict(backbone=dict({GOLDEN[name]['backbone']}), cls_head=dict(num_classes=5))"
    )
    return written(path, network, config if with_config else "")


def clip(name):
    shape = GOLDEN[name]["input"]
    return torch.from_numpy(np.random.RandomState(0).randn(*shape)).float()


CLASSES = list("abcde")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_checkpoint_of_mmaction2_gives_mmaction2s_logits(name, tmp_path):
    path = golden_file(name, tmp_path / "w.pth")

    found = describe(Checkpoint.read(path), CLASSES, "8x8")
    model = network_of(found).eval()

    with torch.no_grad():
        logits = model(clip(name))
    torch.testing.assert_close(logits, torch.tensor([GOLDEN[name]["logits"]]), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["i3d", "i3d_heavy", "slowfast_8x8"])
def test_without_a_config_it_is_what_mmaction2_publishes(name, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    path = golden_file(name, tmp_path / "w.pth", with_config=False)

    with caplog.at_level(logging.INFO):
        model = network_of(describe(Checkpoint.read(path), CLASSES, "8x8")).eval()

    with torch.no_grad():
        logits = model(clip(name))
    torch.testing.assert_close(logits, torch.tensor([GOLDEN[name]["logits"]]), rtol=1e-4, atol=2e-4)
    assert "holds no config" in caplog.text


def test_test_time_scores_pool_the_whole_map_as_there(tmp_path):
    path = golden_file("i3d", tmp_path / "w.pth")
    model = network_of(describe(Checkpoint.read(path), CLASSES, "8x8")).eval()

    with torch.no_grad():
        scores = model.window_scores(clip("i3d"))

    torch.testing.assert_close(
        scores, torch.tensor([GOLDEN["i3d"]["logits"]]).softmax(-1), rtol=1e-3, atol=1e-4
    )


def test_a_recognizer_takes_normalization_and_sampling_from_the_layout(tmp_path):
    recognizer = octvideo.load(
        golden_file("slowonly", tmp_path / "w.pth"), classes=CLASSES, input="8x8"
    )

    assert recognizer.preprocessing["mean"] == pytest.approx([0.485, 0.456, 0.406], abs=1e-4)
    assert recognizer.preprocessing["sampling_rule"] == "stride"
    assert recognizer.model.config["name"] == "slow_r50"


def test_another_normalization_in_the_config_wins(tmp_path):
    model = create_model("slow_r26", num_classes=5, width_per_group=8)
    config = (
        "model = dict(backbone=dict(type='ResNet3dSlowOnly'), data_preprocessor=dict("
        "type='ActionDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[51, 51.0, 102]))"
    )
    path = written(tmp_path / "w.pth", model, config)

    found = describe(Checkpoint.read(path), CLASSES, "8x8")

    assert found.input.mean == (0.5, 0.5, 0.5)
    assert found.input.std == (0.2, 0.2, 0.4)


def test_a_mean_of_nothing_is_a_mean(tmp_path):
    model = create_model("slow_r26", num_classes=5, width_per_group=8)
    config = "model = dict(data_preprocessor=dict(mean=[0, 0, 0], std=[255, 255, 255]))"
    path = written(tmp_path / "w.pth", model, config)

    found = describe(Checkpoint.read(path), CLASSES, "8x8")

    assert (found.input.mean, found.input.std) == ((0.0,) * 3, (1.0,) * 3)


def small(name="slow_r26"):
    return create_model(name, num_classes=5, width_per_group=8)


ONE_CLIP = "train_pipeline = [dict(type='SampleFrames', clip_len=4, frame_interval=16)]"


def described(path, config, clips="4x16"):
    return describe(Checkpoint.read(written(path, small(), config)), CLASSES, clips)


def test_a_config_from_before_version_1_says_its_normalization(tmp_path):
    numbers = "mean=[51, 127.5, 255], std=[51.0, 51, 102], to_bgr=False"
    config = f"img_norm_cfg = dict({numbers})\nmodel = dict(type='Recognizer3D')"

    found = described(tmp_path / "w.pth", config)

    assert (found.input.mean, found.input.std) == ((0.2, 0.5, 1.0), (0.2, 0.2, 0.4))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("model = dict(data_preprocessor=dict(to_rgb=True))", True),
        ("model = dict(data_preprocessor=dict(to_rgb=False))", False),
        ("img_norm_cfg = dict(to_bgr=True)", True),
        ("", False),
    ],
)
def test_channels_that_its_config_reverses_are_reversed(config, expected, tmp_path):
    """Its decoders give RGB, which is reversed before it is normalized."""
    assert described(tmp_path / "w.pth", config).input.reverse_channels is expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("multi_class=True", ("sigmoid", True)),
        ("loss_cls=dict(type='BCELossWithLogits', loss_weight=333.)", ("sigmoid", True)),
        ("multi_class=False, loss_cls=dict(type='CrossEntropyLoss')", ("softmax", False)),
    ],
)
def test_a_head_of_several_classes_has_a_sigmoid(head, expected, tmp_path):
    found = described(tmp_path / "w.pth", f"model = dict(cls_head=dict({head}))")

    assert (found.head_act, found.multi_label) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("model = dict(cls_head=dict(average_clips='prob'))", "softmax"),
        ("model = dict(cls_head=dict(average_clips='score'))", "softmax_of_mean"),
        ("model = dict(cls_head=dict(average_clips=None))", "softmax"),
        ("model = dict(test_cfg=dict(average_clips='score'))", "softmax_of_mean"),
        ("test_cfg = dict(average_clips='score')", "softmax_of_mean"),
        ("model = dict(cls_head=dict(average_clips='score', multi_class=True))", "sigmoid_of_mean"),
    ],
)
def test_a_video_is_scored_from_its_views_as_its_config_says(config, expected, tmp_path):
    """ "score" is the mean of logits; before version 1 it is said of the model, or beside it."""
    assert described(tmp_path / "w.pth", config).head_act == expected


@pytest.mark.parametrize(
    ("clips", "rule", "fps"),
    [
        (ONE_CLIP, "stride", 30),
        (ONE_CLIP.replace("16", "16, target_fps=25"), "pyslowfast", 25),
        (f"{ONE_CLIP}\n{ONE_CLIP.replace('16', '16, target_fps=25')}", "pyslowfast", 30),
        (ONE_CLIP.replace("16", "16, target_fps='x'"), "stride", 30),
    ],
    ids=["no rate", "a rate", "two rates", "no number"],
)
def test_clips_at_a_frame_rate_are_spread_as_there(clips, rule, fps, tmp_path):
    seen = described(tmp_path / "w.pth", f"model = dict()\n{clips}").input

    assert (seen.sampling_rule, seen.target_fps) == (rule, fps)


RESIZE = "dict(type='Resize', scale=(-1, 320))"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (f"{RESIZE}, dict(type='CenterCrop', crop_size=224)", (224, 320)),
        (f"{RESIZE}, dict(type='ThreeCrop', crop_size=(320, 320))", (320, 320)),
        (f"{RESIZE}, dict(type='CenterCrop', crop_size=(224, 192))", (256, 256)),
        (f"{RESIZE}, dict(type='CenterCrop', crop_size=321)", (256, 256)),
        (f"{RESIZE}, dict(type='CenterCrop', crop_size='all')", (256, 256)),
        (f"{RESIZE}, dict(type='CenterCrop')", (256, 256)),
        (
            "dict(type='Resize', scale=(320, 320)), dict(type='CenterCrop', crop_size=64)",
            (256, 256),
        ),
    ],
)
def test_the_crop_is_that_of_its_test_where_it_can_be_read(steps, expected, tmp_path):
    config = f"model = dict()\ntest_pipeline = [dict(type='DecordDecode'), {steps}]"

    seen = described(tmp_path / "w.pth", config).input

    assert (seen.crop_size, seen.short_side) == expected


@pytest.mark.parametrize(
    ("config", "clips", "said"),
    [
        (
            ONE_CLIP,
            "32x2",
            "taken: num_frames 32 instead of 4, sampling_rate 2 instead of 16; scores",
        ),
        (ONE_CLIP, "4x16", ""),
        (ONE_CLIP.replace("clip_len=4", "clip_len=1"), "8x8", ""),  # a segment of TSN
        (
            f"{ONE_CLIP}\n{ONE_CLIP.replace('16', '8')}",
            "32x2",
            "",
        ),  # of two the trained one is not known
        ("x = [f(type='SampleFrames'), dict(type='SampleFrames', clip_len=n)]", "32x2", ""),
    ],
)
def test_clips_other_than_those_of_its_config_are_warned_of(
    config, clips, said, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)

    described(tmp_path / "w.pth", f"model = dict(backbone=dict(depth=50))\n{config}", clips)

    assert (said in caplog.text) if said else not caplog.text


@pytest.mark.parametrize(
    "numbers",
    ["mean=[1, 2]", "mean='ImageNet'", "mean=None", "mean=[-1, 0, 0]", "std=[0, 1, 1]"],
)
def test_a_normalization_that_cannot_be_read_is_refused(numbers, tmp_path):
    model = create_model("slow_r26", num_classes=5, width_per_group=8)
    config = f"model = dict(data_preprocessor=dict({numbers}))"
    path = written(tmp_path / "w.pth", model, config)

    with pytest.raises(CheckpointError, match=r"w\.pth: mmaction2's normalization with mean="):
        describe(Checkpoint.read(path), CLASSES, "8x8")


def test_the_setting_that_a_network_lacks_is_named(tmp_path):
    path = golden_file("i3d", tmp_path / "w.pth")
    model = create_model("i3d_r50", num_classes=5, width_per_group=8)

    with pytest.raises(
        CheckpointError, match=re.escape('add "stem_strides_t=[2, 2]" to MODEL.OPTIONS')
    ):
        load_weights(model, path)


def test_a_pathway_of_another_depth_is_found(tmp_path):
    network = create_model(
        "slowfast_r50", num_classes=5, width_per_group=32, fusion_norm=False, depth_fast=26
    )

    found = describe(Checkpoint.read(written(tmp_path / "w.pth", network)), CLASSES, "32x2")

    assert (found.network["name"], found.network["depth_fast"]) == ("slowfast_r50", 26)


# --- TSN and C2D: a 2D network on frames


def frames_of(image_network, clips):
    """TSN: every frame by itself, features averaged, one classifier."""
    features = image_network.features(clips.transpose(1, 2).flatten(0, 1))[0].mean((2, 3))
    return image_network.head.fc(features.unflatten(0, (len(clips), -1)).mean(1))


def test_tsn_is_a_c2d_without_a_pool_in_time(tmp_path):
    images = create_model("resnet26", num_classes=5, width_per_group=8).eval()
    config = "model = dict(backbone=dict(type='ResNet', depth=50))"
    path = written(tmp_path / "w.pth", images, config, draw=None)
    clips = torch.randn(2, 3, 4, 64, 64)

    model = network_of(describe(Checkpoint.read(path), CLASSES, "4x8")).eval()

    assert model.config["name"] == "c2d_nopool_r26"
    with torch.no_grad():
        torch.testing.assert_close(model(clips), frames_of(images, clips))


def test_c2d_pools_without_padding_and_in_time(tmp_path):
    images = create_model("resnet26", num_classes=5, width_per_group=8)
    path = written(tmp_path / "w.pth", images, "model = dict(backbone=dict(type='C2D'))", draw=None)

    found = describe(Checkpoint.read(path), CLASSES, "8x8")

    assert (found.network["name"], found.network["stem_pool_padding"]) == ("c2d_r26", 0)


def test_an_image_network_is_converted_as_its_config_describes_it(tmp_path):
    model = create_model("resnet26", num_classes=5, width_per_group=8)
    numbers = "mean=[51, 51, 51], std=[102, 102, 102], to_bgr=True"
    backbone = "backbone=dict(type='ResNet', depth=26, style='caffe')"
    config = f"img_norm_cfg = dict({numbers})\nmodel = dict(type='Recognizer2D', {backbone})"

    found = convert_weights(written(tmp_path / "w.pth", model, config))

    seen = found.checkpoint().input
    assert (seen.mean, seen.std, seen.reverse_channels) == ((0.2,) * 3, (0.4,) * 3, True)
    assert found.model["stride_1x1"]
    assert not found.assumed


def test_an_image_network_without_a_config_is_converted_as_published(tmp_path):
    model = create_model("resnet26", num_classes=5, width_per_group=8)

    found = convert_weights(written(tmp_path / "w.pth", model))

    assert found.mean == pytest.approx(TORCHVISION_MEAN)
    assert found.assumed


def test_tsn_is_refused_where_the_network_pools_in_time(tmp_path):
    images = create_model("resnet26", num_classes=5, width_per_group=8)
    path = written(
        tmp_path / "w.pth", images, "model = dict(backbone=dict(type='ResNet'))", draw=None
    )

    with pytest.raises(CheckpointError, match=r"set MODEL\.ARCH c2d_nopool"):
        load_weights(create_model("c2d_r26", num_classes=5, width_per_group=8), path)


def test_a_backbone_alone_starts_a_training(tmp_path):
    model, path = create_model("slow_r26", num_classes=5, width_per_group=8), tmp_path / "w.pth"
    without(path, model, "cls_head.")

    report = load_weights(model, str(path))

    assert list(report.skipped_head) == ["head.fc.weight", "head.fc.bias"]


# --- What is refused


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("type='ResNet2Plus1d'", "backbone ResNet2Plus1d; of its networks"),
        ("type='ResNet3d', with_pool2=False", "ResNet3d with with_pool2=False"),
        ("type='ResNet3d', dilations=(1, 1, 2, 4)", r"dilations=\[1, 1, 2, 4\]"),
        ("type='ResNet3d', temporal_strides=(1, 2, 2, 2)", r"temporal_strides=\[1, 2, 2, 2\]"),
        ("type='ResNet3d', conv1_stride_t='two'", "conv1_stride_t='two'; it is a whole number"),
        ("type='ResNet3d', norm_cfg=dict(type='BN3d', eps=1e-3)", r"norm_cfg\.eps=0\.001; the net"),
        (
            "type='ResNet3d', act_cfg=dict(type='SiLU')",
            r"act_cfg\.type=SiLU; the networks here have R",
        ),
        ("type='ResNet3dSlowFast', slow_pathway=dict(style='caffe')", "style=caffe; the networks"),
    ],
)
def test_what_no_network_here_computes_is_refused_by_name(backbone, message, tmp_path):
    model = create_model("i3d_r26", num_classes=5, width_per_group=8)
    path = written(tmp_path / "w.pth", model, f"model = dict(backbone=dict({backbone}))")

    with pytest.raises(CheckpointError, match=message):
        load_weights(model, path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "not its config, which says how they attend"),
        (
            "model = dict(backbone=dict(type='ResNet3d', non_local_cfg=dict(mode='gaussian')))",
            "the mode gaussian",
        ),
    ],
)
def test_attention_that_cannot_be_told_or_built_is_refused(config, message, tmp_path):
    model = create_model("i3d_nln_r26", num_classes=5, width_per_group=8)

    with pytest.raises(CheckpointError, match=message):
        load_weights(model, written(tmp_path / "w.pth", model, config))


def test_attention_of_a_pathway_is_that_of_its_own_settings(tmp_path):
    blocks = ((), (1,), (), ())
    model = create_model(
        "slowfast_r26",
        num_classes=5,
        width_per_group=32,
        fusion_norm=False,
        slow_frames="every",
        nonlocal_pool_after=True,
        nonlocal_location=blocks,
    )
    attention = "non_local_cfg=dict(sub_sample=True, use_scale=True, mode='dot_product')"
    config = f"model = dict(backbone=dict(type='ResNet3dSlowFast', slow_pathway=dict({attention})))"

    with pytest.raises(CheckpointError, match=r"trained with nonlocal_(instantiation|pool)="):
        load_weights(model, written(tmp_path / "w.pth", model, config))


@pytest.mark.parametrize("mode", ["['x']", "dict(a=1)", "1"])
def test_a_mode_of_attention_that_is_no_word_is_refused(mode, tmp_path):
    model = small("i3d_nln_r26")
    config = f"model = dict(backbone=dict(type='ResNet3d', non_local_cfg=dict(mode={mode})))"

    with pytest.raises(CheckpointError, match="non-local blocks of the mode"):
        load_weights(model, written(tmp_path / "w.pth", model, config))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("cls_head.fc_cls.weight", (5,), r"head.fc.weight has the shape .5,."),
        ("cls_head.fc_cls.weight", (), r"head.fc.weight has the shape .."),
        ("backbone.conv1.conv.weight", (8,), "stem.conv.weight has the shape"),
        ("backbone.conv1.conv.weight", (0, 3, 1, 7, 7), "none of them 0: name"),
        ("backbone.layer1.0.conv1.conv.weight", (), "res2.block0.reduce.conv.h2h.weight has"),
        ("backbone.layer1.0.conv1.bn.weight", (), "res2.block0.reduce.bn.high.weight has"),
        ("backbone.layer9.0.conv1.conv.weight", (4, 4, 3, 1, 1), "res10.block0.* does not belong"),
        ("backbone.layer6.0.conv1.conv.weight", (4, 4, 3, 1, 1), "video network"),
    ],
)
def test_shapes_and_stages_that_cannot_be_are_refused(name, shape, message, tmp_path):
    path = changed(tmp_path / "w.pth", {name: torch.zeros(shape)}, small())

    with pytest.raises(CheckpointError, match=message):
        describe(Checkpoint.read(path), CLASSES, "8x8")


@pytest.mark.parametrize("stray", ["ema_backbone_conv1_conv_weight", "module.scale"])
def test_what_does_not_belong_is_named(stray, tmp_path):
    path = changed(tmp_path / "w.pth", {stray: torch.zeros(3)}, small())

    with pytest.raises(CheckpointError, match=rf": {stray} \(3,\) does not belong to slow_r26"):
        describe(Checkpoint.read(path), CLASSES, "8x8")


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("cls_head.", "it is a slow_r26 without a classifier; train one from it"),
        ("cls_head.fc_cls.bias", r"lacks head\.fc\.bias of slow_r26"),
        ("backbone.layer2.1.conv2.bn.bias", r"lacks res3.block1.spatial.bn.high.bias of slow_r26"),
    ],
)
def test_what_a_file_lacks_is_named(start, message, tmp_path):
    path = without(tmp_path / "w.pth", small(), start)

    with pytest.raises(CheckpointError, match=message):
        describe(Checkpoint.read(path), CLASSES, "8x8")


@pytest.mark.parametrize("kind", ["ResNet3d", "ResNet3dSlowOnly"])
def test_a_missing_stem_is_named_and_no_pool(kind, tmp_path):
    path = without(tmp_path / "w.pth", small(), "backbone.conv1.conv.")
    config = f"model = dict(backbone=dict(type='{kind}'))"
    torch.save({**torch.load(path), "meta": {"cfg": config}}, path)

    with pytest.raises(CheckpointError, match=r"1 missing .first: stem\.conv\.weight"):
        load_weights(small(), path)
    with pytest.raises(CheckpointError, match=r"lacks stem\.conv\.weight"):
        describe(Checkpoint.read(path), CLASSES, "8x8")


@pytest.mark.parametrize(
    "config",
    [
        "model = dict(backbone=dict(type=__import__('os').system('touch ran')))",
        "model = " + "(" * 5000,
        "model = " + "-" * 100_000 + "1",
        "model = [i for i in range(10 ** 9)]",
        "x = " + "1," * 400_000,
        "\0",
    ],
    ids=["code", "parentheses", "signs", "loop", "long", "null"],
)
def test_a_config_is_read_and_never_run(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = create_model("slow_r26", num_classes=5, width_per_group=8)

    report = load_weights(model, written(tmp_path / "w.pth", model, config))

    assert report.fits
    assert not (tmp_path / "ran").exists()
