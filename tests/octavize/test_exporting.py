"""Networks that torch.fx cannot trace, by torch.export: the same promises, or a refusal in one
line."""

import copy
import pickle

import pytest
import torch
from stand_ins import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo import octavize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.errors import ConfigError

IMAGE = torch.rand(2, 3, 16, 16)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64)
        self.conv3, self.scale = nn.Conv2d(64, 64, 3, 1, 1), nn.Parameter(torch.ones(32, 1, 1))
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(64, 5)
        self.register_buffer("calls", torch.zeros(()))

    def stem(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)), inplace=True)

    def head(self, x: Tensor) -> Tensor:
        x = self.conv3(F.relu(self.bn2(self.conv2(x))))
        return self.fc(self.drop(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)))


class AsksType(Small):
    def forward(self, x):
        if not isinstance(x, Tensor):
            raise TypeError("a tensor")
        return self.head(self.scale * self.stem(x) + torch.arange(x.shape[-1], device=x.device))


class AssignsSlices(Small):
    def forward(self, x):
        x = self.stem(x)
        x[:, :3, 2:] = 0.5
        x[:, 0] += 1
        x += self.scale
        x.clamp_(max=2)
        return self.head(x)


class ReadsNumbers(Small):
    def forward(self, x):
        x = self.stem(x)
        return self.head(F.dropout(x / x.detach().abs().max().item(), 0.2, self.training))


class Counts(Small):
    def forward(self, x):
        self.calls += 1
        return self.head(self.stem(x)) * self.calls


class CallsScript(Small):
    """The function is made when it is called: torch warns that scripting is deprecated."""

    def forward(self, x):
        x = torch.jit.script(_swish)(self.stem(x))
        return self.head(F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0))


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class HasParts(Small):
    """A part that asks for the mode and is changed in place, a norm that counts its batches, and
    slices of all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(32, momentum=None)
        self.drop_path = DropPath()

    def forward(self, x):
        assert isinstance(x, Tensor)
        x = self.stem(x)
        y = self.drop_path(x * 2)
        y += x[:, :32]
        return self.head(y)


FORMS = [AsksType, AssignsSlices, ReadsNumbers, Counts, CallsScript, HasParts]
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*torch.jit"
)


@pytest.fixture(scope="module", params=FORMS, ids=lambda kind: kind.__name__)
def networks(request) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The network, and as octave network at 0 and at 0.25."""
    model = request.param()
    model(torch.rand(4, 3, 16, 16))  # statistics of its own
    return model, octavize(model, 0.0, IMAGE[:1]), octavize(model, 0.25, IMAGE[:1])


@pytest.mark.parametrize("training", [True, False])
def test_alpha_zero_is_the_network_bit_for_bit(networks, training):
    model, same = (copy.deepcopy(network).train(training) for network in networks[:2])
    for batch in (IMAGE, torch.rand(3, 3, 16, 16)):
        outputs = []
        for network in (model, same):
            torch.manual_seed(0)
            outputs.append(network(batch))
        assert torch.equal(*outputs)
    state, expected = same.state_dict(), model.state_dict()
    unused = {"scale", "calls"} - state.keys()  # left out, as torch.fx does
    assert state.keys() == expected.keys() - unused
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


def test_the_report_says_so(networks):
    report = networks[2].octave_report

    assert len(report.octave) == 2
    assert "traced by torch.export, for inputs of the example's size and type; " in report.notes[0]


def test_it_trains(networks):
    octave = copy.deepcopy(networks[2]).train()
    optimizer = torch.optim.SGD(octave.parameters(), 0.1)
    before = copy.deepcopy(octave.state_dict())

    octave(IMAGE).square().sum().backward()
    optimizer.step()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in octave.parameters())
    assert not torch.equal(octave.bn1.running_mean, before["bn1.running_mean"])
    octave.eval()
    assert torch.equal(octave(IMAGE), octave(IMAGE)) or isinstance(networks[0], Counts)


def test_any_batch_is_copied_folded_and_exported(networks):
    octave = copy.deepcopy(networks[2]).eval()
    copies = [pickle.loads(pickle.dumps(octave)), fold_batch_norm(octave)]

    one = octave(IMAGE[:1])

    assert one.shape == (1, 5)
    for other in copies:
        torch.testing.assert_close(other(IMAGE[:1]), one, rtol=1e-4, atol=1e-5)
    assert not [m for m in copies[1].modules() if type(m) is nn.BatchNorm2d]
    if not isinstance(networks[0], Counts | ReadsNumbers):
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(octave, (IMAGE,), dynamic_shapes=({0: batch},))
        torch.testing.assert_close(program.module()(IMAGE[:1]), one)


def test_another_size_is_refused(networks):
    with pytest.raises(ConfigError, match=r"x.shape\[1:\].*call octavize with an example"):
        networks[1](torch.rand(2, 3, 20, 16))


class Centers(Small):
    """Subtracts from each map what `mean` gives of it."""

    def __init__(self, mean) -> None:
        super().__init__()
        self.mean = mean
        self.conv2, self.conv3 = nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 1)

    def forward(self, x):
        assert isinstance(x, Tensor)
        y = self.bn2(self.conv2(self.stem(x)))
        return self.conv3(y - self.mean(y)).amax((2, 3))


@pytest.mark.parametrize(
    ("mean", "merges"),
    [
        (lambda y: y.mean((1, 2, 3), keepdim=True), True),
        (lambda y: y.amax((-3, -2, -1), keepdim=True), True),
        (lambda y: y.mean((2, 3), keepdim=True), False),
        (lambda y: y.mean((-1, -2)).unflatten(1, (-1, 1, 1)), True),
    ],
)
def test_a_mean_over_channels_merges_the_pair(mean, merges):
    model = Centers(mean).eval()
    octave = octavize(model, 0.25, IMAGE).eval()
    x = F.interpolate(torch.rand(3, 3, 8, 8), scale_factor=2)  # both resolutions hold it
    nn.init.dirac_(model.conv1.weight)
    octave.conv1.load_state_dict(model.conv1.state_dict())

    torch.testing.assert_close(octave(x), model(x))
    assert any("merged before" in note for note in octave.octave_report.notes) == merges


class Refused(Small):
    """Each reason after `isinstance`, at which torch.fx stops."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def forward(self, x):
        assert isinstance(x, Tensor)
        y = self.stem(x)
        if self.reason == "training" and self.training:
            y = y + 1
        if self.reason == "content" and y.mean() > 0:
            y = 2 * y
        if self.reason == "one" and x.shape[0] == 1:
            y = 2 * y
        if self.reason == "which":
            y = self.stem(x if x.shape[0] == 1 else 1 - x)
        if self.reason == "batch" and x.shape[0] % 2:
            y = 2 * y
        if self.reason == "context":
            with torch.no_grad():
                y = 2 * y
        if self.reason == "input":
            x -= 1
        if self.reason == "size":
            y = y + y[y > 0].mean() * len(y[y > 0])
        if self.reason == "view":
            y.unsqueeze(2).mul_(2)
        if self.reason == "names":
            z = y[:, :2]
            y *= 2
            y = y + z.mean()
        y = self.head(y)
        if self.reason == "one at the end" and x.shape[0] == 1:
            y = 2 * y
        if self.reason == "two at the end" and x.shape[0] > 1:
            y = 2 * y
        return y


REASONS = {
    "training": "its forward asks self.training",
    "content": r"self.reason == \"content\" and .*: the content of a tensor decides",
    "one": r"the batch decides",
    "which": r"py:\d+: .*: the batch decides",
    "one at the end": r"py:\d+: y = 2 \* y: the batch decides",
    "two at the end": r"py:\d+: y = 2 \* y: the batch decides",
    "batch": r"the batch decides what is computed: .*% 2",
    "context": r"py:\d+: y = 2 \* y: a graph keeps neither no_grad nor autocast",
    "input": r"py:\d+: x -= 1: it changes the input of the network",
    "size": r"py:\d+: y = y \+ y\[y > 0\].*: the content of a tensor decides",
    "view": r"py:\d+: y.unsqueeze\(2\).mul_\(2\): it writes into a view of a tensor",
    "names": r"py:\d+: y \*= 2: it writes into a tensor that has another name too",
}


@pytest.mark.parametrize("reason", REASONS)
def test_what_an_exported_program_would_fix_is_refused_with_its_place(reason):
    message = f"isinstance.*; nor by torch.export: .*{REASONS[reason]}.*; move that part into"
    with pytest.raises(ConfigError, match=message) as refusal:
        octavize(Refused(reason), 0.25, IMAGE)
    assert "\n" not in str(refusal.value)


class WithWindowScores(Small):
    """Its features are traced by themselves, which torch.export does not do."""

    def features(self, x):
        assert isinstance(x, Tensor)
        return self.stem(x)

    def window_scores(self, x):
        return self.features(x).mean((2, 3))

    def forward(self, x):
        return self.window_scores(x) + 100


def test_features_that_torch_fx_cannot_trace_are_refused():
    with pytest.raises(ConfigError, match="isinstance") as refusal:
        octavize(WithWindowScores(), 0.25, IMAGE)
    assert "torch.export" not in str(refusal.value)
