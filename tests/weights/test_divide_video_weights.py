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


SLOWFAST = {"name": "slowfast_r26", "speed_ratio": 2, "beta_inv": 4}


@pytest.mark.parametrize("norm", [True, False])
def test_a_slowfast_is_divided_whole(norm, tmp_path):
    """A lateral's channels stand behind the slow ones of their group."""
    source = vanilla(**SLOWFAST, fusion_norm=norm)
    own(source).write(str(tmp_path / "w.pyth"))

    model = octave(**SLOWFAST, fusion_norm=norm, weights=str(tmp_path / "w.pyth"))

    conv = model.slow.res3.block0.reduce.conv
    columns = [
        torch.cat([conv.paths[f"{start}2{end}"].weight for end in "hl"]) for start in ("h", "l")
    ]
    lateral = model.laterals[1].conv.out_channels
    assert lateral.low
    slow, added = zip(
        columns[0].split([conv.in_channels.high - lateral.high, lateral.high], 1),
        columns[1].split([conv.in_channels.low - lateral.low, lateral.low], 1),
        strict=True,
    )
    whole = source.slow.res3.block0.reduce.conv.h2h.weight
    assert torch.equal(torch.cat([*slow, *added], 1), whole)
    rows = [path.weight for path in model.laterals[1].conv.paths.values()]
    assert torch.equal(torch.cat(rows), source.laterals[1].conv.h2h.weight)
    for part in ("fast", "head"):
        expected = getattr(source, part).state_dict()
        assert all(
            torch.equal(t, expected[n]) for n, t in getattr(model, part).state_dict().items()
        )


def test_a_divided_slowfast_sees_what_is_constant_in_space_as_before(tmp_path):
    source = vanilla(**SLOWFAST)
    clips = torch.randn(2, 3, 8, 1, 1).expand(-1, -1, -1, 64, 64)
    flat = dict(source.state_dict())
    for name, tensor in flat.items():
        if tensor.dim() == 5 and tensor.shape[-1] > 1:  # The middle alone does not see the border.
            middle = torch.zeros_like(tensor)
            middle[..., tensor.shape[-2] // 2, tensor.shape[-1] // 2] = tensor.sum((-2, -1))
            flat[name] = middle
    source.load_state_dict(flat)
    own(source).write(str(tmp_path / "w.pyth"))

    model = octave(**SLOWFAST, downsample="stride", weights=str(tmp_path / "w.pyth"))

    with torch.no_grad():
        torch.testing.assert_close(model(clips), source(clips), rtol=1e-4, atol=1e-4)


def test_sorted_channels_of_a_slowfast_lose_less_and_the_network_stays_one_function():
    source, model = vanilla(**SLOWFAST), octave(**SLOWFAST, downsample="stride")
    weights = read_video_weights(own(source))

    state = smoothest_last(weights.state, model, SMOOTH, weights.assumes)

    assert any(
        not torch.equal(state[f"laterals.{i}.conv.h2h.weight"], t)
        for i, t in enumerate(lateral.conv.h2h.weight for lateral in source.laterals)
    )
    errors = []
    for chosen in (weights.state, state):
        inflate(chosen, model, weights.assumes)
        errors.append(stage_errors(chosen, model, SMOOTH, weights.assumes)[1].error)
    assert errors[1] < errors[0]
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
            "without a fast pathway do not fill SlowFast",
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
