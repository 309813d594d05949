"""Public networks by name: files of the right layout and a tiny width stand for the real ones."""

import csv
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_weights_files import caffe2_blobs

import octvideo
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models.registry import MODELS
from octvideo.weights import pretrained
from octvideo.weights.describe import CLASS_NAMES, describe, find_network, read_classes, read_input
from octvideo.weights.pretrained import pretrained_networks, read_weights, table_lines

VIDEO = {name: entry for name, entry in pretrained_networks().items() if entry.is_video}


def pytorchvideo_name(name, pools):
    """Ours of a one-pathway network -> pytorchvideo's; pools: a module without weights stands
    between res2 and res3."""
    parts = name.split(".")
    if parts[0] == "head":
        return f"blocks.{6 if pools else 5}.proj.{parts[-1]}"
    if parts[0] == "stem":
        return f"blocks.0.{'norm' if parts[1] == 'bn' else 'conv'}.{parts[-1]}"
    stage = int(parts[0][3:])
    block = f"blocks.{stage - 1 + (pools and stage > 2)}.res_blocks.{parts[1][5:]}"
    kind = "norm" if parts[3] == "bn" else "conv"
    if parts[2] == "shortcut":
        return f"{block}.branch1_{kind}.{parts[-1]}"
    letter = {"reduce": "a", "spatial": "b", "expand": "c"}[parts[2]]
    return f"{block}.branch2.{kind}_{letter}.{parts[-1]}"


def network(name, classes=400, **options):
    torch.manual_seed(0)
    return octvideo.create_model(name, num_classes=classes, width_per_group=8, **options).eval()


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Put files into the cache folder, as if they had been fetched, under names of the table."""
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path))
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")
    (tmp_path / "weights").mkdir()
    table = dict(pretrained_networks())
    monkeypatch.setattr(pretrained, "pretrained_networks", lambda: table)

    def put(name, model, content, **changes):
        table[name] = replace(table[name], model=model, sha256="", **changes)
        path = tmp_path / table[name].file_name
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        return path

    return put


def i3d_file():
    model = network("i3d_r26")
    return model, {
        "model_state": {pytorchvideo_name(n, True): t for n, t in model.state_dict().items()}
    }


# --- The table


def test_the_table_names_networks_of_this_package():
    for entry in pretrained_networks().values():
        assert entry.model in MODELS
        assert entry.url.startswith("https://")
        assert entry.license
        assert not entry.is_video or int(entry.num_frames) * int(entry.sampling_rate) >= 64
    with pretrained.TABLE.open() as file:
        assert (
            len({row["name"] for row in csv.DictReader(file)}) == len(pretrained_networks()) == 53
        )


@pytest.mark.parametrize("name", VIDEO)
def test_what_a_row_says_builds_its_network_from_the_shapes_alone(name):
    """The published files are not at hand; networks of their names are, and their shapes lead back
    to the options."""
    entry = VIDEO[name]
    options = pretrained._options(entry)
    with torch.device("meta"):
        if "r101_16x8" in name:
            options["num_block_temp_kernel"] = (3, 4, 6, 3)
        elif "slowfast_r101" in name:
            options["num_block_temp_kernel"] = (3, 4, 23, 3)
        if "slowfast_r50_k400" in name:
            options["fusion_kernel_size"] = 7
        model = octvideo.create_model(entry.model, num_classes=len(entry.class_names), **options)

    found, names = find_network(model.state_dict(), name, entry.model, pretrained._options(entry))

    fast = found.pop("num_block_temp_kernel_fast", None)
    assert fast in (None, found.get("num_block_temp_kernel"))
    assert found.items() <= model.config.items()
    assert names == list(model.state_dict())


def test_the_table_is_shown_by_pattern():
    lines = table_lines("*ssv2")

    assert len(lines) == 3
    assert "something-something-v2" in lines[1]


# --- One line


def test_a_name_loads_a_recognizer_that_knows_its_classes(zoo):
    model, file = i3d_file()
    zoo("i3d_r50_k400", "i3d_r26", file)

    recognizer = octvideo.load("i3d_r50_k400", device="cpu")

    assert recognizer.class_names == list(read_classes("kinetics400"))
    assert (recognizer.head_act, recognizer.preprocessing["sampling_rate"]) == (
        "softmax_of_mean",
        8,
    )
    frames = np.random.default_rng(0).integers(0, 255, (64, 40, 50, 3), np.uint8)
    assert len(recognizer.predict(frames, views="1x1", top_k=3)) == 3
    assert recognizer.features(frames).shape == (256,)
    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(recognizer.model(clip), model(clip))


def test_a_caffe2_file_loads_by_its_name(zoo):
    model = network("i3d_nln_r26")
    zoo("i3d_nln_r50_k400_c2", "i3d_nln_r26", pickle.dumps({"blobs": caffe2_blobs(model)}))

    recognizer = octvideo.load("i3d_nln_r50_k400_c2", device="cpu")

    clip = torch.randn(1, 3, 8, 64, 64)
    with torch.no_grad():
        assert torch.equal(recognizer.model(clip), model(clip))


def test_a_multi_label_network_says_so(zoo):
    model = network("slow_r26", 157)
    state = {pytorchvideo_name(n, False): t for n, t in model.state_dict().items()}
    zoo("slow_r50_charades", "slow_r26", {"model_state": state})

    recognizer = octvideo.load("slow_r50_charades", device="cpu")

    assert recognizer.multi_label
    assert not recognizer.preprocessing["reverse_channels"]


def test_a_network_is_created_with_public_weights(zoo):
    model, file = i3d_file()
    zoo("i3d_r50_k400", "i3d_r26", file)

    filled = octvideo.create_model(
        "i3d_r26", width_per_group=8, num_classes=5, weights="i3d_r50_k400"
    )

    assert torch.equal(filled.stem.conv.weight, model.stem.conv.weight)
    assert filled.head.fc.out_features == 5


def test_image_weights_are_inflated_into_a_video_network(tmp_path):
    image = octvideo.create_model("resnet26", width_per_group=8)
    Checkpoint("", image.state_dict(), network=image.config).write(str(tmp_path / "image.pyth"))

    video = octvideo.create_model(
        "c2d_r26", width_per_group=8, weights=str(tmp_path / "image.pyth")
    )

    assert torch.equal(video.stem.conv.weight[:, :, 0], image.stem.conv.weight)


def test_a_name_that_is_nearly_one_gets_the_nearest():
    with pytest.raises(CheckpointError, match="did you mean i3d_r50_k400"):
        read_weights("i3d_r50_k4000")
    with pytest.raises(CheckpointError, match="there is no folder nowhere"):
        read_weights("nowhere/best.pyth")


def test_a_file_of_another_network_is_refused(zoo):
    zoo("slow_r50_k400", "slow_r26", i3d_file()[1])

    with pytest.raises(CheckpointError, match="its names and shapes are not of slow_r26"):
        read_weights("slow_r50_k400")


# --- A file that somebody has


def test_a_bare_file_loads_with_classes_and_input(tmp_path):
    _, file = i3d_file()
    path = tmp_path / "I3D_8x8_R50.pyth"
    torch.save(file, path)

    with pytest.raises(CheckpointError, match=r"octvideo\.load\(file, classes='kinetics400'"):
        octvideo.load(path)
    recognizer = octvideo.load(path, classes="kinetics400", input="8x8", device="cpu")

    assert recognizer.class_names[5] == CLASS_NAMES["kinetics400"].read_text().splitlines()[5]
    assert recognizer.model.config["name"] == "i3d_r26"
    with pytest.raises(CheckpointError, match="classifies 400 classes; 2 names were given"):
        octvideo.load(path, classes=["a", "b"], input={"num_frames": 8, "sampling_rate": 8})


@pytest.mark.parametrize("name", ["c2d_r26", "i3d_nln_r26", "slow_r26", "slowfast_r26"])
def test_the_network_is_found_by_its_shapes(name):
    model = network(name, 3)

    found = describe(Checkpoint("w.pth", model.state_dict()), "abc", "8x8")

    assert found.network["name"] == name.replace("_nln", "")
    assert found.network["nonlocal_location"] == model.config["nonlocal_location"]


def test_names_of_classes_may_be_in_pyslowfasts_json(tmp_path):
    (tmp_path / "names.json").write_text('{"wave": 1, "kick": 0}')

    assert read_classes(tmp_path / "names.json") == ("kick", "wave")


def test_names_of_classes_are_read_without_what_an_editor_leaves_around_them(tmp_path, caplog):
    (tmp_path / "names.txt").write_text("\ufeffwave \r\n\n  kick a ball\t\n", encoding="utf-8")

    assert read_classes(tmp_path / "names.txt") == ("wave", "kick a ball")
    assert not caplog.records


def test_a_repeated_name_of_a_class_is_told(tmp_path, caplog):
    (tmp_path / "names.txt").write_text("crane\nwave\ncrane \n")

    assert read_classes(tmp_path / "names.txt") == ("crane", "wave", "crane")
    assert "names.txt: 'crane' stands there 2 times" in caplog.text


def test_what_cannot_be_read_gets_one_line():
    with pytest.raises(ConfigError, match="write frames x frame stride, as in '8x8'"):
        read_input("eight")
    with pytest.raises(ConfigError, match=r"\(kinetics400, .*, imagenet\) nor a text file"):
        read_classes("kinetics300")


def test_an_input_is_as_on_kinetics_where_nothing_is_said():
    seen = read_input(InputSpec(num_frames=8, sampling_rate=4, crop_size=3))

    assert seen == read_input({"num_frames": 8, "sampling_rate": 4, "crop_size": 3, "mean": None})
    assert (seen.crop_size, seen.mean, seen.short_side) == (3, (0.45,) * 3, 256)
    assert read_input({**seen.as_dict(), "std": [0.5]}).std == (0.5,) * 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (8, "input=8: write frames x frame stride"),
        ("0x8", "input='0x8': the number 0 is out of range"),
        ({"frames": 8}, "input: there is no 'frames'; did you mean num_frames"),
        ({"num_frames": 8}, "input: say num_frames and sampling_rate"),
        ({"num_frames": "8", "sampling_rate": 8}, "input: str '8' where int is expected"),
        ({"mean": (0.4, 0.5)}, "input: mean has 2 numbers, not one or three"),
        ({"std": (0.0,) * 3}, "input: the number 0.0 is out of range; .* std and sizes positive"),
    ],
)
def test_an_input_that_cannot_be_is_one_line(given, message):
    with pytest.raises(ConfigError, match=message):
        read_input(given)


# How many, and some labels that other projects' lists and documentation agree on.
CLASSES = {
    "kinetics400": (400, {0: "abseiling", 399: "zumba"}),
    "kinetics600": (600, {0: "abseiling", 599: "zumba"}),
    "something-something-v2": (
        174,
        {
            0: "Approaching something with your camera",
            17: "Holding something behind something",
            94: "Pushing something from right to left",
            173: "Wiping something off of something",
        },
    ),
    "charades": (
        157,
        {
            0: "Holding some clothes",
            8: "Opening a door",
            92: "Watching/Looking outside of a window",
            147: "Someone is cooking something",
            156: "Someone is eating something",
        },
    ),
    "imagenet": (
        1000,
        {0: "tench", 207: "golden retriever", 281: "tabby", 517: "crane", 999: "toilet tissue"},
    ),
}


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_class_names_come_with_the_package_in_the_order_of_their_labels(name):
    count, known = CLASSES[name]
    names = read_classes(name)

    assert len(set(names)) == len(names) == count
    assert {label: names[label] for label in known} == known
    if name.startswith(("kinetics", "something")):
        assert sorted(names) == list(names)


@pytest.mark.parametrize("name", ["slow_r50_ssv2", "slow_r50_charades"])
def test_a_network_of_another_data_set_knows_its_classes_too(name, zoo):
    data = pretrained_networks()[name].data
    model = network("slow_r26", classes=CLASSES[data][0])
    zoo(name, "slow_r26", {pytorchvideo_name(n, False): t for n, t in model.state_dict().items()})

    recognizer = octvideo.load(name, device="cpu")

    assert recognizer.class_names == list(read_classes(data))
    frames = np.random.default_rng(0).integers(0, 255, (64, 40, 50, 3), np.uint8)
    (best,) = recognizer.predict(frames, views="1x1", top_k=1)
    assert best.name in read_classes(data)


@pytest.mark.parametrize("name", pretrained_networks())
def test_every_row_knows_as_many_names_as_its_data_has_classes(name):
    entry = pretrained_networks()[name]

    assert len(entry.class_names) == CLASSES[entry.data][0]


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_config_named_as_weights_is_told_from_a_damaged_file(tmp_path, is_trained):
    config, best = tmp_path / "config.yaml", tmp_path / "checkpoints/best.pyth"
    config.write_text("MODEL: {ARCH: i3d}\n")
    if is_trained:
        best.parent.mkdir()
        best.touch()

    with pytest.raises(CheckpointError, match="is a config, not weights; name the file") as error:
        read_weights(str(config))

    assert str(error.value).endswith(f": {best}") == is_trained
