"""`create_model`: names, options, configs, state_dict keys, and what each mistake says."""

from pathlib import Path

import numpy as np
import pytest
import torch

import octvideo
from octvideo import create_model, list_models
from octvideo.errors import ConfigError

GOLDEN = Path(__file__).parent.parent / "golden"
FAMILIES = ("c2d", "c2d_nln", "i3d", "i3d_nln", "slow", "slowfast")

# The weights' names and shapes: a change here makes every checkpoint that exists unreadable.
# To write them anew: PYTHONPATH=tests python tests/models/test_create_model_video.py
STATE_DICTS = {
    "c2d_r50": {},
    "i3d_r50": {},
    "i3d_r50_a10": {"name": "i3d_r50", "alpha": 0.1},
    "i3d_r26_a50": {"name": "i3d_r26", "alpha": 0.5},
    "i3d_nln_r50": {},
    "i3d_nln_r50_a10": {"name": "i3d_nln_r50", "alpha": 0.1},
    "i3d_nln_r50_a10_cross": {"name": "i3d_nln_r50", "alpha": 0.1, "nonlocal_on": "cross"},
    "i3d_r50_a25_preact": {"name": "i3d_r50", "alpha": 0.25, "block": "preact"},
    "slow_r50": {},
    "slowfast_r50": {},
    "slowfast_r50_a10": {"name": "slowfast_r50", "alpha": 0.1},
}


def state_dict_lines(state: dict[str, torch.Tensor]) -> list[str]:
    return [" ".join([key, *map(str, tensor.shape)]) for key, tensor in state.items()]


def lines_of(title: str) -> list[str]:
    with torch.device("meta"):
        return state_dict_lines(create_model(**{"name": title, **STATE_DICTS[title]}).state_dict())


@pytest.mark.parametrize("title", STATE_DICTS)
def test_state_dict_keys_and_shapes_are_stable(title):
    golden = (GOLDEN / f"state_dict_keys_{title}.txt").read_text().splitlines()

    assert lines_of(title) == golden


@pytest.mark.parametrize("depth", [26, 50, 101])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_exists_in_every_depth(family, depth):
    name = f"{family}_r{depth}"
    blocks = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]

    with torch.device("meta"):
        model = create_model(name)

    assert name in list_models()
    pathway = model.slow if family == "slowfast" else model
    found = (
        sum(n.startswith("block") for n, _ in getattr(pathway, f"res{i}").named_children())
        for i in (2, 3, 4, 5)
    )
    assert tuple(found) == blocks


@pytest.mark.parametrize(
    "options",
    [
        {
            "name": "i3d_nln_r26",
            "alpha": 0.3,
            "stages": (3, 4),
            "width_rule": "int",
            "crop_size": 96,
        },
        {"name": "slowfast_r26", "alpha": 0.1, "beta_inv": 4, "num_classes": 3},
        {"name": "c2d_r26", "block": "preact", "alpha": 0.25},
        {"name": "resnet20_cifar", "alpha": np.float64(0.25), "num_classes": np.int64(5)},
        {"name": "resnet20_cifar", "blocks": (np.int64(1),) * 3, "bn_eps": np.float32(1e-3)},
    ],
)
def test_a_model_is_rebuilt_from_its_config_of_plain_values(options, tmp_path):
    with torch.device("meta"):
        model = create_model(**options)
        torch.save(model.config, tmp_path / "config.pt")
        again = create_model(**torch.load(tmp_path / "config.pt", weights_only=True))

    assert again.config == model.config
    assert [(n, p.shape) for n, p in again.named_parameters()] == [
        (n, p.shape) for n, p in model.named_parameters()
    ]


def test_defaults_are_the_readings_of_table_6():
    with torch.device("meta"):
        i3d, slowfast = create_model("i3d_r50", alpha=0.1), create_model("slowfast_r50", alpha=0.1)

    assert str(i3d.res2.block0.reduce.conv.out_channels) == "64"
    assert str(i3d.res5.block0.expand.conv.out_channels) == "1840+208"
    assert i3d.stem.pool.padding == (0, 1, 1)
    assert str(slowfast.slow.res2.block0.reduce.conv.out_channels) == "48+16"
    assert str(slowfast.slow.res5.block0.expand.conv.out_channels) == "2048"
    assert octvideo.create_model is create_model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "i3d_r5O"}, "there is no model 'i3d_r5O'; did you mean i3d_r50"),
        ({"alhpa": 0.1}, "no option 'alhpa'; did you mean alpha"),
        ({"alpha": 1.0}, r"alpha is 1.0; .* lies in \[0, 1\)"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"stages": (2, 4)}, r"octave stages are \(2, 4\); .* give neighbors from 2 to 5"),
        ({"stages": (1, 2)}, r"stages is \(1, 2\); it is a list with neighbors from 2 to 5"),
        ({"stages": (3, 2)}, r"octave stages are \(3, 2\)"),
        (
            {"alpha": 0.1, "num_groups": 32, "width_rule": "int"},
            "groups=32 .* groups must divide every branch",
        ),
        (
            {"width_rule": "round8"},
            "width_rule is 'round8'; it is one of int, round16, round16_min16",
        ),
        ({"block": "pre"}, "block is 'pre'; it is one of 'post', 'preact'"),
        ({"downsample": "max"}, "downsample is 'max'"),
        ({"nonlocal_on": "low"}, "nonlocal_on is 'low'"),
        ({"nonlocal_instantiation": "gauss"}, "nonlocal_instantiation is 'gauss'"),
        (
            {"nonlocal_location": ((), (4,), (), ())},
            "names blocks .*4.* of res3; it has blocks 0..3",
        ),
        ({"stem_pool_padding": 2}, "stem_pool_padding is 2; it is one of 0, 1"),
        ({"num_block_temp_kernel": (3, 4)}, "an entry for each of res2..res5"),
        ({"block": "preact", "stride_1x1": True}, "leave stride_1x1 out"),
    ],
)
def test_a_mistake_is_answered_in_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught, torch.device("meta"):
        create_model(**{"name": "i3d_r50", **arguments})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 32, 32), r"shape \(3, 8, 32, 32\); it takes clips \(N, 3, T, H, W\)"),
        ((1, 8, 3, 32, 32), r"it takes clips \(N, 3, T, H, W\)"),
        ((1, 1, 8, 32, 32), r"it takes clips \(N, 3, T, H, W\)"),
        (
            (1, 3, 1, 32, 32),
            "1 frames of 32 x 32 pixels; its strides need at least 2 frames of 1 x 1",
        ),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_the_rule(shape, message):
    model = create_model("i3d_r26", width_per_group=16)

    for call in (model, model.window_scores):
        with pytest.raises(ConfigError, match=message):
            call(torch.zeros(shape))


if __name__ == "__main__":
    for golden_title in STATE_DICTS:
        path = GOLDEN / f"state_dict_keys_{golden_title}.txt"
        path.write_text("\n".join(lines_of(golden_title)) + "\n")
