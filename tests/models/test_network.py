"""What every network says of itself, and computes in each of its forms."""

import pytest
import torch
from narrow_networks import has_a_twin_of_two_blocks, of_two_blocks
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from octvideo import create_model, list_models, octavize
from octvideo.engine.training.adapt import recompute_activations
from octvideo.layers import compute_in_2d, stem_by_space_to_depth
from octvideo.models.network import alpha_of, recomputable_parts
from octvideo.models.registry import input_shape_of

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


@pytest.mark.parametrize("alpha", [0.0, 0.25])
@pytest.mark.parametrize(
    "name",
    [n for n in list_models() if len(input_shape_of(n)) == 4 and not has_a_twin_of_two_blocks(n)],
)
def test_every_network_of_clips_gives_in_2d_what_it_gives_in_3d(name, alpha):
    channels, _, height, _ = input_shape_of(name)
    clip = torch.randn(1, channels, 16, min(height, 35), 40)
    if name.startswith("ptv:"):
        model = of_two_blocks(name).eval()
        model = octavize(model, alpha, clip, weights="as_is") if alpha else model
    else:
        model = of_two_blocks(name, alpha=alpha, width_per_group=32)
    for module in model.eval().modules():
        if isinstance(module, _BatchNorm):  # residual branches start at gamma 0, and say nothing
            nn.init.uniform_(module.weight, 0.5, 1.0)

    with torch.no_grad():
        expected = compute_in_2d(model, False)(clip)
        found = compute_in_2d(model, True)(clip)
        by_depth = stem_by_space_to_depth(model, True)(clip)

    assert not [m for m in model.modules() if type(m) is nn.Conv3d]
    assert expected.std() > 0
    assert (found - expected).norm() <= 1e-5 * expected.norm()
    assert (by_depth - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        ({"name": "own"}, 0),
        ({"name": "i3d_r50", "alpha": 0.25, "octavize": None}, 0.25),
        ({"name": "i3d_r50", "alpha": 0.0, "octavize": {"alpha": 0.5}}, 0.5),
        ({"name": "own", "octavize": {"alpha": 0.5}}, 0.5),
    ],
)
def test_the_alpha_of_a_config_is_0_without_the_option_and_that_of_octavize(config, alpha):
    assert alpha_of(config) == alpha
