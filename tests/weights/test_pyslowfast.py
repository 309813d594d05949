"""What a file of PySlowFast says in its cfg decides how its network is used."""

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
    seen = read_input({"num_frames": 4, "sampling_rate": 2, "mean": (0.1,) * 3})

    found = describe(theirs(settings()), CLASSES, seen, head_act="softmax")

    assert found.input.mean == (0.1,) * 3
    assert found.input.std == (0.3, 0.25, 0.2)
    assert found.head_act == "softmax"


@pytest.mark.parametrize("cfg", ["", "A: 1", "[1, 2]", "{: :", "text"])
def test_a_cfg_that_says_nothing_leaves_the_usual_input_and_head(cfg):
    found = describe(theirs(cfg), CLASSES, read_input("4x2"))

    assert found.input == read_input("4x2")
    assert (found.head_act, found.multi_label) == ("softmax", False)


def test_several_labels_with_a_softmax_stay_so():
    found = describe(theirs(settings(act="softmax")), CLASSES, read_input("4x2"))

    assert (found.head_act, found.multi_label) == ("softmax", True)
    assert said_of_output(theirs("DATA: {MULTI_LABEL: true}")) == ("sigmoid", True)


def test_a_head_that_is_not_here_is_refused():
    with pytest.raises(CheckpointError, match=r"theirs\.pyth: .* MODEL\.HEAD_ACT none; here it is"):
        describe(theirs(settings(act="none")), CLASSES, read_input("4x2"))


@pytest.mark.parametrize("data", [{"MEAN": 0.5}, {"STD": [0.0] * 3}, {"MEAN": ["x"] * 3}])
def test_an_input_that_cannot_be_is_refused(data):
    with pytest.raises(CheckpointError, match=r"theirs\.pyth: its settings name an input that"):
        describe(theirs(settings(**data)), CLASSES, read_input("4x2"))


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
