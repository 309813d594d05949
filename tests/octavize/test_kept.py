"""Hooks, shared weights and plain tensors of the layers that an octave network is made of."""

import copy
import pickle
import re

import pytest
import torch
from reparametrized import REPARAMETRIZED, pruned
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized

from octvideo import create_model, octavize
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


class AsksContent(nn.Module):
    def forward(self, x):
        return x if bool(torch.isfinite(x).all()) else torch.zeros_like(x)


@pytest.mark.parametrize("asks", ["layer", "hook"])
def test_a_head_that_asks_for_the_content_of_a_tensor_stays_as_it_is(asks):
    model = create_model("resnet20_cifar", alpha=0.0)
    if asks == "layer":
        model.head.dropout = AsksContent()
    else:
        model.head.fc.register_forward_hook(lambda module, x, out: print(float(out.detach().sum())))

    octave = octavize(model, 0.25, torch.rand(2, 3, 32, 32))

    assert octave.octave_report.macs < octave.octave_report.macs_before
    assert octave(torch.rand(2, 3, 32, 32)).shape == (2, 10)


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


COMPUTED = [*REPARAMETRIZED, parametrizations.weight_norm, parametrizations.spectral_norm]


@pytest.mark.parametrize("kind", [Net, Asserting])
@pytest.mark.parametrize("reparametrized", COMPUTED)
def test_a_layer_whose_weight_is_computed_stays_as_it_is(reparametrized, kind):
    model = kind(reparametrized(nn.Conv2d(32, 32, 3, padding=1)))
    model(IMAGE)

    octave, whole = octavize(model, 0.5, IMAGE), octavize(model, 0.0, IMAGE)

    assert octave.octave_report.macs_before == (3 + 3 * 32 + 9 * 32) * 32 * 64
    why = next(row for row in octave.octave_report.convolutions if row.name == "layer").why
    assert "each call computes its weights anew, until torch.nn.utils." in why
    for _ in range(2):  # a spectral norm moves its vectors
        assert torch.equal(whole.train()(IMAGE), model.train()(IMAGE))
    for name, buffer in model.named_buffers():
        assert torch.equal(whole.get_buffer(name), buffer)
    octave(IMAGE).sum().backward()
    assert all(p.grad is not None for p in octave.parameters())
    other = copy.deepcopy(octave)
    other.load_state_dict(octave.state_dict())
    assert torch.equal(other.eval()(IMAGE), octave.eval()(IMAGE))


@pytest.mark.parametrize(
    ("reparametrized", "remedy"),
    [
        (pruned, "prune.remove(module, 'weight')"),
        (parametrizations.weight_norm, "parametrize.remove_parametrizations(module, 'weight')"),
    ],
)
def test_what_needs_a_weight_that_is_computed_is_refused_with_the_remedy(reparametrized, remedy):
    model, call = Net(reparametrized(nn.Conv2d(32, 32, 1))), re.escape(f"torch.nn.utils.{remedy}")

    with pytest.raises(ConfigError, match=rf"layer cannot be octave: .* until {call}; exclude it"):
        octavize(model, 0.5, IMAGE, include=["layer"])
    with pytest.raises(ConfigError, match=rf"'fresh', and each call of layer .*; call {call} be"):
        octavize(model, 0.5, IMAGE, weights="fresh")


def test_an_octave_layer_of_computed_weights_stays_as_it_is():
    model = create_model("resnet20_cifar", num_classes=5).eval()
    parametrizations.weight_norm(model.get_submodule("res2.block0.first.conv").h2h)

    octave = octavize(model, 0.5, torch.rand(2, 3, 8, 8))

    assert is_parametrized(octave.get_submodule("res2.block0.first.conv").h2h)


def test_a_vector_of_a_spectral_norm_stays_where_a_linear_layer_is_counted():
    model = Net(nn.ReLU())
    model.conv4 = nn.Sequential(model.conv4, parametrizations.spectral_norm(nn.Linear(8, 8)))
    before = copy.deepcopy(model.state_dict())

    octavize(model, 0.5, IMAGE)

    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


class Scale(nn.Module):
    """By a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.rand(32)

    def forward(self, x):
        return x * self.scale.exp().view(1, -1, 1, 1)


class ScaledByNumber(nn.Module):
    def forward(self, x):
        return x * torch.tensor(2.0)


def test_the_tensor_that_torch_fx_makes_of_a_number_is_an_ordinary_one():
    model = fx.symbolic_trace(Net(ScaledByNumber()))

    octave = octavize(model, 0.5, IMAGE)

    same_in_squares(octave, model)
    assert octave(torch.rand(1, 3, 16, 16)).shape == (1, 32, 16, 16)


class Keeping(Scale):
    """A new tensor in each call."""

    def forward(self, x):
        self.scale = self.scale * 0.5
        return super().forward(x)


class KeepingBuffer(Keeping):
    def __init__(self) -> None:
        super().__init__()
        scale = self.scale
        del self.scale
        self.register_buffer("scale", scale)


class KeepingInPlace(Scale):
    def forward(self, x):
        self.scale.mul_(0.5)
        return super().forward(x)


class ByDefaultNone(Scale):
    scale = None


class FirstNone(nn.Module):
    """The mean of all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.before = None

    def forward(self, x):
        mean = x.detach().mean()
        self.before = mean if self.before is None else mean + self.before
        return x + self.before


class KeepingInList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [torch.zeros(1)]

    def forward(self, x):
        self.kept[0] = x.detach().mean() + self.kept[0]
        return x + self.kept[0]


class KeepingInDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = {}

    def forward(self, x):
        self.kept["x"] = x.detach().mean() + self.kept.get("x", 0)
        return x + self.kept["x"]


class KeepingInPlaceInList(KeepingInList):
    def forward(self, x):
        self.kept[0].add_(1)
        return x + self.kept[0]


class InList(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.scales = [self.scale, {"other": torch.rand(32)}]

    def forward(self, x):
        return (x * self.scales[0].view(-1, 1, 1)) * self.scales[1]["other"].view(-1, 1, 1)


@pytest.mark.parametrize("kind", [Net, Asserting])
@pytest.mark.parametrize(
    "layer",
    [
        *(Scale, Keeping, KeepingBuffer, KeepingInPlace, ByDefaultNone, InList),
        *(FirstNone, KeepingInList, KeepingInDict, KeepingInPlaceInList),
    ],
)
def test_tensors_that_are_plain_attributes_are_read_and_kept_as_before(layer, kind):
    model = kind(layer())

    octave = octavize(model, 0.5, IMAGE)

    for _ in range(2):
        same_in_squares(octave.eval(), model.eval())
        same_in_squares(copy.deepcopy(octave), copy.deepcopy(model))
    assert octavize(model, 0.0, IMAGE).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("kind", [Net, Asserting])
@pytest.mark.parametrize("layer", [FirstNone, KeepingInList, KeepingInDict, KeepingInPlaceInList])
def test_a_network_whose_own_forward_keeps_tensors_is_refused(layer, kind):
    class Root(kind):
        def forward(self, x):
            return layer.forward(self, super().forward(x))

    model = Root(nn.ReLU())
    vars(model).update({name: x for name, x in vars(layer()).items() if name in ("before", "kept")})

    with pytest.raises(ConfigError, match=r"assigns a buffer or a tensor, or .*; move that part"):
        octavize(model, 0.0, IMAGE)


class Measuring(nn.Module):
    def forward(self, x):
        self.size = x.shape[2:]
        return x * self.size[0]


@pytest.mark.parametrize("kind", [Net, Asserting])
def test_a_size_that_is_kept_is_no_tensor(kind):
    model = kind(Measuring()).eval()

    octave = octavize(model, 0.5, IMAGE)

    assert "Measuring" not in str(octave.octave_report)
    same_in_squares(octave, model)


def test_a_tensor_that_was_computed_with_a_gradient_is_refused():
    model = Net(Scale())
    model.layer.scale = model.conv1.bias * 2

    with pytest.raises(
        ConfigError, match=r"layer\.scale is a tensor that was computed with a grad"
    ):
        octavize(model, 0.5, IMAGE)


class ReadingInList(Net):
    """A convolution by the kernel of another one, which is not named."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.kernels = [self.conv2.weight]

    def forward(self, x):
        x = self.conv3(self.conv2(self.conv1(x)))
        return self.conv4(F.conv2d(x, self.kernels[0]))


class Extra(Net):
    """By a tensor of a convolution that is not its weight."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.conv2.extra = torch.rand(1, 32, 1, 1)

    def forward(self, x):
        return self.conv4(self.conv3(self.conv2(self.conv1(x)) * self.conv2.extra))


@pytest.mark.parametrize("kind", [ReadingInList, Extra])
def test_a_convolution_with_a_tensor_that_others_read_stays_whole(kind):
    model = kind()

    octave = octavize(model, 0.5, IMAGE)

    assert type(octave.conv2) is nn.Conv2d
    same_in_squares(octave, model)


def rectified(module, args, out):
    return out.relu()


def flipped(module, args):
    return (args[0].flip(3),)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_the_hooks_that_the_result_was_given(again):
    octave = octavize(Net(nn.ReLU()), 0.5, IMAGE)
    plain = octave(IMAGE.flip(3))
    octave.register_forward_hook(rectified)
    octave.register_forward_pre_hook(flipped)

    other = again(octave)

    assert torch.equal(other(IMAGE), plain.relu())


def with_ones(module, state, prefix, metadata):
    state[f"{prefix}ones"] = torch.ones(1)


def without_ones(module, state, prefix, *report):
    del state[f"{prefix}ones"]


def counted(module, *args):
    module.calls = getattr(module, "calls", 0) + 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_the_hooks_of_state_dicts_that_the_result_was_given(again):
    octave = octavize(Net(nn.ReLU()), 0.5, IMAGE)
    octave.register_state_dict_pre_hook(counted)
    octave.register_state_dict_post_hook(with_ones)
    octave.register_load_state_dict_pre_hook(without_ones)
    octave.register_load_state_dict_post_hook(counted)

    other = again(octave)
    other.load_state_dict(other.state_dict())

    assert "ones" in other.state_dict()
    assert other.calls == 3
