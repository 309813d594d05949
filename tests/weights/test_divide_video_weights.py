"""Vanilla video weights in an octave network of their family: divided, sorted, with a report."""

import pytest
import torch
from test_pretrained import pytorchvideo_name
from trained_norms import vary_norms

import octvideo
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import CheckpointError
from octvideo.weights.image_weights import read_video_weights
from octvideo.weights.inflate import inflate
from octvideo.weights.sort_channels import smoothest_last
from octvideo.weights.split_effect import stage_errors
from octvideo.weights.start import is_to_be_divided

SMALL = {"width_per_group": 16, "num_classes": 5}
SMOOTH = torch.nn.functional.interpolate(torch.randn(2, 3, 4, 8, 8), (4, 64, 64), mode="trilinear")


def vanilla(name="i3d_r26", **options):
    torch.manual_seed(0)
    return vary_norms(octvideo.create_model(name, **SMALL, **options).eval())


def octave(name="i3d_r26", alpha=0.25, **options):
    return octvideo.create_model(name, alpha=alpha, width_rule="int", **SMALL, **options).eval()


def own(model, path="vanilla.pyth"):
    spec = InputSpec((0.45,) * 3, (0.225,) * 3)
    return Checkpoint(path, model.state_dict(), network=model.config, input=spec)


def test_kernels_are_cut_into_the_blocks_of_the_octave_layers(tmp_path):
    source = vanilla()
    own(source).write(str(tmp_path / "w.pyth"))

    model = octave(weights=str(tmp_path / "w.pyth"))

    paths, whole = model.res3.block1.reduce.conv.paths, source.res3.block1.reduce.conv.h2h.weight
    rows = [
        torch.cat([paths[f"h2{end}"].weight, paths[f"l2{end}"].weight], 1) for end in ("h", "l")
    ]
    assert torch.equal(torch.cat(rows), whole)
    assert torch.equal(model.stem.conv.weight, source.stem.conv.weight)
    assert torch.equal(model.head.fc.weight, source.head.fc.weight)


def test_a_file_of_pytorchvideos_layout_is_divided_too(tmp_path):
    source = vanilla("slow_r26")
    torch.save(
        {pytorchvideo_name(n, False): t for n, t in source.state_dict().items()}, tmp_path / "w"
    )

    model = octave("slow_r26", weights=str(tmp_path / "w"))

    assert torch.equal(model.head.fc.weight, source.head.fc.weight)
    assert model.res4.block0.reduce.conv.l2l is not None


def test_sorted_channels_lose_less_and_the_network_stays_one_function():
    source, model = vanilla(), octave(downsample="stride")
    weights = read_video_weights(own(source))

    state = smoothest_last(weights.state, model, SMOOTH, weights.assumes)

    errors = []
    for chosen in (weights.state, state):
        report = inflate(chosen, model, weights.assumes)
        errors.append(stage_errors(chosen, model, SMOOTH, weights.assumes)[1].error)
    assert errors[1] < errors[0]
    assert any(line.startswith("taken as they are") for line in report.lines())
    assert any(line.startswith("split in res3") for line in report.lines())
    with torch.no_grad():
        expected = source(SMOOTH)
        source.load_state_dict(state)
        torch.testing.assert_close(source(SMOOTH), expected, rtol=1e-3, atol=1e-4)


def test_non_local_blocks_start_fresh_and_are_named():
    pytest.importorskip("pytorchvideo")
    model = octave("i3d_nln_r26")
    weights = read_video_weights(own(vanilla("i3d_nln_r26")))

    report = inflate(weights.state, model, weights.assumes)

    assert report.fresh == {
        f"res{i}.nonlocal1": "in an octave network it is as wide as the high group" for i in (3, 4)
    }


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            {"name": "i3d_r26", "stem_pool_padding": 0},
            {},
            "stem_pool_padding=0.*set RESNET.STEM_POOL",
        ),
        ({"name": "c2d_r26"}, {}, "kernel|is .* in the image weights"),
        (
            {"name": "slow_r26"},
            {"name": "slowfast_r26"},
            "vanilla SlowFast cannot be divided|SlowFast",
        ),
    ],
)
def test_weights_of_another_network_are_refused(source, target, message, tmp_path):
    path = str(tmp_path / "w.pyth")
    own(vanilla(**source), path).write(path)

    with pytest.raises(CheckpointError, match=message):
        octave(**target, weights=path)


def test_octave_weights_and_octavized_networks_are_not_divided():
    model = octave()

    assert is_to_be_divided(own(vanilla()), model)
    assert not is_to_be_divided(own(octave()), model)
    assert not is_to_be_divided(own(vanilla()), vanilla())
