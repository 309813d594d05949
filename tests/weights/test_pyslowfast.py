"""What a file of PySlowFast says in its cfg decides how its network is used."""

import logging

import pytest
import torch
import yaml
from test_load_weights import narrow, pyslowfast_state
from test_pretrained import pytorchvideo_name

import octvideo
from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.weights.describe import describe, read_classes, read_input
from octvideo.weights.pretrained import describe_file
from octvideo.weights.pyslowfast import said_of_input, said_of_output

CLASSES = list("abcde")
DATA = {
    "MULTI_LABEL": True,
    "REVERSE_INPUT_CHANNEL": True,
    "MEAN": [0.4, 0.5, 0.6],
    "STD": [0.2, 0.25, 0.3],
}


def settings(data_set="kinetics", act="sigmoid", **data):
    tree = {"TRAIN": {"DATASET": data_set}, "MODEL": {"HEAD_ACT": act}, "DATA": {**DATA, **data}}
    return yaml.safe_dump(tree)


def theirs(cfg, num_classes=5):
    model = narrow("slow_r26", num_classes=num_classes)
    return Checkpoint("theirs.pyth", pyslowfast_state(model), recipe=cfg)


def pytorchvideos(num_classes):
    model = narrow("slow_r26", num_classes=num_classes)
    state = {pytorchvideo_name(n, False): t for n, t in model.state_dict().items()}
    return Checkpoint("theirs.pyth", state)


def test_a_loaded_file_has_the_head_and_the_input_of_its_cfg(tmp_path):
    content = {"model_state": theirs("").state, "cfg": settings(), "epoch": 1}
    torch.save(content, tmp_path / "theirs.pyth")

    recognizer = octvideo.load(tmp_path / "theirs.pyth", classes=CLASSES, input="4x2")

    assert (recognizer.head_act, recognizer.multi_label) == ("sigmoid", True)
    assert recognizer.preprocessing["reverse_channels"]
    assert recognizer.preprocessing["mean"] == [0.6, 0.5, 0.4]  # there before the reversal
    assert recognizer.preprocessing["std"] == [0.3, 0.25, 0.2]


@pytest.mark.parametrize(
    ("data_set", "reverse", "expected"),
    [
        ("kinetics", False, False),
        ("kinetics", True, True),
        ("ssv2", False, True),  # OpenCV's frames are BGR
        ("charades", True, False),
        ("Ptvcharades", True, False),
    ],
)
def test_the_channel_order_is_that_of_the_data_set_reversed_or_not(data_set, reverse, expected):
    cfg = settings(data_set, REVERSE_INPUT_CHANNEL=reverse)

    said = said_of_input(theirs(cfg))

    assert said["reverse_channels"] == expected
    assert said["mean"] == tuple(DATA["MEAN"][::-1] if reverse else DATA["MEAN"])
    assert said.get("sampling_rule") == ("segment" if data_set == "ssv2" else None)


def test_what_the_caller_says_wins():
    given = {"num_frames": 4, "sampling_rate": 2, "mean": (0.1,) * 3}

    found = describe(theirs(settings()), CLASSES, given, head_act="softmax")

    assert found.input.mean == (0.1,) * 3
    assert found.input.std == (0.3, 0.25, 0.2)
    assert found.head_act == "softmax"


def test_what_the_caller_says_wins_also_where_it_is_as_on_kinetics(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    given = {"num_frames": 4, "sampling_rate": 2, "mean": [0.45] * 3, "reverse_channels": False}
    cfg = settings(NUM_FRAMES=4, SAMPLING_RATE=2)

    found = describe(theirs(cfg), CLASSES, given)

    assert (found.input.mean, found.input.reverse_channels) == ((0.45,) * 3, False)
    assert found.input.std == (0.3, 0.25, 0.2)
    assert "theirs.pyth: says another input than the one that is given, which is taken" in (
        caplog.text
    )
    assert "mean [0.45, 0.45, 0.45] instead of [0.6, 0.5, 0.4]" in caplog.text
    assert "reverse_channels False instead of True" in caplog.text


def test_a_rule_that_the_caller_says_is_not_replaced_by_that_of_the_published_files():
    given = {"num_frames": 8, "sampling_rate": 8, "sampling_rule": "pyslowfast"}

    found = describe_file(pytorchvideos(174), "something-something-v2", given)

    assert found.input.sampling_rule == "pyslowfast"


@pytest.mark.parametrize(
    ("data_set", "crops", "expected"),
    [
        ("kinetics", 3, (25.0, 224, 224)),
        ("kinetics", 1, (25.0, 224, 240)),
        ("ssv2", 3, (30.0, 224, 224)),
    ],
)
def test_the_rate_and_the_crops_are_those_of_its_cfg(data_set, crops, expected):
    data = {"TARGET_FPS": 25, "TEST_CROP_SIZE": 224, "TRAIN_JITTER_SCALES": [240, 320]}
    cfg = f"{settings(data_set, TRAIN_CROP_SIZE=160, **data)}\nTEST: {{NUM_SPATIAL_CROPS: {crops}}}"

    found = describe(theirs(cfg), CLASSES, "8x8")

    seen = found.input
    assert (seen.target_fps, seen.crop_size, seen.short_side) == expected
    assert found.network["crop_size"] == 160


@pytest.mark.parametrize("cfg", ["", "A: 1", "[1, 2]", "{: :", "text"])
def test_a_cfg_that_says_nothing_leaves_the_usual_input_and_head(cfg):
    found = describe(theirs(cfg), CLASSES, "4x2")

    assert found.input == read_input("4x2")
    assert (found.head_act, found.multi_label) == ("softmax", False)


def test_several_labels_with_a_softmax_stay_so():
    found = describe(theirs(settings(act="softmax")), CLASSES, "4x2")

    assert (found.head_act, found.multi_label) == ("softmax", True)
    assert said_of_output(theirs("DATA: {MULTI_LABEL: true}")) == ("sigmoid", True)


def test_a_head_that_is_not_here_is_refused():
    with pytest.raises(CheckpointError, match=r"theirs\.pyth: .* MODEL\.HEAD_ACT none; here it is"):
        describe(theirs(settings(act="none")), CLASSES, "4x2")


@pytest.mark.parametrize("data", [{"MEAN": 0.5}, {"STD": [0.0] * 3}, {"MEAN": ["x"] * 3}])
def test_an_input_that_cannot_be_is_refused(data):
    with pytest.raises(CheckpointError, match=r"theirs\.pyth: its settings name an input that"):
        describe(theirs(settings(**data)), CLASSES, "4x2")


def test_a_file_of_charades_without_settings_has_a_sigmoid():
    found = describe_file(theirs("", 157), "charades", "4x2")

    assert (found.head_act, found.multi_label) == ("sigmoid", True)
    assert found.class_names == read_classes("charades")


@pytest.mark.parametrize(
    ("classes", "count", "expected"),
    [
        ("charades", 157, ("sigmoid_of_mean", True, "pyslowfast")),
        ("something-something-v2", 174, ("softmax_of_mean", False, "segment")),
        ("kinetics400", 400, ("softmax_of_mean", False, "pyslowfast")),
    ],
)
def test_a_file_of_pytorchvideo_is_used_as_its_row_in_the_table(classes, count, expected):
    found = describe_file(pytorchvideos(count), classes, "8x8")

    assert (found.head_act, found.multi_label, found.input.sampling_rule) == expected
    assert not found.input.reverse_channels
