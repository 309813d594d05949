"""The network of a checkpoint computes what the trained one did, with tensors that no state dict
has."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from octvideo import create_model, list_models, octavize
from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.models import registry
from octvideo.models.network import Family, Head, Network
from octvideo.weights.load import load_weights, network_of

IMAGE, CLIP = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 8, 32, 32)


def loaded(model: nn.Module) -> nn.Module:
    return network_of(Checkpoint("w.pyth", model.state_dict(), network=model.config)).eval()


@pytest.mark.parametrize("weights", ["as_is", "fresh"])
def test_an_octavized_network_comes_back_with_the_orders_of_its_channels(weights):
    vanilla = create_model("densenet121", num_classes=5, layers=(2, 2), growth_rate=16)
    octave = octavize(vanilla, 0.25, IMAGE, weights=weights).eval()
    assert set(dict(octave.named_buffers())) - set(octave.state_dict())

    assert torch.equal(loaded(octave)(IMAGE), octave(IMAGE))


def test_an_octavized_network_that_makes_tensors_as_it_runs_comes_back():
    vanilla = create_model("slowfast_r26", num_classes=5, width_per_group=16)
    octave = octavize(vanilla, 0.25, CLIP).eval()

    assert torch.equal(loaded(octave)(CLIP), octave(CLIP))


@dataclass(frozen=True)
class Options:
    num_classes: int = 4
    rate: float = 0.5
    width: int = 8


class Scaled(Network):
    """Of one's own; `scale` is not in its state dict."""

    takes = "clips"

    def __init__(self, options: Options) -> None:
        super().__init__(3)
        self.conv = nn.Conv3d(3, options.width, 1)
        self.head = Head(options.width, options.num_classes, 0.0)
        self.add_scale(options)

    def features(self, x):
        return [self.conv(x) * self.scale]


class WithBuffer(Scaled):
    def add_scale(self, options):
        self.register_buffer("scale", torch.full((8, 1, 1, 1), options.rate), persistent=False)


class WithAttribute(Scaled):
    def add_scale(self, options):
        self.scale = torch.full((8, 1, 1, 1), options.rate)


class WithNumber(Scaled):
    def add_scale(self, options):
        self.scale = [rate.item() for rate in torch.linspace(0, options.rate, 3)][-1]


class Around(Network):
    """All of its names begin as those of a wrapped network do."""

    takes = "clips"

    def __init__(self, options: Options) -> None:
        super().__init__(3)
        self.model = nn.ModuleDict(
            {
                "conv": nn.Conv3d(3, options.width, 1),
                "head": Head(options.width, options.num_classes, 0.0),
            }
        )

    def features(self, x):
        return [self.model["conv"](x)]

    def forward(self, x):
        return self.model["head"](self.features(x))


@pytest.fixture(params=[WithBuffer, WithAttribute, WithNumber])
def own(request, monkeypatch):
    name = request.param.__name__  # the costs of networks are kept by their names
    monkeypatch.setitem(registry.MODELS, name, Family(request.param, Options, (3, 8, 32, 32)))
    return create_model(name).eval()


def test_a_family_of_ones_own_comes_back_with_all_that_it_computes(own):
    assert torch.equal(loaded(own)(CLIP), own(CLIP))
    assert loaded(own.to(torch.float64)).conv.weight.dtype == torch.float32


@pytest.mark.parametrize("wrapper", ["", "_orig_mod.", "model."])
def test_a_family_whose_names_begin_as_a_wrappers_comes_back(wrapper, monkeypatch, tmp_path):
    monkeypatch.setitem(registry.MODELS, "around", Family(Around, Options, (3, 8, 32, 32)))
    own, path = create_model("around").eval(), str(tmp_path / "w.pyth")
    state = {f"{wrapper}{name}": tensor for name, tensor in own.state_dict().items()}
    Checkpoint(path, state, network=own.config).write(path)

    again, loaded = network_of(Checkpoint.read(path)).eval(), create_model("around").eval()
    load_weights(loaded, path)

    assert torch.equal(again(CLIP), own(CLIP))
    assert torch.equal(loaded(CLIP), own(CLIP))


def test_a_family_of_ones_own_is_refused_with_weights_of_another_size(own):
    checkpoint = Checkpoint("w.pyth", own.state_dict(), network={**own.config, "num_classes": 5})

    with pytest.raises(CheckpointError, match=r"w.pyth: its weights do not fit With.*: .*head.fc"):
        network_of(checkpoint)


@pytest.mark.parametrize("own", [WithBuffer, WithAttribute], indirect=True)
def test_its_description_cannot_ask_for_more_memory_than_the_weights_have(own):
    checkpoint = Checkpoint("w.pyth", own.state_dict(), network={**own.config, "width": 10**12})

    with pytest.raises(CheckpointError, match="do not fit With"):
        network_of(checkpoint)


@pytest.mark.parametrize("own", [WithBuffer, WithNumber], indirect=True)
def test_a_family_of_ones_own_is_listed_with_its_cost(own):
    assert list_models()[own.config["name"]].parameters == sum(p.numel() for p in own.parameters())
