"""Official checkpoints give the official logits, whichever way their tensors are spelt; others are
refused."""

import tarfile

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octvideo import create_model
from octvideo.errors import CheckpointError
from octvideo.layers import OctTensor
from octvideo.weights import load_official
from octvideo.weights.constants import fold_shortcut_biases, fold_whitening
from octvideo.weights.official import OfficialName, read_official, to_state


def logits_differ_by(name, options, path, oracle):
    model = create_model(name, **options).eval()
    load_official(model, path)
    with torch.no_grad():
        ours = model(torch.from_numpy(oracles.rule.network_input(oracle)))
    return (ours.flatten() - torch.tensor(oracle["logits"]).flatten()).abs().max().item()


@pytest.mark.parametrize("name", oracles.SMALL)
def test_logits_are_the_official_ones(name, tmp_path):
    path = tmp_path / "official.params"

    oracle = oracles.write_file(name, path)

    assert logits_differ_by(*oracles.SMALL[name], path, oracle) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", oracles.ALL)
def test_logits_of_every_network_are_the_official_ones(name, shared, tmp_path):
    path = tmp_path / "official.params"

    oracle = oracles.write_file(name, path, folder=shared / "oracles" / "nets")

    assert logits_differ_by(*oracles.ALL[name], path, oracle) < 1e-4


def test_the_older_spelling_by_prefix_is_read_too(tmp_path):
    path = tmp_path / "official.params"
    name = "mobilenet_v1_075_a0375"

    oracle = oracles.write_file(name, path, by_prefix=True)

    assert logits_differ_by(*oracles.SMALL[name], path, oracle) < 1e-5


@pytest.mark.parametrize(
    "name", [n for n in oracles.ALL if "v1f" in n or "v1b" in n or "dense" in n or "v2_100" in n]
)
def test_both_gluon_spellings_are_the_same_tensors(name, shared):
    oracle = oracles.load(name, shared / "oracles" / "nets")

    numbered = {name: np.full((1, 1, 1, 1), i) for i, name in enumerate(oracle["params"])}
    by_structure = to_state(numbered)
    by_prefix = to_state({oracle["params"][name][0]: array for name, array in numbered.items()})

    assert by_structure == by_prefix


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("arg:conv1_conv_weight", "stem.conv.weight"),
        ("aux:L3_B04_conv2_bn-l_moving_var", "res3.block3.spatial.bn.low.running_var"),
        ("L2_B3.bn4a.bn_h.running_mean", "res3.block3.shortcut.whiten.high.running_mean"),
        ("R152_L2_B3_se-conv2-l_weight", "res3.block3.excite.gate_low.weight"),
        ("L2_B3.se_block.conv1.bias", "res3.block3.excite.squeeze.bias"),
        ("R152_stem2_bn4_beta", "stem.pool.block.shortcut.bn.high.bias"),
        ("conv2.1.gamma", "stem.pool.bn.weight"),
        ("classifer.bias", "head.fc.bias"),
    ],
)
def test_where_a_name_belongs(name, ours):
    first_block = (
        "L2_B01_conv4_conv_weight"
        if name.startswith(("arg:", "aux:"))
        else "L1_B0.conv4.conv_h2h.weight"
    )

    state = to_state({name: np.zeros((2, 2), "f4"), first_block: np.zeros((2, 2, 1, 1), "f4")})

    assert ours in state


def test_symbol_densenets_have_a_plain_stem_and_named_transitions():
    with torch.device("meta"):
        model = create_model("densenet121", alpha=0.25, octave_stem=False, bn_eps=1e-4)
    names = [
        "conv1_conv_weight",
        "conv1_bn_gamma",
        "L3_Trans_conv_bn-l_beta",
        "L3_Trans_conv_conv-l2h_weight",
    ]
    names += [
        "L2_B01_conv1_bn-h_gamma",
        "L3_B12_conv2_conv-h2l_weight",
        "L5_B16_conv1_bn-h_gamma",
        "tail_bn_gamma",
    ]

    state = to_state({f"arg:{name}": np.zeros((2, 2, 1, 1), "f4") for name in names})

    assert len(state) == len(names)
    assert state.keys() <= model.state_dict().keys()


def test_a_tar_is_read_without_unpacking(tmp_path):
    path, archive = tmp_path / "a02_resnet-26-0000.params", tmp_path / "a02_resnet-26.tar"
    oracle = oracles.write_file("resnet26_v2_a0250", path)
    with tarfile.open(archive, "w") as tar:
        tar.add(path, "models/a02_resnet-26-0000.params")
    path.unlink()

    difference = logits_differ_by("preact_resnet26", {"alpha": 0.25}, archive, oracle)

    assert difference < 1e-5
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    ("layer", "downsample"),
    [
        ("L1_B0.conv4.conv_h2h.weight", "pool"),  # gluon code pools at ratio 0 too
        ("arg:L2_B01_conv4_conv-h2h_weight", "pool"),
        ("arg:L2_B01_conv4_conv_weight", "stride"),
    ],
)
def test_the_spelling_of_a_plain_layer_tells_how_it_downsamples(layer, downsample, tmp_path):
    path = tmp_path / "official.params"
    oracles.rule.write(path, {layer: np.zeros((2, 2, 1, 1), "f4")})

    assert read_official(path).downsample == downsample


@pytest.mark.parametrize("alpha", [0.0, 0.25])
def test_whitening_norms_add_their_beta_and_ignore_their_gamma(alpha):
    model = create_model("resnet50", alpha=alpha, blocks=(1, 1, 1, 1), se=True, width_per_group=16)
    whitenings = {name: m for name, m in model.named_modules() if name.endswith("whiten")}
    constants = {
        f"{name}.{group}.{tensor}": torch.randn(channels)
        for name, m in whitenings.items()
        for group, channels in zip(("high", "low"), m.channels, strict=True)
        for tensor in ("weight", "bias")
        if channels
    }
    x = torch.randn(1, 3, 64, 64)

    folded = fold_whitening(model.state_dict() | constants)
    for name, module in whitenings.items():
        betas = [constants.get(f"{name}.{group}.bias") for group in ("high", "low")]
        module.register_forward_hook(lambda m, i, out, betas=betas: _plus(out, *betas))
    expected = model.eval()(x)
    plain = create_model(**model.config).eval()
    plain.load_state_dict(folded)

    assert (plain(x) - expected).abs().max() < 1e-5


def _plus(x, high, low):
    shifted = None if x.low is None else x.low + low[:, None, None]
    return OctTensor(x.high + high[:, None, None], shifted)


def test_a_whitening_norm_of_another_width_is_refused():
    layers = {
        "L1_B0.conv4.conv_h2h.weight": np.zeros((2, 2, 1, 1), "f4"),
        "L1_B0.bn4.bn_h.running_mean": np.zeros(2, "f4"),
    }

    with pytest.raises(CheckpointError, match="do not fit the other layers"):
        to_state(layers | {"L1_B0.bn4a.bn_h.beta": np.zeros(3, "f4")})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": 0.25, "num_classes": 10}, "num_classes"),
        ({"alpha": 0.25, "bn_eps": 1e-5}, r"build it with bn_eps=0\.0001"),
        ({"alpha": 0.25, "downsample": "stride"}, "build the network with downsample='pool'"),
        (
            {"alpha": 0.25, "stride_1x1": True},
            "at the 3x3; build the network with stride_1x1=False",
        ),
        ({"alpha": 0.25, "blocks": (2, 2, 2, 3)}, "of another network"),
    ],
)
def test_a_network_that_would_compute_something_else_is_refused(options, message, tmp_path):
    path = tmp_path / "official.params"
    oracles.write_file("resnet26_v2_a0250", path)
    model = create_model("preact_resnet26", **options)
    before = model.head.fc.weight.clone()

    with pytest.raises(CheckpointError, match=message):
        load_official(model, path)

    assert torch.equal(model.head.fc.weight, before)


@pytest.mark.parametrize(
    "name", ["weight", "L2_B01_conv1_conv-h2h_momentum", "L2_B01_conv9_conv_weight", "pool_weight"]
)
def test_a_tensor_of_no_official_network_is_refused(name):
    with pytest.raises(CheckpointError, match="is no parameter of an official"):
        to_state(
            {name: np.zeros(2, "f4"), "L2_B01_conv4_conv_weight": np.zeros((2, 2, 1, 1), "f4")}
        )


def test_one_tensor_under_two_spellings_is_refused():
    twice = {
        "L1_B0.conv4.conv_h2h.weight": np.zeros((2, 2, 1, 1)),
        "L1_B0_conv4-h2h_weight": np.zeros((2, 2, 1, 1)),
    }

    with pytest.raises(CheckpointError, match="holds already"):
        to_state(twice)


def test_names_are_taken_apart():
    parsed = OfficialName.parse("aux:L4_B02_conv3_bn-l_moving_mean")

    assert (parsed.stage, parsed.block, parsed.layer, parsed.group) == (4, 2, "conv3_bn", "l")
    assert (parsed.is_norm, parsed.field) == (True, "running_mean")


WORDS = [
    "L2",
    "B01",
    "B0",
    "Trans",
    "conv1",
    "bn1a",
    "conv",
    "bn",
    "se",
    "fc1",
    "stem",
    "stem2",
    "tail",
    "classifier",
]
WORDS += ["0", "9", "h2h", "l", "weight", "gamma", "running", "mean", "R50", "arg:", "block", ""]


@settings(deadline=None)
@given(
    names=st.lists(
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("_".join),
        unique=True,
        max_size=4,
    ),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_whatever_the_names_are_they_are_placed_or_refused(names, shape):
    try:
        state = to_state({name: np.zeros(shape, "f4") for name in names})
    except CheckpointError:
        return
    assert len(state) <= len(names)


def test_the_bias_of_a_shortcut_is_subtracted_where_the_sum_of_its_stage_is_read():
    norms = [
        "res2.block0.reduce",
        "res2.block1.reduce",
        "res3.block0.reduce",
        "res3.block0.shortcut",
    ]
    state = {f"{norm}.bn.high.running_mean": torch.ones(2) for norm in norms}

    folded = fold_shortcut_biases(
        state | {"res2.block0.shortcut.conv.h2h.bias": torch.tensor([3.0, 5.0])}
    )

    first, *readers = [folded[name].tolist() for name in state]
    assert folded.keys() == state.keys()
    assert first == [1, 1]
    assert readers == [[-2, -4]] * 3
