"""What the trace answers from the example, what it keeps as a check, and what stays one opaque
call."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from octvideo import octavize
from octvideo.complexity import count
from octvideo.errors import ConfigError
from octvideo.models.network import Head, Network
from octvideo.octavize.tracing import trace

IMAGE = torch.rand(1, 3, 16, 16)


class BySize(nn.Module):
    """Pools large inputs."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.conv1(x)
        if x.shape[-1] > 16:
            x = self.pool(x)
        return self.conv2(x).mean((2, 3))


class ByContent(nn.Module):
    """Doubles bright inputs."""

    def forward(self, x):
        if x.mean() > 0.5:
            return 2 * x
        return x


class InTraining(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) if self.training else x


class InLoop(nn.Module):
    """Asks for sizes in every way that torch.fx cannot answer alone."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, 1, 1) for _ in range(2))

    def forward(self, x):
        n, c, *size = x.shape
        assert c == 3, f"got {c} channels"
        for _ in range(len(size)):
            for conv in self.convs:
                x = conv(x)
        return x.reshape(n, c, int(size[0]) * size[1]).mean(2)


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), *layers, nn.Conv2d(32, 32, 3, 1, 1))


def test_control_flow_by_shape_follows_the_example_and_is_checked():
    model = BySize()
    octave = octavize(model, 0.0, IMAGE)

    assert torch.equal(octave(IMAGE), model(IMAGE))
    with pytest.raises(
        ConfigError, match=r"test_tracing.py:\d+: if x.shape\[-1\] > 16.*gives True"
    ):
        octave(torch.rand(1, 3, 32, 32))


def test_sizes_in_loops_assertions_and_unpacking_are_answered():
    model = InLoop()
    octave = octavize(model, 0.0, IMAGE)
    assert torch.equal(octave(IMAGE), model(IMAGE))


def test_the_batch_stays_free():
    octave = octavize(BySize(), 0.5, IMAGE)
    assert octave(torch.rand(3, 3, 16, 16)).shape == (3, 32)


def test_a_submodule_that_asks_for_content_stays_one_call():
    model = sequence(ByContent())
    octave = octavize(model, 0.0, IMAGE)

    assert torch.equal(octave(IMAGE), model(IMAGE))
    (note,) = octave.octave_report.notes
    assert "ByContent: not looked into" in note
    assert "if x.mean() > 0.5" in note


def test_a_network_that_asks_for_content_itself_is_refused_with_the_line():
    with pytest.raises(ConfigError, match=r"^ByContent .*test_tracing.py:\d+: if x.mean\(\) > 0.5"):
        octavize(ByContent(), 0.5, IMAGE)


def test_a_submodule_that_asks_self_training_works_in_both_modes():
    model = sequence(InTraining())
    octave = octavize(model, 0.0, IMAGE)

    for on in (True, False):
        model.train(on)
        octave.train(on)
        torch.manual_seed(1)
        expected = model(IMAGE)
        torch.manual_seed(1)
        assert torch.equal(octave(IMAGE), expected)


def test_a_network_that_asks_self_training_itself_is_refused():
    with pytest.raises(ConfigError, match="its forward itself asks self"):
        octavize(InTraining(), 0.5, IMAGE)


def test_an_octave_network_is_refused():
    from octvideo import create_model

    with torch.device("meta"):
        model = create_model("resnet20_cifar", alpha=0.5)
    with pytest.raises(ConfigError, match="octave already"):
        octavize(model, 0.5, IMAGE)


def test_values_have_the_shapes_of_the_network(tmp_path):
    graph = trace(BySize(), IMAGE).graph
    shapes = [tuple(n.meta["value"].shape) for n in graph.nodes if n.op == "call_module"]
    assert shapes == [(2, 32, 16, 16), (2, 32, 16, 16)]


class Frozen(nn.Module):
    """A part that never learns."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        with torch.no_grad():
            return self.conv(x)


class InFloat32(Frozen):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.conv(x).float()


@pytest.mark.parametrize("kind", [Frozen, InFloat32])
def test_a_submodule_that_enters_a_context_stays_one_call(kind):
    model = sequence(kind())

    octave = octavize(model, 0.0, IMAGE).train()

    assert torch.equal(octave(IMAGE), model.train()(IMAGE))
    assert f"{kind.__name__}: not looked into" in octave.octave_report.notes[0]
    octave(IMAGE).sum().backward()
    frozen = [p for name, p in octave.named_parameters() if "1.conv" in name]
    assert all((p.grad is None) == (kind is Frozen) for p in frozen)


def test_a_network_that_enters_a_context_itself_is_refused_with_the_line():
    with pytest.raises(
        ConfigError, match=r"test_tracing\.py:\d+: return self\.conv.*neither no_grad"
    ):
        octavize(Frozen(), 0.5, torch.rand(2, 32, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_submodule_stays_one_call():
    model = sequence(torch.jit.script(nn.Hardswish()))

    octave = octavize(model, 0.0, IMAGE)

    assert torch.equal(octave(IMAGE), model(IMAGE))


class InNumpy(nn.Module):
    """Sizes through numpy, a flag of the mode, tensors made of numbers, and a buffer that is not
    saved."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.register_buffer("mean", torch.rand(3, 1, 1), persistent=False)

    def forward(self, x):
        assert not hasattr(x, "tensors")
        x = (x - 2 * self.mean) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
        x = nn.functional.dropout(self.conv1(x), 0.3, self.training)
        x = np.float32(0.5) * self.conv2(x)
        return x.reshape(-1, 32, np.prod(x.shape[2:])).mean(2) / np.sqrt(x.shape[2])


@pytest.mark.parametrize("training", [False, True])
def test_numpy_numbers_flags_and_buffers_are_traced(training):
    model = InNumpy().train(training)
    octave = octavize(model, 0.0, IMAGE)

    assert octave.octave_report.notes == ()
    assert list(octave.state_dict()) == list(model.state_dict())
    outputs = []
    for network in (model, octave):
        torch.manual_seed(0)
        outputs.append(network(IMAGE))
    assert torch.equal(*outputs)
    trained = octavize(model, 0.5, IMAGE, include=["*"])
    assert not torch.equal(trained(IMAGE), trained(IMAGE)) or not training


class InNetwork(nn.Sequential):
    def forward(self, x):
        return InTraining.forward(self, super().forward(x))


class WithHead(Network):
    takes = "images"
    modes: ClassVar[list[bool]] = []

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(3)
        self.layers, self.head = sequence(layer), Head(32, 5, 0.0)

    def features(self, x):
        self.modes.append(self.training)
        return [self.layers(x)]


def test_features_are_traced_once_in_each_mode_and_count_with_their_head():
    model = WithHead(nn.Conv2d(32, 32, 3, 1, 1))
    WithHead.modes.clear()

    report = octavize(model, 0.0, IMAGE).octave_report

    assert WithHead.modes == [False, True]
    assert report.macs == count(model, IMAGE.shape[1:]).macs


def test_what_asks_self_training_in_the_features_counts_as_in_evaluation():
    model = WithHead(InNetwork(nn.Conv2d(32, 32, 3, 1, 1)))

    report = octavize(model, 0.0, IMAGE).octave_report

    assert report.macs == count(model, IMAGE.shape[1:]).macs
    assert "InNetwork: not looked into; its forward asks self.training" in report.notes


class ChangesItsList(WithHead):
    def forward(self, x):
        pathways = self.features(x)
        pathways[0] = pathways[0] * 2
        return self.head(pathways)


def test_a_forward_may_change_the_list_of_its_features():
    model = ChangesItsList(nn.ReLU()).eval()

    assert torch.equal(octavize(model, 0.0, IMAGE)(IMAGE), model(IMAGE))


def test_no_batch_norm_is_computed_where_there_is_no_data(monkeypatch):
    monkeypatch.setattr(nn.functional, "batch_norm", None)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, momentum=None), nn.ReLU(True))

    *_, norm, relu, _ = trace(model, IMAGE).graph.nodes

    assert norm.meta["value"].shape == (2, 8, 16, 16)
    assert norm.meta["value"] is not norm.args[0].meta["value"]
    assert relu.meta["writes"] == []  # into the norm's output, which nothing else reads
    monkeypatch.undo()
    assert model(IMAGE).min() == 0


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([nn.BatchNorm2d(4)], "running_mean should contain 8 elements not 4"),
        ([nn.BatchNorm3d(8)], "expected 4D or 5D input|expected 5D"),
        ([nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8)], ""),
    ],
)
def test_a_batch_norm_refuses_what_it_always_refuses(layers, reason):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *layers)

    if reason:
        with pytest.raises(ConfigError, match=reason):
            trace(model, IMAGE)
    else:
        assert trace(model, IMAGE)
