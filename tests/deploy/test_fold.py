"""Folding batch norms changes nothing but the number of operations."""

import pytest
import torch
from torch import nn

from octvideo import create_model
from octvideo.deploy.fold import fold_batch_norm

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int"}
NETWORKS = [
    ("c2d_r26", {**TINY, "alpha": 0.0}),
    ("i3d_r26", {**TINY, "alpha": 0.5}),
    ("i3d_r26", {**TINY, "alpha": 0.25, "block": "preact"}),
    ("i3d_nln_r26", {**TINY, "alpha": 0.25, "nonlocal_on": "cross"}),
    ("slowfast_r26", {**TINY, "alpha": 0.25}),
    ("resnet18", {"alpha": 0.25, "width_per_group": 16, "num_classes": 5}),
    ("preact_resnet26", {"alpha": 0.25, "width_per_group": 16, "num_classes": 5}),
]


def randomise_norms(model: nn.Module) -> nn.Module:
    """Statistics and gammas as after training: a fresh batch norm is nearly the identity, and hides mistakes."""
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
