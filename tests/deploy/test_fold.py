"""Folding batch norms changes nothing but the number of operations."""

import re
from dataclasses import fields

import pytest
import torch
from narrow_networks import two_blocks_per_stage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octvideo import create_model, list_models
from octvideo.deploy.fold import fold_batch_norm
from octvideo.layers import OctConv2d, OctConv3d, OctTensor
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
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
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
    """The network's layers, of few channels where its options allow it, and without repeated blocks
    but in those of pytorchvideo, which are graphs."""
    if "width_per_group" in {field.name for field in fields(family_of(name).options)}:
        options["width_per_group"] = 16
    model = create_model(name, **options)
    return model if name.startswith("ptv:") else two_blocks_per_stage(model)


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
