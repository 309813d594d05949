"""pytorchvideo's networks: exact at alpha 0, octave above, from a config to a recognizer and an
exported file."""

import logging

import pytest
import torch
from narrow_networks import theirs_of_two_blocks, two_blocks_per_stage
from torch import nn
from torch.nn import functional as F

from octvideo import create_model, load, octavize
from octvideo.assembly import build_model
from octvideo.assembly.weights import load_initial_weights, start_lines
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.config import load_config
from octvideo.data.prepare.demo import make_clip
from octvideo.deploy.export import export_model
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.merge import merge_convs, mergeable
from octvideo.errors import CheckpointError, ConfigError
from octvideo.layers import OctConv3d
from octvideo.models.network import pooled_features
from octvideo.models.pytorchvideo import HUB, import_pytorchvideo
from octvideo.models.registry import input_shape_of
from octvideo.weights import load_weights
from octvideo.weights.start import octavize_into

X3D = {"builder_options": {"width_factor": 1.0, "depth_factor": 0.4}}  # 1, 1, 2 and 2 blocks
R2PLUS1D = {"builder_options": {"stem_dim_out": 16, "model_depth": 50}}
TINY = {"x3d_xs": X3D, "r2plus1d_r50": R2PLUS1D}
ACOUSTIC = {"builder_options": {"stem_dim_out": 16}}
CLIP = (2, 3, 4, 64, 64)


def make(name: str, alpha: float, **options: object) -> nn.Module:
    """With two blocks per stage at most."""
    size = {"num_frames": 4, "crop_size": 64, "num_classes": 4, "dropout_rate": 0.0}
    with theirs_of_two_blocks():
        return create_model(f"ptv:{name}", alpha=alpha, **{**size, **TINY.get(name, {}), **options})


def with_branches(model: nn.Module) -> nn.Module:
    """In evaluation; residual branches that start at gamma 0 would say nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    "name", [name if name in TINY else pytest.param(name, marks=pytest.mark.slow) for name in HUB]
)
def test_every_network_is_exact_at_alpha_zero_and_octave_above(name):
    frames = 16 if name in ("slowfast_r50", "csn_r101") else 4
    x = torch.rand(2, HUB[name].channels, *HUB[name].shape(frames, 64))
    model = with_branches(make(name, 0.0))

    same, octave = octavize(model, 0.0, x), octavize(model, 0.25, x)

    assert list(same.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        assert torch.equal(same(x), model(x))
        assert octave(x).shape == (2, 4)
    assert octave.octave_report.macs < 0.9 * octave.octave_report.macs_before
    # A spectrogram is strided in its width alone, which no octave convolution does.
    assert HUB[name].is_sound or not octave.octave_report.notes


@pytest.mark.parametrize("name", TINY)
def test_alpha_zero_can_downsample_as_octave_networks_do(name):
    vanilla, pooled = make(name, 0.0), make(name, 0.0, downsample="pool")

    # Those that read the network's input stay as they are.
    assert all(layer.startswith("blocks.0.") for layer in strided(pooled))
    assert strided(pooled) < strided(vanilla)
    assert list(pooled.state_dict()) == list(vanilla.state_dict())
    assert pooled.config["downsample"] == "pool"


def strided(model: nn.Module) -> set[str]:
    """The convolutions that stride in height and width."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv3d) and module.stride[1:] == (2, 2)
    }


@pytest.mark.parametrize("name", ["x3d_xs", pytest.param("slowfast_r50", marks=pytest.mark.slow)])
def test_one_pass_gives_scores_and_features_bit_for_bit(name):
    x = torch.rand(1, 3, *HUB[name].shape(16 if name == "slowfast_r50" else 4, 64))
    model = make(name, 0.0).eval()

    with torch.no_grad():
        scores, features = model.scores_and_features(x)

        assert torch.equal(scores, model.window_scores(x))
        assert torch.equal(features, pooled_features(model, x))


def test_the_acoustic_network_takes_spectrograms_of_one_channel():
    options = {"num_frames": 16, "crop_size": 32, **ACOUSTIC}
    vanilla, octave = (make("acoustic_resnet", alpha, **options).eval() for alpha in (0, 0.25))

    assert input_shape_of("acoustic_resnet") == (1, 128, 1, 80)
    assert octave.octave_report.octave
    assert set(vanilla.norm_follows) == set(octave.norm_follows)
    with torch.no_grad():
        assert octave(torch.rand(2, 1, 16, 1, 32)).shape == (2, 4)
    with pytest.raises(ConfigError, match=r"got a tensor of shape \(2, 3, 4, 64, 64\)"):
        vanilla(torch.rand(CLIP))


@pytest.mark.parametrize(
    "kind", ["x3d", "acoustic", pytest.param("slowfast", marks=pytest.mark.slow)]
)
def test_networks_as_pytorchvideo_builds_them(kind):
    """Several inputs in a list, strides of one dimension, heads with a softmax and a pool of one
    size."""
    if kind == "x3d":
        model = import_pytorchvideo("x3d").create_x3d(
            input_clip_length=4,
            input_crop_size=64,
            model_num_class=4,
            **X3D["builder_options"],
        )
        x: object = torch.rand(CLIP)
    elif kind == "acoustic":
        model = import_pytorchvideo("resnet").create_acoustic_resnet(
            model_num_class=4, stem_dim_out=16
        )
        x = torch.rand(2, 1, 32, 1, 80)
        model.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)
    else:
        model = import_pytorchvideo("slowfast").create_slowfast(
            model_num_class=4,
            slowfast_fusion_conv_stride=(4, 1, 1),
            head_pool_kernel_sizes=((2, 2, 2), (8, 2, 2)),
        )
        x = [torch.rand(2, 3, 2, 64, 64), torch.rand(2, 3, 8, 64, 64)]
    model = two_blocks_per_stage(model).eval()
    inputs = list if isinstance(x, list) else (lambda t: t)  # their blocks write into the list

    same, octave = (
        octavize(model, 0.0, inputs(x)),
        octavize(model, 0.25, inputs(x), clips=inputs(x)),
    )

    with torch.no_grad():
        assert torch.equal(same(inputs(x)), model(inputs(x)))
        assert octave(inputs(x)).shape == (2, 4)
    assert octave.octave_report.octave
    assert [error.stage for error in octave.octave_report.errors][:2] == ["blocks.0", "blocks.1"]


@pytest.mark.slow
def test_only_the_slow_pathway_where_asked():
    model = make("slowfast_r50", 0.0)
    x = torch.empty(1, 3, 16, 64, 64, device="meta")
    octave = octavize(model, 0.25, x, include=["blocks.[1-4].multipathway_blocks.0.*"])
    assert {conv.name.split(".")[3] for conv in octave.octave_report.octave} == {"0"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated")  # of pytorchvideo's Swish
@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_they_learn_demo_clips_as_their_vanilla_forms_do(name, alpha):
    """Moves left and right, up and down: two pairs of classes that are each other in reversed
    time."""
    labels = torch.arange(12) % 4
    frames = [torch.from_numpy(make_clip(int(label), i)) for i, label in enumerate(labels)]
    spread = [
        clip[torch.linspace(0, len(clip) - 1, 4).long()].permute(3, 0, 1, 2) for clip in frames
    ]
    clips = F.interpolate(torch.stack(spread).float(), (4, 48, 48), mode="area") / 127.5 - 1
    model = make(name, alpha).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(40):
        scores = model(clips)
        if learned := bool((scores.argmax(1) == labels).all()):
            break
        optimizer.zero_grad()
        F.cross_entropy(scores, labels).backward()
        optimizer.step()
    assert learned


@pytest.mark.parametrize("arch", ["x3d_xs", "ptv:x3d_xs"])
def test_a_config_describes_one(arch, repo):
    settings = (
        f"MODEL.ARCH={arch} MODEL.NUM_CLASSES=4 OCTCONV.ALPHA=0.25 DATA.NUM_FRAMES=4"
        " DATA.TRAIN_CROP_SIZE=64"
    ).split()
    settings.append('MODEL.OPTIONS=["builder_options={width_factor: 1.0, depth_factor: 0.4}"]')
    cfg = load_config(repo / "configs/kinetics400/i3d.yaml", settings)

    model = build_model(cfg)

    assert model.config["name"] == "ptv:x3d_xs"
    assert isinstance(model.get_submodule("blocks.2.res_blocks.0.branch2.conv_a"), OctConv3d)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = make("x3d_xs", 0.25)
    spec = InputSpec((0.45,) * 3, (0.225,) * 3, False, 4, 2, "pyslowfast", 30.0, 64, 64)
    path = str(tmp_path_factory.mktemp("run") / "best.pyth")
    Checkpoint(
        state=model.state_dict(), network=model.config, class_names=tuple("abcd"), input=spec
    ).write(path)
    return model.eval(), path


def test_a_checkpoint_holds_what_rebuilds_it(checkpoint):
    model, path = checkpoint
    recognizer = load(path)
    video = (torch.rand(8, 72, 80, 3) * 255).to(torch.uint8).numpy()

    clip = recognizer.clip(video)[1]

    torch.testing.assert_close(recognizer.model(clip), model(clip))
    assert recognizer.scores(video, views="1x1") == pytest.approx(
        model(clip).softmax(-1)[0].tolist(), abs=1e-5
    )
    assert recognizer.features(video).shape == (model(clip).new_empty(96).shape[0],)


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)
def test_it_is_folded_merged_and_exported(checkpoint, tmp_path):
    model, _ = checkpoint
    x = torch.rand(CLIP)

    folded = fold_batch_norm(model)
    merged = merge_convs(folded, mergeable(folded))

    assert mergeable(folded)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(merged(x), model(x), rtol=1e-4, atol=1e-5)
    assert export_model(model, x, tmp_path / "model.pt2") < 1e-4


def test_mistakes_are_one_line():
    with pytest.raises(ConfigError, match="ptv:x3d_xs has no option 'stages'"):
        make("x3d_xs", 0.25, stages=(2, 3))
    with pytest.raises(ConfigError, match="alpha is 2"):
        make("x3d_xs", 2)
    with pytest.raises(ConfigError, match="there is no model 'ptv:x3d_xm'; did you mean ptv:x3d_"):
        create_model("ptv:x3d_xm")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"foo": 1}, "unexpected keyword argument 'foo'"),
        ({"width_factor": "wide"}, "cannot be built with it"),
        ({"model_num_class": 5}, "multiple values for keyword argument"),
        (["stem_dim_out"], "it maps names of arguments"),
    ],
)
def test_what_pytorchvideos_builder_does_not_take_is_one_line(given, says):
    with pytest.raises(ConfigError, match=says) as caught, torch.device("meta"):
        create_model("ptv:x3d_xs", builder_options=given)

    assert str(caught.value).startswith(f"builder_options is {given}; ")
    assert "\n" not in str(caught.value)


# --- Weights of the vanilla network


@pytest.fixture
def vanilla(tmp_path):
    """A vanilla network and its file, in pytorchvideo's own names."""
    torch.manual_seed(0)
    model = make("x3d_xs", 0.0).eval()
    torch.save({"model_state": model.state_dict()}, tmp_path / "x3d.pyth")
    return model, str(tmp_path / "x3d.pyth")


def test_a_file_of_pytorchvideo_fills_its_network(vanilla):
    model, path = vanilla

    loaded = load_weights(make("x3d_xs", 0.0), path)

    assert len(loaded.loaded) == len(model.state_dict())


@pytest.mark.parametrize("low_channels", ["last", "smoothest"])
def test_vanilla_weights_are_divided_for_the_octave_network(vanilla, low_channels):
    model, path = vanilla
    octave = make("x3d_xs", 0.25, low_channels=low_channels).eval()
    squares = F.interpolate(torch.rand(2, 3, 4, 2, 2), (4, 64, 64))

    octavize_into(octave, Checkpoint.read(path), squares)

    expected = octavize(
        model, 0.25, squares, weights="sorted" if low_channels == "smoothest" else "as_is"
    )
    with torch.no_grad():
        torch.testing.assert_close(octave(squares), expected.eval()(squares))
    assert create_model(**octave.config).load_state_dict(octave.state_dict())


def test_a_config_trains_from_vanilla_weights(vanilla, repo, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    _, path = vanilla
    settings = [
        *("MODEL.ARCH=x3d_xs", "MODEL.NUM_CLASSES=3", "OCTCONV.ALPHA=0.25", "DATA.NUM_FRAMES=4"),
        *("DATA.TRAIN_CROP_SIZE=64", f"TRAIN.CHECKPOINT_FILE_PATH={path}"),
        (
            'MODEL.OPTIONS=["low_channels=smoothest", "builder_options={width_factor: 1.0,'
            ' depth_factor: 0.4}"]'
        ),
    ]
    cfg = load_config(repo / "configs/kinetics400/i3d.yaml", settings)
    model = build_model(cfg)
    clips = torch.rand(2, 3, 4, 64, 64)
    monkeypatch.setattr("octvideo.assembly.weights._some_clips", lambda *_: clips)

    with caplog.at_level(logging.INFO):
        load_initial_weights(cfg, model, None, None)

    assert "the channels that lose least low: 21 of 32 convolutions" in caplog.text
    stem = Checkpoint.read(path).weights["blocks.0.conv.conv_t.weight"]
    assert torch.equal(model.blocks[0].conv.conv_t.weight, stem)
    assert start_lines(cfg, model, path)[0].startswith("vanilla weights are divided: 21 of 32")


def test_weights_of_another_network_are_refused_in_one_line(vanilla):
    with pytest.raises(CheckpointError, match="does not fit ptv:x3d_s"):
        octavize_into(make("x3d_s", 0.25), Checkpoint.read(vanilla[1]))
