"""Weights to start from, as a config names them."""

import logging
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from octvideo import create_model, octavize
from octvideo.assembly.model import build_model
from octvideo.assembly.recipe import frozen_warning
from octvideo.assembly.trained_with import check_said_input, tell_other_clips
from octvideo.assembly.weights import is_to_be_sorted, load_initial_weights, start_lines
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.config import load_config
from octvideo.data.loading.batch import Sample
from octvideo.engine.distributed import Processes
from octvideo.errors import CheckpointError, ConfigError, DataError

SMALL = [
    "DATA_LOADER.NUM_WORKERS=0",
    "RESNET.DEPTH=26",
    "RESNET.WIDTH_PER_GROUP=16",
    "MODEL.NUM_CLASSES=3",
]


class Clips:
    """Four clips of noise, of which not one may be asked for where nothing is divided."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 4

    def sample(self, epoch: int, index: int) -> Sample:
        self.asked.append(index)
        noise = torch.randint(
            256, (3, 4, 32, 32), generator=torch.Generator().manual_seed(index), dtype=torch.uint8
        )
        return Sample(noise, 0, index, "clip")


CLIPS = Clips()


@pytest.fixture
def image_file(tmp_path: Path) -> str:
    """A ResNet-26 of ours that does say what it assumes."""
    model = create_model("resnet26", width_per_group=16, num_classes=5)
    meta = {
        "model": model.config,
        "preprocessing": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    torch.save({"model_state": model.state_dict(), "meta": meta}, tmp_path / "image.pyth")
    return str(tmp_path / "image.pyth")


def config(repo: Path, name: str, *settings: str):
    return load_config(str(repo / "configs" / "finetune" / f"{name}.yaml"), [*SMALL, *settings])


def test_image_weights_are_inflated_and_the_log_says_what_changed(repo, image_file, caplog):
    cfg = config(repo, "oct_i3d", f"TRAIN.CHECKPOINT_FILE_PATH={image_file}", "OCTCONV.ALPHA=0.5")
    model = build_model(cfg)

    with caplog.at_level(logging.INFO, "octvideo"):
        load_initial_weights(cfg, model, CLIPS, Processes())

    stem = torch.load(image_file, weights_only=True)["model_state"]["stem.conv.weight"]
    torch.testing.assert_close(model.stem.conv.weight.sum(2), stem)
    for text in (
        "inflated",
        "split in res3",
        "starts fresh: head.fc (5 classes in the image weights, 3 in the network)",
    ):
        assert text in caplog.text


@pytest.mark.parametrize(
    ("name", "settings", "asks"),
    [
        ("oct_i3d", [], True),
        ("oct_i3d", ["OCTCONV.SMOOTHEST_LOW=false"], False),
        ("i3d", [], False),
    ],
)
def test_clips_of_the_data_say_which_channels_of_vanilla_weights_go_low(
    repo, image_file, caplog, name, settings, asks
):
    cfg, clips = config(repo, name, f"TRAIN.CHECKPOINT_FILE_PATH={image_file}", *settings), Clips()

    with caplog.at_level(logging.INFO, "octvideo"):
        load_initial_weights(cfg, build_model(cfg), clips, Processes())

    assert bool(clips.asked) == asks
    assert ("channels that lose least at half the size low" in caplog.text) == asks


@pytest.mark.parametrize(
    ("name", "settings", "warns"),
    [
        ("oct_i3d", ["MODEL.FROZEN_BN=true"], True),
        ("oct_i3d", ["MODEL.FREEZE_STAGES=[1,2]", "OCTCONV.ALPHA=0.5"], True),
        ("oct_i3d", ["MODEL.FREEZE_STAGES=[1]", "OCTCONV.ALPHA=0.5"], False),
        ("oct_i3d", ["MODEL.FREEZE_STAGES=[1,2]", "OCTCONV.STAGES=[4,5]"], False),
        ("oct_i3d", ["MODEL.FROZEN_BN=true", "BN.PRECISE_STATS_AT_START=true"], False),
        ("oct_i3d", [], False),
        ("i3d", ["MODEL.FROZEN_BN=true"], False),
    ],
)
def test_frozen_batch_norms_of_divided_kernels_are_warned_of(
    repo, image_file, caplog, name, settings, warns
):
    cfg = config(repo, name, f"TRAIN.CHECKPOINT_FILE_PATH={image_file}", *settings)

    load_initial_weights(cfg, build_model(cfg), CLIPS, Processes())

    assert ("BN.PRECISE_STATS_AT_START True" in caplog.text) == warns


SLOWFAST = ["MODEL.ARCH=slowfast", "DATA.NUM_FRAMES=16"]
NONLOCAL = ["NONLOCAL.LOCATION=[[[]],[[1]],[[]],[[]]]"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            [*SLOWFAST, "MODEL.FROZEN_BN=true"],
            "fast starts fresh, and frozen it would not learn; set MODEL.FROZEN_BN False",
        ),
        (
            [*SLOWFAST, "MODEL.FREEZE_STAGES=[1,2]"],
            r"fast starts fresh.*; set MODEL.FREEZE_STAGES \[\]",
        ),
        (
            [*NONLOCAL, "MODEL.FREEZE_STAGES=[1,2,3]"],
            r"res3.nonlocal1 starts fresh.*; set MODEL.FREEZE_STAGES \[\]",
        ),
    ],
)
def test_what_starts_fresh_is_not_frozen(repo, image_file, settings, message):
    cfg = config(repo, "i3d", f"TRAIN.CHECKPOINT_FILE_PATH={image_file}", *settings)

    with pytest.raises(ConfigError, match=message):
        load_initial_weights(cfg, build_model(cfg), CLIPS, Processes())


@pytest.mark.parametrize("settings", [SLOWFAST, [*NONLOCAL, "MODEL.FREEZE_STAGES=[1,2]"]])
def test_what_starts_fresh_may_stand_beside_what_is_frozen(repo, image_file, settings):
    cfg = config(repo, "i3d", f"TRAIN.CHECKPOINT_FILE_PATH={image_file}", *settings)

    load_initial_weights(cfg, build_model(cfg), CLIPS, Processes())


def test_data_that_cannot_be_read_ends_the_start(repo, image_file, monkeypatch):
    def unreadable(self, epoch, index):
        raise DataError("20 videos in a row cannot be read")

    monkeypatch.setattr(Clips, "sample", unreadable)
    cfg = config(repo, "oct_i3d", f"TRAIN.CHECKPOINT_FILE_PATH={image_file}")

    with pytest.raises(DataError, match="20 videos in a row"):
        load_initial_weights(cfg, build_model(cfg), Clips(), Processes())


def test_without_a_file_training_starts_from_scratch_and_says_so(repo, caplog):
    cfg = config(repo, "i3d")

    load_initial_weights(cfg, build_model(cfg), CLIPS, Processes())

    assert "training from scratch: TRAIN.CHECKPOINT_FILE_PATH names no image weights" in caplog.text


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("MODEL.FREEZE_STAGES=[1,2]", "MODEL.FREEZE_STAGES [1, 2] keeps what was never trained"),
        ("MODEL.FROZEN_BN=true", "MODEL.FROZEN_BN True keeps what was never trained as it is"),
    ],
)
def test_what_is_frozen_from_scratch_is_warned_of(repo, setting, said):
    assert f"training from scratch: {said}" in frozen_warning(config(repo, "i3d", setting))


@pytest.mark.parametrize("setting", ["MODEL.FREEZE_STAGES=[]", "TRAIN.CHECKPOINT_FILE_PATH=a.pyth"])
def test_what_is_frozen_of_trained_weights_is_not(repo, setting):
    assert not frozen_warning(config(repo, "i3d", "MODEL.FREEZE_STAGES=[1]", setting))


def test_another_input_is_refused_before_the_model_is_touched(repo, image_file):
    cfg = config(
        repo, "i3d", f"TRAIN.CHECKPOINT_FILE_PATH={image_file}", "DATA.MEAN=[0.45,0.45,0.45]"
    )
    model = build_model(cfg)
    before = model.stem.conv.weight.clone()

    with pytest.raises(CheckpointError, match=r"set DATA\.MEAN \[0\.485, 0\.456, 0\.406\]"):
        load_initial_weights(cfg, model, CLIPS, Processes())

    assert torch.equal(model.stem.conv.weight, before)


def octavized(cfg):
    return octavize(build_model(cfg), 0.5, torch.empty(1, 3, 4, 32, 32))


@pytest.mark.parametrize(
    ("source", "build"),
    [("i3d_r26", build_model), ("resnet26", build_model), ("i3d_r26", octavized)],
    ids=["loaded", "inflated", "octavized"],
)
def test_channels_in_another_order_are_refused_before_the_model_is_touched(
    repo, tmp_path, source, build
):
    path, cfg = str(tmp_path / "reversed.pyth"), config(repo, "i3d_from_kinetics")
    network = create_model(source, width_per_group=16, num_classes=3)
    seen = InputSpec(tuple(cfg.DATA.MEAN), tuple(cfg.DATA.STD), reverse_channels=True)
    Checkpoint(path, network.state_dict(), network=network.config, input=seen).write(path)
    cfg = config(repo, "i3d_from_kinetics", f"TRAIN.CHECKPOINT_FILE_PATH={path}")
    model = build(cfg)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(CheckpointError, match=r"set DATA\.REVERSE_INPUT_CHANNEL True"):
        load_initial_weights(cfg, model, CLIPS, Processes())
    with pytest.raises(CheckpointError, match=r"set DATA\.REVERSE_INPUT_CHANNEL True"):
        start_lines(cfg, model, path)

    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_texts_to_remove_are_removed_from_weights_that_octavize_divides(repo, tmp_path):
    network = create_model("i3d_r26", width_per_group=16, num_classes=3)
    state = {f"encoder.{name}": tensor for name, tensor in network.state_dict().items()}
    path = str(tmp_path / "w.pth")
    torch.save(state, path)
    pattern = "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN=['encoder.']"
    cfg = config(repo, "i3d_from_kinetics", f"TRAIN.CHECKPOINT_FILE_PATH={path}", pattern)
    model = octavized(cfg)

    load_initial_weights(cfg, model, CLIPS, Processes())

    assert torch.equal(model.stem.conv.weight, network.stem.conv.weight)
    assert start_lines(cfg, octavized(cfg), path)[0].startswith("vanilla weights are divided")


def test_a_video_file_loads_as_it_is(repo, tmp_path):
    cfg = config(
        repo,
        "i3d",
        "TRAIN.CHECKPOINT_INFLATE=false",
        f"TRAIN.CHECKPOINT_FILE_PATH={tmp_path / 'w.pyth'}",
    )
    trained, model = build_model(cfg), build_model(cfg)
    torch.save(
        {"model_state": trained.state_dict(), "meta": {"model": trained.config}},
        tmp_path / "w.pyth",
    )

    load_initial_weights(cfg, model, CLIPS, Processes())

    assert torch.equal(model.stem.conv.weight, trained.stem.conv.weight)


FINETUNE = Path(__file__).parents[2] / "configs" / "finetune"


def test_what_training_would_do_with_image_weights_is_told_in_30_lines(tmp_path):
    cfg = load_config(str(FINETUNE / "oct_i3d.yaml"), [*SMALL, "OCTCONV.ALPHA=0.5"])
    image, path = create_model("resnet26", width_per_group=16), str(tmp_path / "image.pyth")
    seen = InputSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    Checkpoint(path, image.state_dict(), network=image.config, input=seen).write(path)

    lines = start_lines(cfg, build_model(cfg), path)

    assert len(lines) <= 30
    assert lines[0].endswith("are inflated into i3d_r26")
    assert any("channels are sorted" in line for line in lines)
    assert any(line.startswith("split in res2") for line in lines)
    assert any(line.startswith("starts fresh: head.fc") for line in lines)


def test_video_weights_are_loaded_where_their_input_is_the_settings(tmp_path):
    cfg = load_config(str(FINETUNE / "i3d_from_kinetics.yaml"), SMALL)
    path, seen = str(tmp_path / "i3d.pyth"), InputSpec((0.45,) * 3, (0.225,) * 3)
    source = create_model("i3d_r26", width_per_group=16, num_classes=400)
    Checkpoint(path, source.state_dict(), network=source.config, input=seen).write(path)
    model = build_model(cfg)

    lines = start_lines(cfg, model, path)

    assert "skipped head head.fc.weight" in lines[1]
    assert torch.equal(model.stem.conv.weight, source.stem.conv.weight)
    cfg = load_config(str(FINETUNE / "i3d_from_kinetics.yaml"), [*SMALL, "DATA.MEAN=[0.5,0.5,0.5]"])
    with pytest.raises(CheckpointError, match=r"set DATA\.MEAN \[0\.45, 0\.45, 0\.45\]"):
        start_lines(cfg, build_model(cfg), path)


def test_channels_of_a_family_without_an_octave_ratio_are_not_sorted():
    network = create_model("i3d_r26", width_per_group=8)
    del network.config["alpha"]

    assert not is_to_be_sorted(
        load_config("kinetics400/i3d", ["OCTCONV.SMOOTHEST_LOW=true"]),
        Mock(is_octave=False),
        network,
    )


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        ("FEDCBA", [5, 4, 3, 2, 1, 0]),
        ("abcdex", [0, 1, 2, 3, 4, 5]),
        ("bcdefx", [1, 2, 3, 4, 5, 0]),  # a was renamed
        ("uvwxyz", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_each_class_begins_with_its_own_row_of_the_classifier(repo, tiny_checkpoint, names, rows):
    cfg = config(
        repo,
        "oct_i3d",
        f"TRAIN.CHECKPOINT_FILE_PATH={tiny_checkpoint}",
        "TRAIN.CHECKPOINT_INFLATE=false",
        "MODEL.NUM_CLASSES=6",
        "OCTCONV.ALPHA=0.25",
        "OCTCONV.DOWNSAMPLE=",
        "DATA.MEAN=[0.45,0.45,0.45]",
        "DATA.STD=[0.225,0.225,0.225]",
    )
    model = build_model(cfg)

    load_initial_weights(cfg, model, CLIPS, Processes(), names)

    state = torch.load(tiny_checkpoint, weights_only=True)["model_state"]
    assert torch.equal(model.head.fc.weight, state["head.fc.weight"][rows])
    assert torch.equal(model.head.fc.bias, state["head.fc.bias"][rows])


OF_OTHERS = {
    "mmaction2": {
        "state_dict": {"backbone.conv1.conv.weight": torch.zeros(8, 3, 1, 7, 7)},
        "meta": {"cfg": "model = dict(data_preprocessor=dict(mean=[51, 51, 51], to_rgb=True))"},
    },
    "PySlowFast": {
        "model_state": {"s1.pathway0_stem.conv.weight": torch.zeros(8, 3, 1, 7, 7)},
        "cfg": "DATA: {MEAN: [0.2, 0.2, 0.2], STD: [0.225, 0.225, 0.225], REVERSE_INPUT_CHANNEL: true}",
    },
}


@pytest.mark.parametrize("project", OF_OTHERS)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["DATA.REVERSE_INPUT_CHANNEL=True"], r"set DATA\.MEAN \[0\.2, 0\.2, 0\.2\]"),
        (["DATA.MEAN=[0.2,0.2,0.2]"], r"set DATA\.REVERSE_INPUT_CHANNEL True"),
    ],
)
def test_the_input_that_a_file_of_another_project_says_is_compared(project, settings, says):
    cfg = load_config(str(FINETUNE / "i3d_from_kinetics.yaml"), [*SMALL, *settings])

    with pytest.raises(CheckpointError, match=says):
        check_said_input(cfg, Checkpoint.of(OF_OTHERS[project], "w.pth"))


def test_one_number_of_a_files_mean_is_of_all_channels():
    cfg = load_config(str(FINETUNE / "i3d_from_kinetics.yaml"), SMALL)
    content = {**OF_OTHERS["PySlowFast"], "cfg": "DATA: {MEAN: [0.45], STD: [0.2]}"}

    with pytest.raises(CheckpointError, match=r"set DATA\.STD \[0\.2, 0\.2, 0\.2\]"):
        check_said_input(cfg, Checkpoint.of(content, "w.pth"))


def test_what_a_file_does_not_say_of_its_input_is_told(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    cfg = load_config(str(FINETUNE / "i3d_from_kinetics.yaml"), SMALL)
    content = {**OF_OTHERS["PySlowFast"], "cfg": ""}

    with caplog.at_level(logging.INFO):
        check_said_input(cfg, Checkpoint.of(content, "w.pth"))

    assert "w.pth: the weights do not say their input's mean; DATA.MEAN" in caplog.text


CLIPS_OF_OTHERS = {
    "mmaction2": "train_pipeline = [dict(type='SampleFrames', clip_len=4, frame_interval=16)]",
    "PySlowFast": "DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 16, TARGET_FPS: 25, TEST_CROP_SIZE: 224}",
}


@pytest.mark.parametrize(
    ("project", "says"),
    [
        ("mmaction2", "DATA.NUM_FRAMES 8 instead of 4, DATA.SAMPLING_RATE 8 instead of 16"),
        ("mmaction2", "DATA.SAMPLING_RULE pyslowfast instead of stride"),
        ("PySlowFast", "DATA.NUM_FRAMES 8 instead of 4, DATA.SAMPLING_RATE 8 instead of 16"),
        ("PySlowFast", "DATA.TARGET_FPS 30.0 instead of 25)"),
        ("PySlowFast", "says another crop of a test (DATA.TEST_CROP_SIZE 256 instead of 224)"),
    ],
)
def test_the_clips_that_a_file_of_another_project_says_are_compared(
    project, says, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    cfg = load_config(str(FINETUNE / "i3d_from_kinetics.yaml"), SMALL)
    text = CLIPS_OF_OTHERS[project]
    content = OF_OTHERS[project] | {"meta": {"cfg": text}, "cfg": text}

    with caplog.at_level(logging.INFO):
        tell_other_clips(cfg, Checkpoint.of(content, "w.pth"), logging.WARNING)

    assert says in caplog.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["DATA.SAMPLING_RATE=2"], "DATA.NUM_FRAMES 8 instead of 4"),
        (["DATA.NUM_FRAMES=4", "DATA.SAMPLING_RATE=2", "DATA.TEST_CROP_SIZE=64"], "another crop"),
        (["DATA.NUM_FRAMES=4", "DATA.SAMPLING_RATE=2", "DATA.TEST_CROP_SIZE=32"], ""),
    ],
)
def test_a_training_from_weights_of_other_clips_says_so(
    repo, tiny_checkpoint, settings, says, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    start = f"TRAIN.CHECKPOINT_FILE_PATH={tiny_checkpoint}"
    octave = ["OCTCONV.ALPHA=0.25", "OCTCONV.DOWNSAMPLE="]
    cfg = config(repo, "i3d_from_kinetics", start, "DATA.TRAIN_CROP_SIZE=32", *octave, *settings)

    with caplog.at_level(logging.INFO):
        load_initial_weights(cfg, build_model(cfg), CLIPS, Processes())

    assert (says in caplog.text) if says else "instead of" not in caplog.text


def test_image_weights_have_no_clips_to_compare(repo, image_file, caplog):
    cfg = config(repo, "i3d", f"TRAIN.CHECKPOINT_FILE_PATH={image_file}")

    with caplog.at_level(logging.INFO, "octvideo"):
        load_initial_weights(cfg, build_model(cfg), CLIPS, Processes())

    assert "another crop" not in caplog.text
