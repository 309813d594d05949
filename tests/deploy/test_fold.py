"""Folding batch norms changes nothing but the number of operations."""

import re
from dataclasses import fields
from typing import ClassVar

import pytest
import torch
from narrow_networks import of_two_blocks
from reparametrized import REPARAMETRIZED, pruned, with_weight_norm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from octvideo import create_model, list_models, octavize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.engine.training.adapt import synchronize_batch_norm
from octvideo.layers import Channels, OctBatchNorm2d, OctConv2d, OctConv3d, OctTensor, as_pair
from octvideo.models.registry import family_of, input_shape_of

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int"}
NETWORKS = [
    ("c2d_r26", {**TINY, "alpha": 0.0}),
    ("i3d_r26", {**TINY, "alpha": 0.5}),
    ("i3d_r26", {**TINY, "alpha": 0.25, "block": "preact"}),
    ("i3d_nln_r26", {**TINY, "alpha": 0.25, "nonlocal_on": "cross"}),
    ("slowfast_r26", {**TINY, "alpha": 0.25}),
    ("resnet18", {"alpha": 0.25, "width_per_group": 16, "num_classes": 5}),
    ("preact_resnet26", {"alpha": 0.25, "width_per_group": 16, "num_classes": 5}),
    ("resnet50_glore", {"alpha": 0.25, "width_per_group": 16, "num_classes": 5}),
    ("densenet121", {"alpha": 0.25, "layers": (2, 2, 2, 2), "growth_rate": 16, "num_classes": 5}),
    ("mobilenet_v2", {"alpha": 0.25, "width": 0.5, "num_classes": 5}),
    ("i3d_nln_r26", {**TINY, "alpha": 0.25}),
]


def randomise_norms(model: nn.Module) -> nn.Module:
    """Statistics and gammas as after training: a fresh batch norm is nearly the identity, and hides
    mistakes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) and module.track_running_stats:
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_folded_network_computes_the_same(name, options):
    model = randomise_norms(create_model(name, **options))
    x = (
        torch.randn(2, 3, 8, 50, 50)
        if "_r" in name and "resnet" not in name
        else torch.randn(2, 3, 50, 50)
    )

    folded = fold_batch_norm(model)

    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert len(norms) < len(
        [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    )


def test_no_batch_norm_is_left_in_a_post_activation_network():
    folded = fold_batch_norm(create_model("i3d_r26", alpha=0.5, **TINY))

    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm3d)]


def test_the_network_itself_stays_as_it_was():
    model = create_model("c2d_r26", **TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    fold_batch_norm(model)

    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, OctConv2d, OctConv3d)


def norms_that_read_a_convolution(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """Names of the batch norms whose input is what a convolution gave, seen while the model
    runs."""
    written: dict[int, torch.Tensor] = {}  # held, so that no other tensor gets the same id
    found: list[str] = []

    def remember(module, inputs, output):
        parts = (output.high, output.low) if isinstance(output, OctTensor) else (output,)
        written.update({id(part): part for part in parts})

    def look(name):
        return lambda module, inputs: found.append(name) if id(inputs[0]) in written else None

    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_hook(remember)
        elif isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(look(name))
    with torch.no_grad():
        model(torch.empty(1, *shape, device="meta"))
    return found


EVERY_NETWORK = [
    pytest.param(name, marks=[pytest.mark.slow] if re.search("101|152|200", name) else [])
    for name in list_models()
]


def narrow(name: str, **options) -> nn.Module:
    """The network's layers, of few channels where its options allow it, and without repeated
    blocks."""
    if "width_per_group" in {field.name for field in fields(family_of(name).options)}:
        options["width_per_group"] = 16
    return of_two_blocks(name, **options)


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_folding_leaves_no_norm_right_behind_a_convolution(name):
    # Made on the CPU: on the meta device, initializing the weights takes ten times as long.
    folded = fold_batch_norm(narrow(name, alpha=0.25)).to("meta")

    assert norms_that_read_a_convolution(folded, input_shape_of(name)) == []


def test_norms_right_behind_a_convolution_are_seen_before_they_are_folded():
    with torch.device("meta"):
        model = create_model("resnet18", alpha=0.25).eval()

    assert len(norms_that_read_a_convolution(model, (3, 64, 64))) > 20


def test_a_folded_network_folds_again():
    folded = fold_batch_norm(create_model("c2d_r26", **TINY))

    assert fold_batch_norm(folded).state_dict().keys() == folded.state_dict().keys()


class Layer(nn.Module):
    norm_follows: ClassVar = {"bn": "conv"}

    def __init__(self, conv: nn.Module, bn: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn = conv, bn

    def forward(self, x):
        return self.bn(self.conv(x))


def with_pruned_bias(conv: nn.Module) -> nn.Module:
    return prune.l1_unstructured(conv, "bias", 0.5)


class Halved(nn.Conv2d):
    """It computes its weights itself."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / 2, self.bias)


class Rectified(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class DoubledConv(OctConv2d):
    def forward(self, x):
        return super().forward(x).map(lambda part: 2 * part)


class DoubledHigh(OctConv2d):
    def to_high(self, pooled, low):
        return 2 * super().to_high(pooled, low)


class RectifiedPair(OctBatchNorm2d):
    def forward(self, x):
        return super().forward(x).map(torch.relu)


class MySyncBatchNorm(Rectified):
    """Its name tells nothing."""


def octave(conv=OctConv2d, norm=OctBatchNorm2d) -> nn.Module:
    return Layer(conv(Channels(3), Channels(4, 4), 3, padding=1), norm(Channels(4, 4)))


def octave_with_a_path_of_its_own_class() -> nn.Module:
    layer = octave()
    layer.conv.h2l = Halved(3, 4, 3, padding=1)
    return layer


def seen_in_backward(module: nn.Module) -> nn.Module:
    module.register_full_backward_hook(lambda *_: None)
    return module


def of_class(kind: type) -> nn.Module:
    return Layer(kind(3, 8, 3), nn.BatchNorm2d(8))


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, inputs, output: output.relu())
    return module


def octave_of_computed_weights() -> nn.Module:
    layer = octave()
    weight_norm(layer.conv.h2l)
    return layer


def of(conv=lambda x: x, norm=lambda x: x, **options) -> nn.Module:
    return Layer(conv(nn.Conv2d(3, 8, 3)), norm(nn.BatchNorm2d(8, **options)))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: of(weight_norm),
        lambda: of(spectral_norm),
        lambda: of(pruned),
        lambda: of(with_weight_norm),
        lambda: of_class(Halved),
        lambda: Layer(nn.Conv2d(3, 8, 3), Rectified(8)),
        lambda: of(with_pruned_bias),
        lambda: of(hooked),
        lambda: of(norm=hooked),
        lambda: of(track_running_stats=False),
        lambda: Layer(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)),
        lambda: Layer(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)),
        octave_of_computed_weights,
        octave_with_a_path_of_its_own_class,
        lambda: octave(conv=DoubledConv),
        lambda: octave(conv=DoubledHigh),
        lambda: octave(norm=RectifiedPair),
        lambda: Layer(nn.Conv2d(3, 8, 3), MySyncBatchNorm(8)),
        lambda: of(seen_in_backward),
        lambda: of(norm=seen_in_backward),
    ],
)
def test_a_norm_that_cannot_be_folded_stays(layer):
    model, x = randomise_norms(layer()), torch.randn(2, 3, 6, 6)

    folded = fold_batch_norm(model)

    assert type(folded.bn) is type(model.bn)
    with torch.no_grad():
        found, expected = as_pair(folded(x)), as_pair(model(x))
    torch.testing.assert_close(found.high, expected.high)
    torch.testing.assert_close(found.low, expected.low)


def test_a_class_that_changes_only_how_a_convolution_is_built_is_folded():
    class Pointwise(nn.Conv2d):
        def __init__(self, in_channels: int, out_channels: int, _kernel: int) -> None:
            super().__init__(in_channels, out_channels, 1)

    model, x = randomise_norms(of_class(Pointwise)), torch.randn(2, 3, 6, 6)

    folded = fold_batch_norm(model)

    assert type(folded.bn) is nn.Identity
    torch.testing.assert_close(folded(x), model(x))


def test_octave_classes_that_change_only_how_they_are_built_are_folded():
    class Conv(OctConv2d):
        pass

    class Norm(OctBatchNorm2d):
        pass

    assert type(fold_batch_norm(octave(Conv, Norm)).bn) is nn.Identity


def synchronized_by_torch() -> nn.Module:
    return nn.SyncBatchNorm(8)


def synchronized_by_octvideo() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    synchronize_batch_norm(norm, torch.device("cpu"))
    return norm


def synchronized_by_pytorchvideo() -> nn.Module:
    return pytest.importorskip("pytorchvideo.layers.batch_norm").NaiveSyncBatchNorm2d(8)


@pytest.mark.parametrize(
    "make", [synchronized_by_torch, synchronized_by_octvideo, synchronized_by_pytorchvideo]
)
def test_a_synchronized_norm_is_folded(make):
    model, x = Layer(nn.Conv2d(3, 8, 3), make()), torch.randn(2, 3, 6, 6)
    nn.init.uniform_(model.bn.running_var, 0.5, 1.5)

    folded = fold_batch_norm(model)

    assert type(folded.bn) is nn.Identity
    torch.testing.assert_close(folded(x), model.eval()(x))


class Two(nn.Module):
    norm_follows: ClassVar = {"bn1": "conv1", "bn2": "conv2"}

    def __init__(self, conv1: nn.Module, conv2: nn.Module) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv1, nn.BatchNorm2d(3)
        self.conv2, self.bn2 = conv2, nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn2(self.conv2(self.bn1(self.conv1(x))))


class AlsoReads(nn.Module):
    """Its kernel is read by its name, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x)) + nn.functional.conv2d(x, self.conv.weight)


def tied() -> nn.Module:
    model = Two(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1, bias=False))
    model.conv2.weight = model.conv1.weight
    return model


def one_convolution_of_two_norms() -> nn.Module:
    conv = nn.Conv2d(3, 3, 1)
    return Two(conv, conv)


def octavized(make):
    return lambda: octavize(make(), 0.5, torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("make", "num_norms"),
    [
        (tied, 0),
        (one_convolution_of_two_norms, 2),
        (octavized(tied), 2),
        (octavized(one_convolution_of_two_norms), 2),
        (octavized(AlsoReads), 1),
    ],
)
def test_norms_behind_weights_that_others_read_are_folded_without_harm_or_stay(make, num_norms):
    model, x = randomise_norms(make()), torch.randn(2, 3, 8, 8)

    folded = fold_batch_norm(model)

    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == num_norms


@pytest.mark.parametrize("reparametrized", REPARAMETRIZED)
def test_a_network_of_computed_weights_is_folded_after_it_was_trained(reparametrized):
    model, x = of(reparametrized), torch.randn(2, 3, 6, 6)
    model(x).sum().backward()

    folded = fold_batch_norm(model)

    assert torch.equal(folded(x), model.eval()(x))
