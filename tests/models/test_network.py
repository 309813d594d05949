"""What every network says of itself."""

import pytest
import torch

from octvideo import create_model, list_models
from octvideo.engine.training.adapt import recompute_activations
from octvideo.models.network import recomputable_parts

SMALL = {
    "slowfast_r26": {"width_per_group": 32},
    "resnet18": {"width_per_group": 16},
    "densenet121": {"layers": (2, 2, 2, 2), "growth_rate": 16},
    "mobilenet_v1": {"width": 0.25},
    "mobilenet_v2": {"width": 0.25},
}


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_parts_to_recompute_that_do_not_overlap(name):
    with torch.device("meta"):
        parts = recomputable_parts(create_model(name))

    assert parts
    modules = [module for part in parts for module in part.modules()]
    assert len(modules) == len(set(modules))


@pytest.mark.parametrize("name", SMALL)
def test_recomputation_changes_no_gradient_and_no_statistic(name):
    options = {"alpha": 0.25, "num_classes": 3, "dropout_rate": 0.0, **SMALL[name]}
    model = create_model(name, **options)
    twin = create_model(name, **options)
    twin.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 8, 33, 33) if name == "slowfast_r26" else torch.randn(2, 3, 33, 33)

    model(x).square().sum().backward()
    recompute_activations(recomputable_parts(twin))
    twin(x).square().sum().backward()

    for (parameter, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad, msg=parameter)
    for key, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key]), key
