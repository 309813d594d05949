"""A run goes on from its own checkpoints only, and a test says of weights what they were trained
for."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from octvideo import create_model
from octvideo.assembly.identity import (
    RunIdentity,
    check_tested,
    flat,
    is_fixed,
    recipe_of,
    refuse_another_probe,
    warn_of_earlier_training,
)
from octvideo.assembly.model import build_model
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.config import load_config
from octvideo.config.defaults import DEFAULTS
from octvideo.data.lists.video_list import VideoEntry, VideoList
from octvideo.errors import CheckpointError
from octvideo.weights.describe import find_network
from octvideo.weights.pretrained import _options, pretrained_networks

CONFIGS = Path(__file__).parents[2] / "configs" / "kinetics400"
NETWORK = {"name": "i3d_r26", "alpha": 0.25, "stride_1x1": False, "dropout_rate": 0.5}
INPUT = InputSpec(mean=(0.45,) * 3, num_frames=8, sampling_rate=2, crop_size=32)


@pytest.fixture
def run(repo):
    """run("A.B=1", classes=..., samples=...) is the identity of a run with these changes."""

    def make(*settings, classes=("left", "right"), fingerprint="f", samples=8):
        cfg = load_config(str(repo / "configs/demo/oct_i3d.yaml"), ["OUTPUT_DIR=out", *settings])
        about = Checkpoint(
            path="c.pyth",
            network=NETWORK,
            class_names=tuple(classes),
            input=INPUT,
            recipe=cfg.dump(),
            training={"data": {"fingerprint": fingerprint, "samples": samples}},
        )
        return RunIdentity(cfg, about)

    return make


def test_a_run_agrees_with_its_own_checkpoint(run):
    assert run().differences(run().about) == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("SOLVER.BASE_LR=0.001", "SOLVER.BASE_LR 0.001 instead of 0.05"),
        ("SOLVER.MAX_EPOCH=99", "SOLVER.MAX_EPOCH 99 instead of"),
        ("TRAIN.BATCH_SIZE=4", "TRAIN.BATCH_SIZE 4 instead of"),
        ("DATA_LOADER.NUM_WORKERS=3", "DATA_LOADER.NUM_WORKERS 3 instead of"),
    ],
)
def test_a_recipe_that_may_change_is_said(run, setting, said):
    (line,) = run(setting).differences(run().about)

    assert said in line


@pytest.mark.parametrize(
    "setting", ["OUTPUT_DIR=else", "TEST.NUM_ENSEMBLE_VIEWS=1", "LOG_PERIOD=3"]
)
def test_what_training_does_not_depend_on_is_not_said(run, setting):
    assert run(setting).differences(run().about) == []


@pytest.mark.parametrize(
    "setting",
    [
        "DATA.SAMPLING_RATE=16",
        "DATA.MEAN=[0.5,0.5,0.5]",
        "DATA.TRAIN_CROP_SIZE=40",
        "MODEL.DROPOUT_RATE=0",
        "OCTCONV.ALPHA=0.25",
        "RESNET.STRIDE_1X1=true",
        "RNG_SEED=7",
        "TRAIN.CHECKPOINT_FILE_PATH=other.pyth",
    ],
)
def test_a_change_of_what_weights_mean_is_refused_by_name(run, setting):
    with pytest.raises(CheckpointError, match="of another run") as error:
        run(setting).differences(run().about)

    assert f"{setting.partition('=')[0]} " in str(error.value)
    assert "choose another OUTPUT_DIR" in str(error.value)


def test_every_setting_of_the_data_and_the_network_is_fixed_or_free_by_choice():
    fixed = [key for key in flat(DEFAULTS) if is_fixed(key)]

    assert {"DATA.NUM_FRAMES", "MODEL.NUM_CLASSES", "OCTCONV.STAGES"} <= set(fixed)
    assert not {"SOLVER.BASE_LR", "TRAIN.BATCH_SIZE", "DATA.PATH_TO_DATA_DIR"} & set(fixed)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("right", "left"), "another order of the classes: class 0 is 'right' instead of 'left'"),
        (("left", "up"), "other classes: class 1 is 'up'"),
        (("left", "right", "up"), "3 classes instead of 2"),
    ],
)
def test_other_classes_are_refused(run, classes, said):
    with pytest.raises(CheckpointError, match=said):
        run(classes=classes).differences(run().about)


def test_classes_that_had_only_numbers_may_get_names(run):
    numbered = run(classes=("class 0", "class 1"))

    assert run().differences(numbered.about) == []
    assert numbered.differences(run().about) == []


def test_another_training_list_is_refused(run):
    with pytest.raises(CheckpointError, match="another training list \\(9 entries, then 8\\)"):
        run(fingerprint="g", samples=9).differences(run().about)


@pytest.mark.parametrize(
    ("start", "is_said"),
    [
        ({"fingerprint": "g", "samples": 9}, True),
        ({"fingerprint": "g", "classes": ("right", "jump")}, True),
        ({}, False),
        ({"fingerprint": "g", "classes": ("jump", "run")}, False),
    ],
)
def test_weights_that_know_another_list_of_such_classes_are_named(run, start, is_said, caplog):
    warn_of_earlier_training(run(**start).about, run().about)

    assert ("c.pyth: trained on another list" in caplog.text) == is_said


def test_weights_that_say_nothing_of_their_training_are_taken(run, caplog):
    warn_of_earlier_training(replace(run().about, training={}), run().about)
    warn_of_earlier_training(Checkpoint(), run().about)

    assert not caplog.records


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (
            {"fingerprint": "a", "entries": 15},
            {"fingerprint": "b", "entries": 16},
            "16 entries, then 15",
        ),
        ({"fingerprint": "a", "entries": 15}, {"fingerprint": "a", "entries": 15}, ""),
        (None, {"fingerprint": "a", "entries": 15}, ""),
        ({"fingerprint": "a", "entries": 15}, None, ""),
        ("15", {"fingerprint": "a", "entries": 15}, ""),
    ],
)
def test_other_data_of_validation_is_known(run, then, now, said):
    about, saved = run().about, run().about
    about.training["validation"], saved.training["validation"] = now, then

    assert replace(run(), about=about).other_validation(saved) == said


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"num_frames": None}, "DATA.TEST_CROP_SIZE 40 instead of 32"),
        ({}, ""),  # clips are validated in the crop of the training
    ],
)
def test_another_crop_is_another_validation_of_images_alone(run, seen, said):
    then = replace(run().about, input=replace(INPUT, **seen))
    now = replace(then, input=replace(then.input, crop_size=40))

    assert replace(run(), about=now).other_validation(then) == said
    assert replace(run(), about=now).other_validation(replace(then, input=InputSpec())) == ""


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ([1, 0], None, "makes label 0 'left' instead of 'right'"),
        (None, [1, 0], "makes label 0 'right' instead of 'left'"),
        ([1, 0], [1], ""),
        (None, None, ""),
    ],
)
def test_labels_that_are_another_class_now_are_refused(run, then, now, said):
    saved, about = run().about, run().about
    saved.training["data"]["classes"], about.training["data"]["classes"] = then, now

    if said:
        with pytest.raises(CheckpointError, match=said):
            replace(run(), about=about).differences(saved)
    else:
        assert replace(run(), about=about).differences(saved) == []


def test_a_checkpoint_that_says_nothing_of_the_names_beside_its_list_goes_on(run):
    about = run().about
    about.training["data"]["classes"] = [1, 0]

    assert replace(run(), about=about).differences(run().about) == []


def test_a_checkpoint_without_settings_is_known_by_its_network_and_classes(run):
    old = replace(run().about, recipe="", training={})
    assert run().differences(old) == []

    with pytest.raises(CheckpointError, match="another network"):
        run().differences(replace(old, network=NETWORK | {"alpha": 0.5}))


def test_a_list_is_known_by_paths_labels_and_order_wherever_it_lies():
    entries = [VideoEntry("a.mp4", (0,)), VideoEntry("b.mp4", (1,))]
    one = VideoList(entries, root="/here").fingerprint()

    assert VideoList(entries, root="/there").fingerprint() == one
    for other in (
        entries[::-1],
        entries[:1],
        [VideoEntry("a.mp4", (1,)), entries[1]],
        [VideoEntry("a.mp4b.mp4", ()), VideoEntry("", (0, 1))],
    ):
        assert VideoList(other, root="/here").fingerprint() != one


def test_the_batch_of_a_checkpoint_is_what_it_was_saved_with(run):
    saved = run("TRAIN.BATCH_SIZE=12", "SOLVER.ACCUM_STEPS=3").about

    assert run().batch_samples(saved) == 4
    assert run().batch_samples(replace(saved, recipe="")) == 0


@pytest.mark.parametrize(
    ("network", "now", "said"),
    [
        ({}, {"sampling_rate": 16}, "DATA.SAMPLING_RATE 16 instead of 2"),
        ({}, {"reverse_channels": True}, "DATA.REVERSE_INPUT_CHANNEL True instead of False"),
        ({"stride_1x1": True}, {}, "stride_1x1 True instead of False"),
        ({"alpha": 0.5}, {"num_frames": 4}, "DATA.NUM_FRAMES 4 instead of 8; alpha 0.5 instead"),
    ],
)
def test_a_test_of_weights_under_other_settings_is_refused(run, network, now, said):
    with pytest.raises(CheckpointError, match=said):
        check_tested(
            run().about, Checkpoint(network=NETWORK | network, input=replace(INPUT, **now))
        )


def test_a_test_may_choose_its_crops_and_leave_dropout_out(run):
    now = Checkpoint(network=NETWORK | {"dropout_rate": 0.0}, input=replace(INPUT, crop_size=64))

    check_tested(run().about, now)
    check_tested(Checkpoint(format=0), now)


def test_a_test_of_several_labels_with_weights_of_one_is_refused(run):
    now = Checkpoint(network=NETWORK, input=INPUT, multi_label=True)

    with pytest.raises(CheckpointError, match=r"DATA\.MULTI_LABEL True instead of False"):
        check_tested(run().about, now)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"alpha": 0.0, "width_rule": "int"}, {"alpha": 0.0, "width_rule": "round16"}),
        ({"num_block_temp_kernel": [2, 99, 2, 2]}, {"num_block_temp_kernel": [2, 2, 2, 2]}),
        ({"num_frames": None, "crop_size": None}, {"num_frames": 8, "crop_size": 224}),
    ],
)
def test_options_that_change_nothing_in_a_network_are_no_difference(then, now):
    check_tested(Checkpoint(network=NETWORK | then), Checkpoint(network=NETWORK | now))


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_network_made_by_name_is_that_of_the_config(config):
    cfg = load_config(str(config))
    with torch.device("meta"):
        built = build_model(cfg)
        location = built.config["nonlocal_location"]
        named = create_model(
            built.config["name"], alpha=cfg.OCTCONV.ALPHA, nonlocal_location=location
        )

    check_tested(Checkpoint(network=named.config), Checkpoint(network=built.config))


@pytest.mark.parametrize(
    ("file", "name", "is_right"),
    [
        ("I3D_8x8_R50", "i3d_r50_k400", True),
        ("I3D_NLN_8x8_R50", "i3d_nln_r50_k400_c2", True),
        ("C2D_8x8_R50", "c2d_r50_k400", True),
        ("SLOWFAST_4x16_R50", "slowfast_r50_4x16_k400", True),
        ("SLOWFAST_4x16_R50", "slowfast_r101_k400", False),
        ("I3D_8x8_R50", "slow_r50_k400", False),
    ],
)
def test_a_public_network_is_that_of_the_settings_that_pyslowfast_has_for_it(
    repo, file, name, is_right
):
    entry = pretrained_networks()[name]
    cfg = load_config(str(repo / f"tests/golden/pyslowfast/{file}.yaml"))
    with torch.device("meta"):
        state = create_model(entry.model, **_options(entry)).state_dict()
        network, _ = find_network(state, name, entry.model, _options(entry))
        built = build_model(cfg).config

    with nullcontext() if is_right else pytest.raises(CheckpointError, match="instead of"):
        check_tested(Checkpoint(network=network), Checkpoint(network=built))


@pytest.mark.parametrize("location", [[[], [1], [], []], None])
def test_a_test_without_the_non_local_blocks_of_the_weights_is_refused(location):
    plain, blocks = [[], [], [], []], [[], [0], [], []]
    now = Checkpoint(network=NETWORK | {"nonlocal_location": location or plain})

    with pytest.raises(CheckpointError, match="nonlocal_location"):
        check_tested(Checkpoint(network=NETWORK | {"nonlocal_location": blocks}), now)


def test_a_probe_may_have_other_videos_than_one_before_it_but_no_other_network(run, tmp_path):
    probe = run(f"OUTPUT_DIR={tmp_path}", "MODEL.NUM_CLASSES=9", "RNG_SEED=7")
    refuse_another_probe(probe.cfg)  # nothing is there
    run().about.write(str(tmp_path / "checkpoints" / "best.pyth"))
    refuse_another_probe(probe.cfg)

    with pytest.raises(CheckpointError, match=r"another probe \(OCTCONV\.ALPHA 0\.25 instead of"):
        refuse_another_probe(run(f"OUTPUT_DIR={tmp_path}", "OCTCONV.ALPHA=0.25").cfg)


def test_a_report_shows_the_recipe_that_the_weights_were_trained_with(run):
    cfg = run("SOLVER.BASE_LR=0.001", "TEST.NUM_ENSEMBLE_VIEWS=3").cfg

    text = recipe_of(run().about, cfg)

    assert "BASE_LR: 0.05" in text
    assert "NUM_ENSEMBLE_VIEWS: 3" in text
    assert "BASE_LR: 0.001" in recipe_of(Checkpoint(), cfg)
