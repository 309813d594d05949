"""A checkpoint is one value: what is written is read, and files of others bring what they hold."""

from dataclasses import replace

import pytest
import torch

import octvideo
from octvideo import create_model
from octvideo.checkpoint import FORMAT, Checkpoint, InputSpec
from octvideo.errors import CheckpointError
from octvideo.weights.load import network_of

WHOLE = Checkpoint(
    "w.pyth",
    state={"w": torch.arange(3.0)},
    average={"w": torch.ones(3)},
    network={"name": "i3d_r26", "alpha": 0.5},
    class_names=("a", "b"),
    input=InputSpec((0.4, 0.5, 0.6), (0.2, 0.2, 0.3), True, 8, 4, "stride", 25.0, 112, 128),
    multi_label=True,
    head_act="sigmoid",
    recipe="A: 1",
    training={"epoch": 3, "optimizer_state": {}},
)


def without_tensors(checkpoint):
    return {**checkpoint.contents(), "model_state": None, "ema_state": None}


def test_what_is_written_is_read(tmp_path):
    WHOLE.write(str(tmp_path / "new folder" / "w.pyth"))

    read = Checkpoint.read(str(tmp_path / "new folder" / "w.pyth"))

    assert without_tensors(read) == without_tensors(WHOLE)
    assert torch.equal(read.state["w"], WHOLE.state["w"])
    assert torch.equal(read.weights["w"], torch.ones(3))
    assert read.input == WHOLE.input


@pytest.mark.parametrize("suffix", ["pyth", "safetensors"])
def test_names_of_a_network_whose_parts_are_called_as_wrappers_are_stay(tmp_path, suffix):
    state, path = {"model.module.w": torch.zeros(1)}, str(tmp_path / f"w.{suffix}")

    replace(WHOLE, state=state, average=state).write(path)

    assert Checkpoint.read(path).weights.keys() == state.keys()


def test_the_weights_stand_where_there_is_no_moving_average():
    checkpoint = Checkpoint(state={"w": torch.zeros(1)})

    assert checkpoint.weights is checkpoint.state


def test_a_file_of_version_0_1_0_loads(tiny_checkpoint):
    read = Checkpoint.read(str(tiny_checkpoint))

    assert read.format == 1
    assert read.class_names == tuple("abcdef")
    assert read.training == {"epoch": 3}
    assert octvideo.load(tiny_checkpoint).class_names == list("abcdef")


@pytest.mark.parametrize("key", ["model_state", "state_dict", "model", None])
def test_files_of_others_bring_their_tensors(key):
    tensors = {"conv.weight": torch.zeros(2)}

    read = Checkpoint.of({key: tensors, "epoch": 1} if key else {**tensors, "epoch": 1}, "w.pth")

    assert read.state.keys() == tensors.keys()
    assert (read.format, read.network) == (0, {})


def test_a_newer_format_is_refused_by_its_number():
    content = WHOLE.contents()
    content["meta"]["format"] = FORMAT + 1

    with pytest.raises(
        CheckpointError, match=r"w.pyth: of format 2; this octvideo reads formats up"
    ):
        Checkpoint.of(content, "w.pyth")


@pytest.mark.parametrize(
    "damage",
    [
        {"model": 3},
        {"class_names": 5},
        {"preprocessing": "text"},
        {"preprocessing": {"mean": 0.4}},
        {"preprocessing": {"mean": ["x"]}},
        {"format": "new"},
    ],
)
def test_a_damaged_description_is_one_line(damage):
    content = WHOLE.contents()
    content["meta"] |= damage

    with pytest.raises(CheckpointError, match=r"^w\.pyth: "):
        Checkpoint.of(content, "w.pyth")


def test_a_description_cannot_ask_for_more_memory_than_the_weights_have():
    model = create_model("resnet18", width_per_group=8, num_classes=2)
    network = {**model.config, "num_classes": 10**12}

    with pytest.raises(CheckpointError, match="do not fit resnet18"):
        network_of(Checkpoint("w.pyth", model.state_dict(), network=network))


@pytest.mark.parametrize("network", [{"name": "i3d_r99"}, {"name": "i3d_r26", "alpha": "half"}])
def test_a_network_that_cannot_be_built_is_one_line(network):
    with pytest.raises(CheckpointError, match=r"w.pyth: .* cannot be built as described"):
        network_of(Checkpoint("w.pyth", {"w": torch.zeros(1)}, network=network))


def test_a_network_comes_back_with_its_weights():
    model = create_model("c2d_r26", width_per_group=8, num_classes=2, alpha=0.5).eval()
    clip = torch.randn(1, 3, 4, 32, 32)

    again = network_of(Checkpoint(state=model.state_dict(), network=model.config)).eval()

    assert torch.equal(again(clip), model(clip))
    assert all(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("meta",), {"model": torch.ones(3)}),
        (("meta", "model"), ["i3d_r26"]),
        (("meta", "model", "name"), "no such network"),
        (("meta", "model", "num_classes"), 10**18),
        (("meta", "model", "num_classes"), "many"),
        (("meta", "model", "width_per_group"), 10**9),
        (("meta", "model", "alpha"), [[[[0.5]]]]),
        (("meta", "class_names"), "abcdef"),
        (("meta", "class_names"), [1, 2, 3, 4, 5, 6]),
        (("meta", "class_names"), torch.ones(6)),
        (("meta", "multi_label"), torch.ones(3)),
        (("meta", "preprocessing"), ["mean"]),
        (("meta", "preprocessing", "mean"), [float("nan")] * 3),
        (("meta", "preprocessing", "std"), [0.0] * 3),
        (("meta", "preprocessing", "std"), [0.2] * 2),
        (("meta", "class_names"), ["a", "b"]),
        (("meta", "head_act"), "foo"),
        (("meta", "preprocessing", "num_frames"), 2**70),
        (("meta", "preprocessing", "sampling_rate"), "8"),
        (("meta", "preprocessing", "sampling_rule"), "none of ours"),
        (("meta", "preprocessing", "target_fps"), []),
        (("meta", "format"), [1]),
    ],
)
def test_a_description_of_wrong_types_or_sizes_is_one_line(tmp_path, tiny_checkpoint, place, value):
    content = torch.load(tiny_checkpoint, weights_only=True)
    at = content
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    torch.save(content, tmp_path / "other.pyth")

    with pytest.raises(CheckpointError, match=r"other\.pyth: ") as error:
        octvideo.load(tmp_path / "other.pyth", device="cpu")

    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000
