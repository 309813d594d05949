"""Which kind of network weights are of, and so how they fill another one."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import octvideo
from octvideo import create_model, list_models
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.config import load_config
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models import registry
from octvideo.models.network import Family, Head, Network
from octvideo.weights.image_weights import read_image_weights
from octvideo.weights.start import fill, is_image, is_to_be_inflated

INPUT = InputSpec(
    num_frames=2,
    sampling_rate=4,
    sampling_rule="pyslowfast",
    target_fps=30.0,
    crop_size=32,
    short_side=32,
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
)


@dataclass(frozen=True)
class Options:
    num_classes: int = 2


class FrameByFrame(Network):
    """A video network of 2D kernels, as TSN is."""

    takes = "clips"

    def __init__(self, options: Options) -> None:
        super().__init__(3)
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = Head(8, options.num_classes, 0.0)

    def features(self, x):
        frames = self.conv(x.transpose(1, 2).flatten(0, 1))
        return [frames.unflatten(0, (len(x), -1)).transpose(1, 2)]


@pytest.fixture
def family(monkeypatch):
    monkeypatch.setitem(registry.MODELS, "frames", Family(FrameByFrame, Options, (3, 2, 32, 32)))


@pytest.fixture
def checkpoint(family, tmp_path):
    model = create_model("frames")
    path = str(tmp_path / "frames.pyth")
    found = Checkpoint(
        path, model.state_dict(), network=model.config, class_names=["a", "b"], input=INPUT
    )
    found.write(path)
    return found


def test_a_video_network_of_2d_kernels_is_loaded(checkpoint):
    recognizer = octvideo.load(checkpoint.path, device="cpu")

    assert isinstance(recognizer.model, FrameByFrame)


def test_a_video_network_of_2d_kernels_starts_from_its_own_weights(checkpoint):
    model = create_model("frames")
    assert not is_to_be_inflated(checkpoint, model)

    fill(model, checkpoint)

    assert torch.equal(model.conv.weight, checkpoint.state["conv.weight"])


def test_weights_of_a_video_network_of_2d_kernels_are_not_inflated(checkpoint):
    with pytest.raises(CheckpointError, match="the weights of frames, a video network; set TRAIN"):
        read_image_weights(checkpoint)


def test_kernels_tell_where_the_file_names_no_known_network():
    image, video = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3, 3)

    assert is_image(Checkpoint(state={"w": image}))
    assert is_image(Checkpoint(state={"w": image}, network={"name": "not_registered"}))
    assert not is_image(Checkpoint(state={"w": image, "v": video}))


def test_every_registered_family_takes_what_its_networks_take():
    for name in ("i3d_r26", "resnet18", *list_models("ptv:*")):
        with torch.device("meta"):
            model = create_model(name)
        assert (model.takes == "clips") == registry.MODELS[name].takes_clips


def test_a_network_that_is_not_registered_is_one_line_with_the_remedy(checkpoint, monkeypatch):
    monkeypatch.delitem(registry.MODELS, "frames")

    with pytest.raises(
        CheckpointError,
        match=r"frames.pyth: there is no model 'frames'; octvideo.list_models\(\) names them"
        r" \(register one of your own first, with octvideo.models.registry.register\)$",
    ):
        octvideo.load(checkpoint.path)


def test_a_config_of_a_network_that_is_not_registered_names_the_remedy(repo):
    with pytest.raises(ConfigError, match=r"MODEL.ARCH is 'frames'; .*; register one of your own"):
        load_config(str(repo / "configs/kinetics400/i3d.yaml"), ["MODEL.ARCH=frames"])
