"""Hooks and shared weights of the layers that an octave network is made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import octavize
from octvideo.errors import ConfigError

IMAGE = torch.rand(2, 3, 8, 8)


class Net(nn.Module):
    """Four convolutions, with a layer in their midst."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1)
        self.layer = layer
        self.conv3, self.conv4 = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)

    def forward(self, x):
        return self.conv4(self.conv3(self.layer(self.conv2(self.conv1(x)))))


class Asserting(Net):
    """torch.fx cannot trace it."""

    def forward(self, x):
        assert isinstance(x, torch.Tensor)
        return super().forward(x)


def reversed_channels(module, args, out):
    return out.flip(1)


def same_in_squares(octave: nn.Module, model: nn.Module) -> None:
    """Pairs change nothing in maps of equal squares that only 1 x 1 kernels read."""
    x = F.interpolate(torch.rand(2, 3, 4, 4), scale_factor=2.0)
    torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["layer", "conv3"])
@pytest.mark.parametrize("kind", [Net, Asserting])
@pytest.mark.parametrize("layer", [nn.BatchNorm2d(32), nn.ReLU(), nn.Identity()])
def test_a_layer_with_hooks_stays_one_call_of_the_whole_map(layer, kind, name):
    model = kind(layer).eval()
    handle = model.get_submodule(name).register_forward_hook(reversed_channels)

    octave = octavize(model, 0.5, IMAGE)

    assert "it has hooks" in str(octave.octave_report)
    same_in_squares(octave, model)
    handle.remove()


def test_a_hook_for_gradients_sees_those_of_the_whole_map():
    model, seen = Net(nn.BatchNorm2d(32)), []
    model.layer.register_full_backward_hook(lambda module, into, out: seen.append(out[0].shape))

    octavize(model, 0.5, IMAGE)(IMAGE).sum().backward()

    assert seen == [(2, 32, 8, 8)]


def test_a_network_with_hooks_of_its_own_is_refused():
    model = Net(nn.ReLU())
    model.register_forward_hook(reversed_channels)
    with pytest.raises(ConfigError, match=r"Net has hooks, .* would lose; remove them"):
        octavize(model, 0.5, IMAGE)


@pytest.mark.parametrize("kind", [Net, Asserting])
def test_tied_weights_stay_tied(kind):
    model = kind(nn.BatchNorm2d(32)).eval()
    model.conv3.weight = model.conv2.weight

    octave = octavize(model, 0.5, IMAGE, weights="fresh")

    assert octave.conv3.weight is octave.conv2.weight
    assert sum(p.numel() for p in octave.parameters()) == sum(p.numel() for p in model.parameters())
    row = next(row for row in octave.octave_report.convolutions if row.name == "conv3")
    assert "another part of the network reads its weights" in row.why
    with pytest.raises(ConfigError, match=r"conv3 cannot be octave: another part.*; exclude it"):
        octavize(model, 0.5, IMAGE, include=["conv3"])


def test_norms_with_one_weight_stay_whole():
    model = Net(nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(), nn.BatchNorm2d(32))).eval()
    model.layer[2].weight = model.layer[0].weight

    octave = octavize(model, 0.5, IMAGE)

    assert octave.layer.get_submodule("2").weight is octave.layer.get_submodule("0").weight
    assert len(octave.octave_report.octave) == 3
    same_in_squares(octave, model)


class Reading(Net):
    """A convolution by the kernel of another one."""

    def forward(self, x):
        x = self.conv3(self.conv2(self.conv1(x)))
        return self.conv4(F.conv2d(x, self.conv2.weight))


def test_a_convolution_whose_kernel_is_read_by_its_name_stays_whole():
    model = Reading(nn.Identity())

    octave = octavize(model, 0.5, IMAGE)

    assert type(octave.conv2) is nn.Conv2d
    same_in_squares(octave, model)
