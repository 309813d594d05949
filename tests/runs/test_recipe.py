"""A `Recipe`: what was asked for, what is chosen, and one line for whatever cannot be used."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from octvideo.checkpoint import Checkpoint
from octvideo.cli import main
from octvideo.errors import ConfigError, DataError, OctvideoError
from octvideo.runs.machine import SIZES, Machine
from octvideo.runs.recipe import Recipe, _flip, every
from octvideo.runs.start import choose_start


def test_a_folder_of_class_folders_becomes_lists_and_settings(my_videos):
    cfg = Recipe(str(my_videos), model="i3d_r50", alpha=0.1, size="small", epochs=7).plan().cfg

    assert (cfg.MODEL.ARCH, cfg.RESNET.DEPTH, cfg.OCTCONV.ALPHA) == ("i3d", 50, 0.1)
    assert cfg.MODEL.NUM_CLASSES == 2
    assert SIZES["small"]["TRAIN_CROP_SIZE"] == cfg.DATA.TRAIN_CROP_SIZE
    assert cfg.SOLVER.MAX_EPOCH == 7
    assert cfg.OUTPUT_DIR == "runs/my_videos/train_i3d_r50_alpha0.1_small"
    lists = my_videos.parent / "here/runs/my_videos/lists"
    assert str(lists) == cfg.DATA.PATH_TO_DATA_DIR
    assert {"train.csv", "val.csv", "test.csv", "train.index.csv", "class_names.txt"} <= {
        path.name for path in lists.iterdir()
    }


def test_nothing_is_written_beside_the_videos(my_videos):
    before = sorted(my_videos.rglob("*"))

    Recipe(str(my_videos)).plan()

    assert sorted(my_videos.rglob("*")) == before


def test_a_folder_of_lists_is_taken_as_it_is(my_videos, tmp_path):
    made = Recipe(str(my_videos), out="first").plan().cfg.DATA.PATH_TO_DATA_DIR

    cfg = Recipe(made, out="second").plan().cfg

    assert made == cfg.DATA.PATH_TO_DATA_DIR
    assert cfg.MODEL.NUM_CLASSES == 2


def keep(recipe: Recipe, *, trains: bool = True):
    """The settings of a run that this command begins, with or without a checkpoint."""
    cfg = recipe.plan().cfg
    recipe.keep(cfg)
    if trains:
        (Path(recipe.folder) / "checkpoints").mkdir()
        (Path(recipe.folder) / "checkpoints/checkpoint_epoch_00001.pyth").touch()
    return cfg


LISTS = {
    "labels": ('a.mp4 0,1\nb.mp4 ""\n', {"MULTI_LABEL": True}),
    "separator": ("a b.mp4;0\nc, d.mp4;1\n", {"PATH_LABEL_SEPARATOR": ";"}),
    "frames": ("a 9 0\nb 9 1\n", {"LIST_FORMAT": "frames"}),
}


@pytest.fixture
def lists(tmp_path):
    """A folder of lists in one of these forms."""

    def write(form, names="no\nyes\n"):
        folder = tmp_path / "lists"
        folder.mkdir()
        for split in ("train", "val"):
            (folder / f"{split}.csv").write_text(LISTS[form][0])
        (folder / "class_names.txt").write_text(names)
        return str(folder)

    return write


@pytest.mark.parametrize("form", LISTS)
def test_lists_are_read_by_the_settings_of_the_run(lists, form):
    data = LISTS[form][1]
    model = {"LOSS_FUNC": "bce_logit" if "MULTI_LABEL" in data else "cross_entropy"}
    folder, words = lists(form), [f"DATA.{name}={value}" for name, value in data.items()]
    words.append(f"MODEL.LOSS_FUNC={model['LOSS_FUNC']}")

    said = Recipe(folder, out="run", settings={"DATA": data, "MODEL": model}).plan().cfg
    written = Recipe(folder, out="run", overrides=tuple(words)).plan().cfg

    assert said == written
    assert (said.MODEL.NUM_CLASSES, said.TRAIN.BATCH_SIZE) == (2, 2)
    assert folder == said.DATA.PATH_TO_DATA_DIR


def test_the_list_settings_of_a_run_that_goes_on_need_not_be_said_again(lists):
    folder = lists("separator")
    before = keep(Recipe(folder, out="run", overrides=("DATA.PATH_LABEL_SEPARATOR=;",)))

    assert Recipe(folder, out="run").plan().cfg == before


def test_shards_are_lists_that_are_there(my_videos):
    made = Recipe(str(my_videos), out="first").plan().cfg.DATA.PATH_TO_DATA_DIR
    for split in ("train", "val"):
        main(["shard", f"{made}/{split}.csv", "--out", f"shards/{split}"])

    cfg = Recipe("shards", out="run", overrides=("DATA.LIST_FORMAT=shards",)).plan().cfg

    assert cfg.MODEL.NUM_CLASSES == 2
    assert str(Path("shards").absolute()) == cfg.DATA.PATH_TO_DATA_DIR


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train.index.csv", "path\na.mp4\n", "train.index.csv: this is no index; write it again"),
        ("class_names.txt", "no\n", r"train.csv:1: label 1 is outside 0\.\.0"),
        ("train.csv", "path\na.mp4\n", "an unlabeled list can be tested, not trained"),
    ],
)
def test_lists_that_training_would_refuse_are_refused_in_a_line(lists, name, content, says):
    folder = lists("labels")
    Path(folder, name).write_text(content)
    words = ("DATA.MULTI_LABEL=true", "MODEL.LOSS_FUNC=bce_logit")

    with pytest.raises(DataError, match=says) as error:
        Recipe(folder, out="run", overrides=words).plan()

    assert "\n" not in str(error.value)


def test_what_is_not_said_again_stays_as_it_was(my_videos):
    before = keep(
        Recipe(str(my_videos), out="run", epochs=3, overrides=("SOLVER.BASE_LR=0.5",), size="large")
    )

    again = Recipe(str(my_videos), out="run").plan().cfg
    longer = Recipe(str(my_videos), out="run", epochs=5).plan().cfg

    assert again == before
    assert again.SOLVER.BASE_LR == 0.5
    assert Recipe(str(my_videos), out="run", weights="none").plan().cfg == before
    assert longer.SOLVER.MAX_EPOCH == 5
    assert longer.DATA == before.DATA


@pytest.mark.parametrize(
    "said",
    [
        {"model": "i3d_r50"},
        {"model": "slowfast_r50"},
        {"weights": "own.pyth"},
        {"weights": "own.pyth", "alpha": 0.25},
        {},
    ],
)
def test_a_command_before_the_first_checkpoint_binds_no_later_one(my_videos, tiny_checkpoint, said):
    shutil.copyfile(tiny_checkpoint, "own.pyth")
    keep(Recipe(str(my_videos), out="run", check=False, epochs=3), trains=False)
    (my_videos / "light").rename(my_videos / "swipe left")

    later = Recipe(str(my_videos), out="run", check=False, **said).plan().cfg

    (Path("run") / "config.yaml").unlink()
    assert later == Recipe(str(my_videos), out="run", check=False, **said).plan().cfg
    assert not later.DATA.RANDOM_FLIP


def test_the_same_weights_named_again_change_no_setting(my_videos, tiny_checkpoint):
    of = {"out": "run", "check": False}
    own = ("DATA.MEAN=[.5,.5,.5]",)
    before = keep(Recipe(str(my_videos), weights=str(tiny_checkpoint), overrides=own, **of))
    beside = os.path.relpath(tiny_checkpoint)

    assert Recipe(str(my_videos), weights=str(tiny_checkpoint), **of).plan().cfg == before
    assert Recipe(str(my_videos), weights=beside, **of).plan().cfg == before


def test_other_weights_bring_their_settings(my_videos, tiny_checkpoint):
    shutil.copyfile(tiny_checkpoint, "other.pyth")
    own = ("DATA.MEAN=[.5,.5,.5]",)
    of = {"out": "run", "check": False}
    keep(Recipe(str(my_videos), weights=str(tiny_checkpoint), overrides=own, **of))

    cfg = Recipe(str(my_videos), weights="other.pyth", **of).plan().cfg

    assert (cfg.TRAIN.CHECKPOINT_FILE_PATH, cfg.DATA.MEAN) == ("other.pyth", [0.45] * 3)


def test_config_yaml_is_short_and_describes_the_run(my_videos):
    from octvideo.config import load_config

    recipe = Recipe(str(my_videos), out="run")
    cfg = recipe.plan().cfg
    recipe.keep(cfg)

    text = Path("run/config.yaml").read_text()
    assert load_config("run/config.yaml") == cfg
    assert yaml.safe_load(text)["_BASE_"] == "finetune/i3d"
    assert len(text.splitlines()) < 50


def test_files_that_cannot_be_read_are_named_and_left_out(my_videos, caplog):
    (my_videos / "dark" / "torn.mp4").write_bytes(b"no video")

    with caplog.at_level("INFO", "octvideo"):
        cfg = Recipe(str(my_videos)).plan().cfg

    assert "1 of 11 files cannot be read and are left out" in caplog.text
    assert "torn.mp4" in caplog.text
    assert cfg.DATA.PATH_TO_DATA_DIR.endswith("runs/my_videos/lists")
    listed = Path("runs/my_videos/lists").glob("t*.csv")
    assert not any("torn.mp4" in path.read_text() for path in listed if "index" not in path.name)


def empty(folder):
    shutil.rmtree(folder / "dark")
    shutil.rmtree(folder / "light")
    return folder


def one_class(folder):
    shutil.rmtree(folder / "dark")
    return folder


def a_list(folder):
    (folder / "train.csv").write_text("dark/0.mp4 0\n")
    return folder / "train.csv"


def a_list_without_names(folder):
    (folder / "train.csv").write_text("dark/0.mp4 0\n")
    return folder


def not_there(folder):
    return folder / "nowhere"


def no_class_folder(folder):
    shutil.copyfile(folder / "dark" / "0.mp4", folder / "loose.mp4")
    return folder


def unreadable(folder):
    for path in folder.rglob("*.mp4"):
        path.write_bytes(path.parent.name.encode())
    return folder


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (empty, "no video in it or below it"),
        (
            one_class,
            "one class only, 'light'; put the videos of each class into a folder of its own",
        ),
        (a_list, "a file; name the folder of class folders"),
        (a_list_without_names, "no class_names.txt"),
        (not_there, "there is no such folder of videos"),
        (no_class_folder, "this video is in no class folder"),
        (unreadable, "none of the 10 videos can be read"),
    ],
)
def test_a_folder_that_nothing_can_be_learned_from_gets_one_line(my_videos, spoil, says):
    with pytest.raises((DataError, ConfigError), match=says) as error:
        Recipe(str(spoil(my_videos))).plan()

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"model": "i3d_r5"}, "did you mean i3d_r50?"),
        ({"model": "resnet50"}, "resnet50 takes images; choose a video network"),
        ({"size": "huge"}, "it is one of small, medium, large"),
        ({"views": "10"}, "give clips x crops"),
        ({"epochs": -1}, "at least 1"),
        ({"alpha": 1.5}, "OCTCONV.ALPHA is 1.5"),
        ({"weights": "i3d_r50_k401"}, "did you mean i3d_r50_k400"),
        ({"probe": True}, "a probe needs trained weights, and this one would start from scratch"),
        ({"settings": {"SOLVER": {"BASE_RL": 1}}}, "there is no setting SOLVER.BASE_RL"),
        ({"overrides": ("SOLVER.BASE_LR",)}, "has no value"),
        ({"overrides": ("OUTPUT_DIR=elsewhere",)}, "say `--out`"),
    ],
)
def test_a_recipe_that_cannot_be_followed_gets_one_line_and_leaves_no_settings(
    my_videos, asked, says
):
    with pytest.raises(OctvideoError, match=says) as error:
        Recipe(str(my_videos), out="run", check=False, **asked).plan()

    assert "\n" not in str(error.value)
    assert not Path("run/config.yaml").exists()


def test_a_kept_run_from_scratch_is_no_start_for_a_probe(my_videos):
    keep(Recipe(str(my_videos), out="run", check=False))

    with pytest.raises(ConfigError, match="a probe needs trained weights"):
        Recipe(str(my_videos), out="run", check=False, probe=True).plan()


def test_a_class_with_one_video_is_said(my_videos, write_clips, caplog):
    write_clips(my_videos / "rare", 1, 90)

    with caplog.at_level("INFO", "octvideo"):
        Recipe(str(my_videos)).plan()

    assert "'rare' has 1 video(s): none in val and test" in caplog.text


def test_classes_that_name_a_side_are_not_mirrored(my_videos):
    mirrored = Recipe(str(my_videos), out="a", check=False).plan().cfg
    (my_videos / "dark").rename(my_videos / "Swiping_Left")

    sided = Recipe(str(my_videos), out="b", check=False).plan().cfg

    assert mirrored.DATA.RANDOM_FLIP
    assert not sided.DATA.RANDOM_FLIP


@pytest.mark.parametrize(
    ("name", "is_sided"),
    [
        ("SwipeLeft", True),
        ("swipe-right", True),
        ("CCW_Rotation", True),
        ("counter-clockwise", True),
        ("Bright_lamp", False),
        ("ward", False),
    ],
)
def test_names_that_a_mirror_changes(name, is_sided):
    assert bool(_flip(["wave", name])) == is_sided


def test_rates_are_read_aloud():
    rates = (1, 2, 3, 7, 11, 21, 112)

    assert [every(rate) for rate in rates] == [
        "every frame",
        *(f"every {n} frame" for n in ("2nd", "3rd", "7th", "11th", "21st", "112th")),
    ]


def test_from_scratch_a_small_network_that_pools_is_taken_unless_one_is_named(my_videos):
    chosen = Recipe(str(my_videos), out="a", check=False).plan().cfg
    named = Recipe(str(my_videos), out="b", check=False, model="i3d_r50").plan().cfg

    assert (chosen.RESNET.DEPTH, chosen.RESNET.WIDTH_PER_GROUP) == (26, 32)
    assert chosen.OCTCONV.DOWNSAMPLE == "pool"
    assert (named.RESNET.DEPTH, named.RESNET.WIDTH_PER_GROUP) == (50, 64)
    assert chosen.SOLVER.OPTIMIZING_METHOD == named.SOLVER.OPTIMIZING_METHOD == "adamw"


def test_short_videos_are_sampled_densely(my_videos):
    """12 frames at 30 per second: 8 frames fit only one by one."""
    cfg = Recipe(str(my_videos), model="i3d_r50").plan().cfg

    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE) == (8, 1)


@pytest.mark.parametrize(
    ("machine", "num_train", "batch", "workers", "half"),
    [
        (Machine("", 2, 0.0, ""), 100, 8, 1, False),
        (Machine("", 1, 0.0, "bfloat16"), 10, 2, 0, True),
        (Machine("", 64, 0.0, ""), 1, 1, 8, False),
        (Machine("NVIDIA H100", 16, 80.0, "bfloat16"), 1000, 16, 12, True),
        (Machine("NVIDIA T4", 4, 15.0, "float16"), 1000, 8, 3, True),
    ],
)
def test_settings_follow_the_machine(machine, num_train, batch, workers, half):
    settings = machine.settings(num_train)

    assert settings["TRAIN"]["BATCH_SIZE"] == batch
    assert settings["DATA_LOADER"]["NUM_WORKERS"] == workers
    assert settings["TRAIN"]["MIXED_PRECISION"] is half
    assert machine.size == ("large" if machine.name else "medium")


@pytest.mark.parametrize(
    ("in_cache", "alpha", "expected"),
    [
        (("i3d_r50_k400.pyth", "resnet50_in1k.pth"), 0.0, "i3d_r50_k400"),
        (("i3d_r50_k400.pyth", "resnet50_in1k.pth"), 0.1, "resnet50_in1k"),
        (("resnet50_in1k.pth",), 0.0, "resnet50_in1k"),
        ((), 0.0, ""),
    ],
)
def test_the_best_start_that_is_there_is_taken(in_cache, alpha, expected, tmp_path):
    (tmp_path / "cache/weights").mkdir(parents=True)
    for name in in_cache:
        (tmp_path / "cache/weights" / name).write_bytes(b"")

    start = choose_start("i3d_r50", alpha)

    assert start.settings["TRAIN"]["CHECKPOINT_FILE_PATH"] == expected
    assert start.settings["TRAIN"]["CHECKPOINT_INFLATE"] is expected.startswith("resnet")
    if not expected:
        assert "neither weights/i3d_r50_k400.pyth nor weights/resnet50_in1k.pth" in start.line
        assert "OCTVIDEO_OFFLINE is set" in start.line


def test_a_server_that_answers_is_asked_for_the_best_start(monkeypatch):
    monkeypatch.delenv("OCTVIDEO_OFFLINE")
    monkeypatch.setattr("octvideo.runs.start.is_reachable", lambda url: "pytorchvideo" in url)

    assert choose_start("slowfast_r50", 0.0).settings["DATA"]["NUM_FRAMES"] == 32
    assert choose_start("i3d_r50", 0.1).settings["TRAIN"]["CHECKPOINT_FILE_PATH"] == ""


@pytest.mark.parametrize("reverse", [True, False])
def test_a_checkpoint_of_this_package_says_its_input(tiny_checkpoint, tmp_path, reverse):
    checkpoint, path = Checkpoint.read(str(tiny_checkpoint)), str(tmp_path / "reversed.pyth")
    seen = replace(checkpoint.input, mean=(0.4, 0.5, 0.6), reverse_channels=reverse)
    replace(checkpoint, input=seen).write(path)

    start = choose_start("i3d_r26", 0.25, path)

    assert start.settings["DATA"] == {
        "MEAN": [0.4, 0.5, 0.6],
        "STD": [0.225] * 3,
        "REVERSE_INPUT_CHANNEL": reverse,
        "NUM_FRAMES": 4,
        "SAMPLING_RATE": 2,
        "SAMPLING_RULE": "pyslowfast",
        "TARGET_FPS": 30.0,
    }
    assert not start.settings["TRAIN"]["CHECKPOINT_INFLATE"]


def test_a_start_from_another_projects_file_takes_the_input_that_it_says(tmp_path):
    state = {"backbone.conv1.conv.weight": torch.zeros(8, 3, 1, 7, 7)}
    config = "model = dict(data_preprocessor=dict(mean=[51, 51, 51], std=[51, 51, 51]))"
    torch.save({"state_dict": state, "meta": {"cfg": config}}, tmp_path / "theirs.pth")

    data = choose_start("slow_r50", 0.0, str(tmp_path / "theirs.pth")).settings["DATA"]

    assert (data["MEAN"], data["STD"], data["SAMPLING_RULE"]) == ([0.2] * 3, [0.2] * 3, "stride")


def test_a_start_from_a_public_network_takes_its_frames(tmp_path):
    (tmp_path / "cache/weights").mkdir(parents=True)
    (tmp_path / "cache/weights/slow_r50_ssv2.pyth").write_bytes(b"")

    data = choose_start("slow_r50", 0.0, "slow_r50_ssv2").settings["DATA"]

    assert (data["NUM_FRAMES"], data["SAMPLING_RULE"]) == (8, "segment")


def test_a_network_without_options_for_small_widths_is_refused_in_a_line():
    with pytest.raises(ConfigError, match="takes images"):
        Recipe("videos", model="mobilenet_v1")
