"""Convolutions and norms of classes that others derived from torch's."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import octavize


class Conv(nn.Conv2d):
    """A class that only says how it is built."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)


class Scaled(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class NormAct(nn.BatchNorm2d):
    """A norm with its activation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(super().forward(x))


class Centered(NormAct):
    """The channels meet."""

    def forward(self, x):
        return super().forward(x - x.mean(1, keepdim=True))


class WithPReLU(NormAct):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.PReLU(channels)


class OnlyInTraining(NormAct):
    def forward(self, x):
        return super().forward(x) * (x.mean() if self.training else 1)


def network(norm: nn.Module, conv: nn.Module) -> nn.Module:
    nn.init.uniform_(norm.running_mean, -0.2, 0.2)
    nn.init.uniform_(norm.weight, 0.2, 1.0)
    return nn.Sequential(Conv(3, 32), Conv(32, 64), norm, conv, Conv(32, 32), Conv(32, 5))


def squares() -> torch.Tensor:
    return F.interpolate(torch.rand(4, 3, 4, 4), scale_factor=2.0)


@pytest.mark.parametrize("training", [False, True])
def test_a_norm_with_its_activation_is_split(training):
    model, x = network(NormAct(64), Conv(64, 32)), squares()

    octave = octavize(model, 0.5, x).train(training)

    assert isinstance(octave.get_submodule("2.high"), NormAct)
    assert octave.octave_report.notes == (
        "NormAct: not looked into; its forward asks self.training",
        "NormAct: split into two norms, after a trial on random numbers",
    )
    assert len(octave.octave_report.octave) == 4
    before = copy.deepcopy(octave.state_dict())
    torch.testing.assert_close(octave(x), model.train(training)(x), rtol=1e-4, atol=1e-5)
    assert training != torch.equal(
        before["2.high.running_mean"], octave.state_dict()["2.high.running_mean"]
    )
    assert torch.equal(octavize(model, 0.0, x)(x), model(x))


@pytest.mark.parametrize("kind", [Centered, WithPReLU, OnlyInTraining])
def test_a_norm_in_which_channels_meet_stays_whole(kind):
    model, x = network(kind(64), Conv(64, 32)).eval(), squares()

    octave = octavize(model, 0.5, x)

    assert type(octave.get_submodule("2")) is kind
    assert any("merged before, split behind" in note for note in octave.octave_report.notes)
    torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_with_a_forward_of_its_own_stays_whole():
    model, x = network(NormAct(64), Scaled(64, 32, 1)).eval(), squares()

    octave = octavize(model, 0.5, x)

    assert type(octave.get_submodule("3")) is Scaled
    torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_parametrized_convolution_stays_whole():
    model, x = network(NormAct(64), Conv(64, 32)).eval(), squares()
    nn.utils.parametrizations.weight_norm(model[3])

    octave = octavize(model, 0.5, x)

    assert nn.utils.parametrize.is_parametrized(octave.get_submodule("3"))
    torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)
