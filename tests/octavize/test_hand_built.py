"""The octave networks of this package, built by hand, are what octavize makes of the vanilla
ones."""

import pytest
import torch
from narrow_networks import has_a_twin_of_two_blocks, of_two_blocks, two_blocks_per_stage
from torch import nn

from octvideo import create_model, octavize
from octvideo.complexity import count
from octvideo.models.registry import MODELS, input_shape_of

CLIP, FAST_CLIP, IMAGE = (2, 3, 4, 48, 48), (2, 3, 16, 48, 48), (2, 3, 48, 48)
NARROW = {"width_per_group": 32}
POOLED = {"downsample": "pool"}
# All stages but the last, as in the image networks and in those with pre-activation.
THREE_STAGES = {"include": ["res*"], "exclude": ["res5.*"], "width_rule": "int", **POOLED}
SLOW_PATHWAY = {
    "include": ["slow.res*", "laterals.[123].*"],
    "exclude": ["slow.res5.*"],
    "width_rule": "round16_min16",
    **POOLED,
}
DENSE = {
    "include": ["*"],
    "exclude": ["stages.transition5.*", "stages.dense5.*"],
    "width_rule": "int",
    **POOLED,
}
MOBILE_V1 = {
    "include": ["blocks.*"],
    "exclude": [f"blocks.block{i}.pointwise.*" for i in (11, 12, 13)],
    "width_rule": "int",
    **POOLED,
}
MOBILE_V2 = {
    "include": ["blocks.*"],
    "exclude": ["*.project.conv", *(f"blocks.block{i}.expand.*" for i in range(14, 18))],
    "width_rule": "int",
    **POOLED,
}
PREACT = {"block": "preact", **NARROW}
# name, alpha, input, options of create_model, arguments of octavize
FAMILIES = [
    ("i3d_r26", 0.1, CLIP, NARROW, POOLED),
    ("c2d_r26", 0.25, CLIP, NARROW, {}),
    ("slow_r26", 0.25, CLIP, NARROW, {}),
    ("slowfast_r26", 0.1, FAST_CLIP, NARROW, SLOW_PATHWAY),
    ("i3d_r26", 0.25, CLIP, PREACT, THREE_STAGES),
    ("c2d_r26", 0.25, CLIP, PREACT, THREE_STAGES),
    ("resnet26", 0.5, IMAGE, NARROW, THREE_STAGES),
    ("resnext50_32x4d", 0.5, IMAGE, {}, THREE_STAGES),
    ("preact_resnet26", 0.25, IMAGE, NARROW, THREE_STAGES),
    ("densenet121", 0.5, IMAGE, {"layers": (2, 2, 2, 2)}, DENSE),
    ("mobilenet_v1", 0.5, IMAGE, {"width": 0.5}, MOBILE_V1),
    ("mobilenet_v2", 0.5, IMAGE, {"width": 0.5}, MOBILE_V2),
]
IDS = [f"{name}{'_preact' if 'block' in options else ''}" for name, _, _, options, _ in FAMILIES]


def randomise(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) and module.affine:
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


@pytest.mark.parametrize(("name", "alpha", "shape", "options", "arguments"), FAMILIES, ids=IDS)
def test_it_has_their_names_costs_and_outputs(name, alpha, shape, options, arguments):
    x = torch.rand(shape)
    by_hand = randomise(two_blocks_per_stage(create_model(name, alpha=alpha, **options)))
    cost = count(by_hand, shape[1:])

    vanilla = two_blocks_per_stage(create_model(name, **options))
    octave = octavize(vanilla, alpha, x, weights="as_is", **arguments).eval()

    assert octave.octave_report.macs == cost.macs
    assert octave.octave_report.parameters == cost.parameters
    assert set(octave.state_dict()) == set(by_hand.state_dict())
    octave.load_state_dict(by_hand.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(octave(x), by_hand(x), rtol=1e-5, atol=1e-6)


def test_the_default_arguments_make_the_papers_i3d():
    """Oct-I3D-50 at alpha 0.1, full size: 25.6 G multiply-adds, and nothing but an example was
    given."""
    with torch.device("meta"):
        vanilla, by_hand = create_model("i3d_r50"), create_model("i3d_r50", alpha=0.1)
        report = octavize(vanilla, 0.1, torch.empty(1, 3, 8, 224, 224)).octave_report
    cost = count(by_hand, (3, 8, 224, 224))
    assert (report.macs, report.parameters) == (cost.macs, cost.parameters)


FAST = ("i3d_nln_r26", "slowfast_r26", "resnet18", "preact_resnet26", "resnet20_cifar")
# Of those with more than ten blocks in a stage, one is taken whole.
WHOLE = (*FAST, "c2d_r101", "densenet121")


def every_network() -> list[object]:
    """pytorchvideo's are in test_pytorchvideo.py."""
    return [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(MODELS)
        if name in WHOLE or not (name.startswith("ptv:") or has_a_twin_of_two_blocks(name))
    ]


@pytest.mark.parametrize("name", every_network())
def test_alpha_zero_is_every_network_bit_for_bit(name):
    channels, *frames, height, width = input_shape_of(name)
    x = torch.rand(2, channels, *frames, min(height, 32), min(width, 32))
    model = randomise(create_model(name) if name in WHOLE else of_two_blocks(name))

    octave = octavize(model, 0.0, x)

    assert list(octave.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        assert torch.equal(octave(x), model(x))
