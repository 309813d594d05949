"""A family of networks from outside the package: one class, one options class, one row, and
everything serves it."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo import create_model, list_models
from octvideo.assembly import build_model, build_trainer, final_test, train
from octvideo.assembly import data as build_data
from octvideo.assembly.dry_run import GeneratedSamples
from octvideo.assembly.estimate import clip_macs
from octvideo.assembly.model import network_settings
from octvideo.checkpoint import Checkpoint
from octvideo.complexity import count_twice
from octvideo.config import config_from_text, load_config
from octvideo.deploy import export_model, optimize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.engine.distributed import Processes
from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctBatchNorm3d, OctConv3d, OctTensor, merge
from octvideo.models import registry
from octvideo.models.network import Family, Head, Network
from octvideo.report.gradcam import gradcam
from octvideo.weights.load import network_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainOptions:
    alpha: float = 0.0
    num_classes: int = 400
    width_per_group: int = 16
    depth: int = 2


class Layer(nn.Module):
    norm_follows: ClassVar = {"bn": "conv"}
    may_be_recomputed = True

    def __init__(self, in_channels: Channels, out_channels: Channels) -> None:
        super().__init__()
        self.conv = OctConv3d(in_channels, out_channels, (1, 3, 3), 1, (0, 1, 1), bias=False)
        self.bn = OctBatchNorm3d(out_channels)

    def forward(self, x: OctTensor) -> OctTensor:
        return self.bn(self.conv(x)).map(F.relu)


class PlainNet(Network):
    takes = "clips"

    def __init__(self, options: PlainOptions) -> None:
        super().__init__(3)
        width, low = options.width_per_group, int(options.alpha * options.width_per_group)
        inner = Channels(width - low, low)
        self.body = nn.Sequential(
            *(Layer(inner if i else Channels(3), inner) for i in range(options.depth))
        )
        self.head = Head(width, options.num_classes, dropout_rate=0.0)

    def features(self, x: Tensor) -> list[Tensor]:
        return [merge(self.body(OctTensor(x)))]


SETTINGS = """
    MODEL.ARCH=plain MODEL.OPTIONS=["depth=3"] MODEL.NUM_CLASSES=4 MODEL.ACT_CHECKPOINT=true OCTCONV.ALPHA=0.25
    RESNET.WIDTH_PER_GROUP=8 DATA.NUM_FRAMES=2 DATA.TRAIN_CROP_SIZE=32 DATA.TEST_CROP_SIZE=32 TRAIN.BATCH_SIZE=2
    DATA.TRAIN_JITTER_SCALES=[32,32] DATA_LOADER.NUM_WORKERS=0 TENSORBOARD.ENABLE=false SOLVER.MAX_EPOCH=1
    SOLVER.LR_POLICY=cosine SOLVER.WARMUP_EPOCHS=0 BN.USE_PRECISE_STATS=false
""".split()  # noqa: SIM905 - as on a command line
OF_IMAGES = """
    MODEL.ARCH=placed MODEL.NUM_CLASSES=2 TRAIN.DATASET=imagenet TEST.DATASET=imagenet TRAIN.BATCH_SIZE=2
    TEST.BATCH_SIZE=2 TEST.IMAGE_CROP_SIZES=[32] DATA.TRAIN_JITTER_SCALES=[36,36] DATA.TRAIN_CROP_SIZE=32
    DATA.TEST_CROP_SIZE=32 DATA_LOADER.NUM_WORKERS=0 TENSORBOARD.ENABLE=false SOLVER.MAX_EPOCH=1
""".split()  # noqa: SIM905 - as on a command line


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedOptions:
    num_classes: int = 2


class Placed(Network):
    """No octave ratio, and a weight that is no layer's."""

    takes = "images"

    def __init__(self, options: PlacedOptions) -> None:
        super().__init__(3)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.head = Head(8, options.num_classes, dropout_rate=0.0)

    def features(self, x: Tensor) -> list[Tensor]:
        return [F.relu(self.conv(x) + self.place)]


@pytest.fixture(autouse=True)
def _registered():
    registry.register("plain", Family(PlainNet, PlainOptions, (3, 2, 32, 32)))
    registry.register("placed", Family(Placed, PlacedOptions, (3, 32, 32)))
    yield
    del registry.MODELS["plain"], registry.MODELS["placed"]


@pytest.fixture
def settings(repo):
    return lambda *more: load_config(str(repo / "configs/kinetics400/i3d.yaml"), [*SETTINGS, *more])


@pytest.fixture
def model():
    return create_model("plain", alpha=0.25, num_classes=4).eval()


def clip():
    return torch.randn(2, 3, 2, 32, 32)


def test_a_config_builds_it_with_its_own_options(settings):
    model = build_model(settings())

    assert model.config == {
        "name": "plain",
        "alpha": 0.25,
        "num_classes": 4,
        "width_per_group": 8,
        "depth": 3,
    }
    assert model.input_shape == (3, 2, 32, 32)


def test_a_setting_that_it_has_no_option_for_is_refused(settings):
    with pytest.raises(ConfigError, match=r"RESNET.BLOCK is 'preact'; plain has no option 'block'"):
        build_model(settings("RESNET.BLOCK=preact"))


def test_its_options_may_have_values_that_no_setting_takes(settings):
    model = build_model(settings("OCTCONV.ALPHA=0", 'MODEL.OPTIONS=["width_per_group=24"]'))

    assert model.config["width_per_group"] == 24
    with pytest.raises(ConfigError, match=r"set MODEL\.NUM_CLASSES instead"):
        build_model(settings('MODEL.OPTIONS=["num_classes=7"]'))


def test_a_file_of_one_has_settings_that_build_it_again():
    network = create_model("plain", alpha=0.25, width_per_group=24, depth=3, num_classes=5).config

    tree = network_settings(network)

    assert tree["MODEL"]["OPTIONS"] == ["alpha=0.25", "depth=3", "width_per_group=24"]
    built = build_model(config_from_text(yaml.safe_dump(tree), "of a network"))
    assert built.config == network


def test_a_name_is_given_once():
    with pytest.raises(ConfigError, match="there is a model 'plain' already"):
        registry.register("plain", registry.MODELS["plain"])


def test_it_trains_with_recomputation_and_its_checkpoint_brings_it_back(settings, tmp_path):
    cfg, procs = settings(f"OUTPUT_DIR={tmp_path}"), Processes()
    samples = GeneratedSamples((3, 2, 32, 32), 4, 4)

    summary = build_trainer(cfg, procs, build_data.train_loader(cfg, samples, procs), None).train()

    checkpoint = Checkpoint.read(summary.checkpoint)
    again = network_of(checkpoint).eval()
    assert again(clip()).shape == (2, 4)
    assert checkpoint.network["depth"] == 3


def test_a_run_of_one_that_reads_a_number_of_a_tensor_is_estimated(settings, monkeypatch):
    class Drawn(PlainNet):
        def __init__(self, options):
            super().__init__(options)
            self.rate = torch.linspace(0, 1, 3)[1].item()

    expected = clip_macs(settings())
    monkeypatch.setitem(registry.MODELS, "plain", Family(Drawn, PlainOptions, (3, 2, 32, 32)))

    assert clip_macs(settings()) == expected


def test_one_without_alpha_and_with_weights_that_are_not_counted_is_trained_and_tested(
    repo, tmp_path, capsys
):
    for path in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (tmp_path / path).mkdir(parents=True)
        Image.new("RGB", (40, 36)).save(tmp_path / path / "0.png")
    run = f"OUTPUT_DIR={tmp_path / 'run'} DATA.PATH_TO_DATA_DIR={tmp_path}".split()
    cfg = load_config(str(repo / "configs/cifar10/resnet20.yaml"), [*OF_IMAGES, *run])

    train(cfg, Processes())
    network = final_test(cfg, Processes())["protocol"]["network"]

    assert network["alpha"] == 0
    assert network["uncounted"] == ["place"]
    said = capsys.readouterr().out
    assert "MACs, without those of place" in said
    assert "GFLOPs per view are 0.000, without those of place" in said
    assert repr(list_models("placed")).endswith("placed: GFLOPs, without those of place")


def test_it_folds_counts_and_runs_faster(model):
    x = clip()

    folded = fold_batch_norm(model)

    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm3d)]
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(optimize(model, x)(x), model(x), rtol=1e-3, atol=1e-4)
    assert count_twice(model, model.input_shape)[0].macs > 0


@pytest.mark.filterwarnings("ignore:No complete tensor found in the group")
def test_it_is_exported_and_explained(model, tmp_path):
    assert export_model(model, clip(), tmp_path / "plain.pt2") < 1e-4
    assert gradcam(model, clip()[:1], 1, layer="body")["low"].shape == (2, 32, 32)
