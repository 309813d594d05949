"""DenseNets: where the pair runs, and a vanilla one written out."""

import pytest
import torch
from torch.nn import functional as F

from octvideo import create_model
from octvideo.layers import OctConv2d

TINY = {"layers": (2, 1, 1, 1), "growth_rate": 8, "stem_width": 16, "num_classes": 10}


def ends_of_the_pair(model):
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, OctConv2d)
    }
    begins = [n for n, conv in layers.items() if conv.out_channels.low and not conv.in_channels.low]
    ends = [n for n, conv in layers.items() if conv.in_channels.low and not conv.out_channels.low]
    return begins, ends


@pytest.mark.parametrize(
    ("octave_stem", "begins"), [(True, "stem.conv"), (False, "stages.dense2.layer0.reduce.conv")]
)
def test_the_pair_runs_from_the_stem_or_the_first_layer_to_the_last_transition(octave_stem, begins):
    model = create_model("densenet121", alpha=0.25, octave_stem=octave_stem, **TINY)

    first, last = ends_of_the_pair(model)

    assert first == [begins]
    assert last == ["stages.transition5.conv"]


@pytest.mark.parametrize("layers", [(), (1,), (1, 0, 1)])
def test_a_pair_of_fewer_stages_is_merged_before_the_classifier(layers):
    model = create_model("densenet121", alpha=0.5, **{**TINY, "layers": layers}).eval()
    assert model(torch.rand(2, 3, 33, 32)).shape == (2, 10)


def test_parameters_do_not_depend_on_alpha_and_are_densenets():
    counts = set()
    for alpha in (0, 0.125, 0.5):
        with torch.device("meta"):
            model = create_model("densenet121", alpha=alpha)
        counts.add(sum(parameter.numel() for parameter in model.parameters()))

    assert counts == {7_978_856}  # torchvision's densenet121


def test_a_dense_layer_appends_what_it_grows():
    model = create_model("densenet121", **TINY).eval()
    layer = model.stages.dense2.layer0
    captured = {}
    layer.register_forward_hook(
        lambda _, inputs, output: captured.update(x=inputs[0].high, out=output.high)
    )

    model(torch.randn(1, 3, 64, 64))

    reduced = F.conv2d(F.relu(layer.reduce.bn.high(captured["x"])), layer.reduce.conv.h2h.weight)
    grown = F.conv2d(
        F.relu(layer.spatial.bn.high(reduced)), layer.spatial.conv.h2h.weight, padding=1
    )
    torch.testing.assert_close(captured["out"], torch.cat([captured["x"], grown], 1))
