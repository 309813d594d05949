"""The final test of weights that bring a network and an input, and no settings."""

import csv
import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tiny_input import PREPROCESSING

import octvideo
from octvideo.assembly import final_test, settings_of, testing
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.cli import main
from octvideo.config import load_config
from octvideo.data.video.encode import write_video
from octvideo.download import hash_of
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.journal import fingerprint
from octvideo.errors import CheckpointError
from octvideo.weights import pretrained
from octvideo.weights.pretrained import read_weights

QUICK = ["TEST.NUM_ENSEMBLE_VIEWS=1", "TEST.NUM_SPATIAL_CROPS=1", "DATA_LOADER.NUM_WORKERS=0"]


@pytest.fixture(autouse=True)
def _two_videos(tmp_path, monkeypatch):
    """Videos a.mp4 and b.mp4 and their list, test.csv, in the folder to work in."""
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        frames = np.random.default_rng(seed).integers(0, 255, (8, 40, 48, 3), np.uint8)
        write_video(Path(f"{name}.mp4"), frames)
    Path("test.csv").write_text("a.mp4 0\nb.mp4 3\n")


@pytest.mark.parametrize(
    ("file", "folder"), [("oct.pyth", "oct"), ("card/model.safetensors", "card")]
)
def test_a_file_that_names_no_folder_is_tested_in_one_of_its_name(tiny_checkpoint, file, folder):
    Path(file).parent.mkdir(exist_ok=True)
    read_weights(str(tiny_checkpoint)).write(file)

    main(["test", "--checkpoint", file, "--list", "test.csv", *QUICK])

    found = json.loads(Path("runs/test", folder, "results.json").read_text())
    assert found["num_videos"] == 2


def test_a_test_in_other_frame_orders_makes_scores_as_the_test_does(tiny_checkpoint, monkeypatch):
    acts = []
    make = testing.scorer
    monkeypatch.setattr(
        testing,
        "scorer",
        lambda cfg, model, act=None, *more: acts.append(act) or make(cfg, model, act, *more),
    )
    checkpoint = replace(read_weights(str(tiny_checkpoint)), head_act="softmax_of_mean")
    cfg = settings_of(
        checkpoint, [*QUICK, "MODEL.HEAD_ACT=", "TEST.DIAGNOSE=true", "OUTPUT_DIR=out"]
    )

    final_test(cfg, Processes(), checkpoint, "test.csv")

    assert acts == ["softmax_of_mean"] * 2


def with_noise(checkpoint):
    state = checkpoint.state
    return replace(
        checkpoint, state=state | {"head.fc.weight": torch.rand_like(state["head.fc.weight"])}
    )


def test_a_file_that_is_replaced_while_it_is_read_is_hashed_as_it_was_read(
    tiny_checkpoint, monkeypatch
):
    one, other = read_weights(str(tiny_checkpoint)), with_noise(read_weights(str(tiny_checkpoint)))
    one.write("best.pyth")
    read, before = pretrained.read_weights, []

    def replaced_behind(path):
        found = read(path)
        if not before:
            before.append(hash_of(path))
            other.write(path)
        return found

    monkeypatch.setattr(pretrained, "read_weights", replaced_behind)
    found = pretrained.read_and_hash("best.pyth")

    assert found.sha256 == hash_of("best.pyth") != before[0]
    assert all(torch.equal(t, other.state[name]) for name, t in found.state.items())


def test_scores_of_other_weights_under_the_same_path_are_not_resumed(tiny_checkpoint, monkeypatch):
    one = read_weights(str(tiny_checkpoint))
    other = with_noise(one)
    cfg = settings_of(one, [*QUICK, "OUTPUT_DIR=out"])
    fresh = settings_of(one, [*QUICK, "OUTPUT_DIR=fresh"])
    with monkeypatch.context() as stopped:
        stopped.setattr(testing, "write_results", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            final_test(cfg, Processes(), one, "test.csv")

    for settings in (cfg, fresh):
        final_test(settings, Processes(), other, "test.csv")

    scores = [np.load(f"{folder}/scores.npz")["scores"] for folder in ("out", "fresh")]
    assert np.array_equal(*scores)


OF_THE_FILE = """
MODEL: {ARCH: i3d, NUM_CLASSES: 6}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 16}
OCTCONV: {ALPHA: 0.25}
DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}
OUTPUT_DIR: out
"""


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("RESNET.DEPTH=50", "name i3d_r50 instead of i3d_r26"),
        ("OCTCONV.ALPHA=0.5", "alpha 0.5 instead of 0.25"),
        ("RESNET.WIDTH_PER_GROUP=64", "width_per_group 64 instead of 16"),
        ("MODEL.NUM_CLASSES=4", "num_classes 4 instead of 6"),
        ('MODEL.OPTIONS=["stem_strides_t=[2,2]"]', "stem_strides_t .2, 2. instead of .1, 1."),
    ],
)
def test_settings_of_another_network_than_the_file_s_are_refused(
    tiny_checkpoint, with_config, setting, says
):
    checkpoint = read_weights(str(tiny_checkpoint))
    Path("mine.yaml").write_text(OF_THE_FILE)
    words = [*QUICK, "OUTPUT_DIR=out", setting]
    cfg = load_config("mine.yaml", words) if with_config else settings_of(checkpoint, words)

    with pytest.raises(CheckpointError, match=says):
        final_test(cfg, Processes(), checkpoint, "test.csv")

    assert not Path("out/results.json").exists()


def test_classes_that_the_file_knows_are_not_counted_in_the_data(tiny_checkpoint):
    Path("mine.yaml").write_text(OF_THE_FILE)
    Path("class_names.txt").write_text("c\na\n")
    Path("test.csv").write_text("a.mp4 0\nb.mp4 1\n")
    words = [*QUICK, "MODEL.NUM_CLASSES=0", "DATA.PATH_TO_DATA_DIR=."]

    main(["test", "--cfg", "mine.yaml", "--checkpoint", str(tiny_checkpoint), *words])

    assert np.load("out/scores.npz")["scores"].shape == (2, 6)
    with Path("out/predictions.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["2", "0"]


def test_settings_that_are_made_of_a_file_are_those_of_its_network(tiny_checkpoint):
    cfg = settings_of(read_weights(str(tiny_checkpoint)))

    found = cfg.MODEL.ARCH, cfg.RESNET.DEPTH, cfg.RESNET.WIDTH_PER_GROUP, cfg.OCTCONV.ALPHA
    assert found == ("i3d", 26, 16, 0.25)


def test_a_network_that_was_made_octave_is_tested_as_its_file_describes_it():
    model = octvideo.create_model("i3d_r26", width_per_group=8, num_classes=6, crop_size=32)
    octave = octvideo.octavize(model, 0.5, torch.randn(1, 3, 4, 32, 32))
    spec = InputSpec.of(PREPROCESSING)
    Checkpoint(
        state=octave.state_dict(), network=octave.config, input=spec, class_names=tuple("abcdef")
    ).write("oct.pyth")

    main(["test", "--checkpoint", "oct.pyth", "--list", "test.csv", *QUICK])

    results = json.loads(Path("runs/test/oct/results.json").read_text())
    assert results["protocol"]["network"]["alpha"] == 0.5


@pytest.mark.parametrize(
    "damage", [{"name": "i3d_r7"}, {"name": 3}, {"num_block_temp_kernel": 5}, {"name": None}]
)
def test_a_description_that_builds_nothing_is_one_line(tiny_checkpoint, damage):
    checkpoint = read_weights(str(tiny_checkpoint))
    checkpoint = replace(checkpoint, network=checkpoint.network | damage)

    with pytest.raises(CheckpointError, match="cannot be built as described"):
        settings_of(checkpoint)


@pytest.mark.parametrize("of_the_run", [True, False])
def test_a_report_has_the_curves_of_the_run_that_its_weights_are_of(tiny_checkpoint, of_the_run):
    path = "run/checkpoints/best.pyth" if of_the_run else "other/best.pyth"
    Path(path).parent.mkdir(parents=True)
    read_weights(str(tiny_checkpoint)).write(path)
    Path("run").mkdir(exist_ok=True)
    lines = [{"_type": "train_iter", "step": i, "epoch": 1, "loss": 1.0} for i in range(4)]
    Path("run/metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    main(["test", "--checkpoint", path, "--list", "test.csv", *QUICK, "OUTPUT_DIR=run"])

    assert ("As the run logged it." in Path("run/report.html").read_text()) == of_the_run


@pytest.mark.parametrize(
    ("beside", "given", "labels"),
    [
        ("", "f\ne\nd\nc\nb\na\n", ["5", "2"]),
        ("a\nb\nc\nd\ne\nf\n", "f\ne\nd\nc\nb\na\n", ["0", "3"]),
        ("", "F\ne\nd\nc\nb\nother\n", ["0", "3"]),
        ("", "", ["0", "3"]),  # of a file that is gone
    ],
)
def test_the_labels_of_a_list_without_names_are_those_that_the_settings_name(
    tiny_checkpoint, beside, given, labels, capsys
):
    Path("mine.yaml").write_text(OF_THE_FILE)
    for file, names in (("class_names.txt", beside), ("given.txt", given)):
        if names:
            Path(file).write_text(names)
    words = [*QUICK, "DATA.PATH_TO_DATA_DIR=.", "TENSORBOARD.CLASS_NAMES_PATH=given.txt"]

    main(["test", "--cfg", "mine.yaml", "--checkpoint", str(tiny_checkpoint), *words])

    with Path("out/predictions.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == labels
    not_followed = "test.csv: its labels are taken in the order of the network's classes"
    assert (not_followed in capsys.readouterr().out) == (not beside and labels == ["0", "3"])


@pytest.mark.parametrize("beside", ["", "other\n"])
def test_names_of_classes_mean_nothing_to_a_list_without_labels(tiny_checkpoint, beside, capsys):
    Path("unlabeled").mkdir()
    Path("unlabeled/test.csv").write_text(f"path\n{Path('a.mp4').absolute()}\n")
    if beside:
        Path("unlabeled/class_names.txt").write_text(beside)
    checkpoint = read_weights(str(tiny_checkpoint))
    words = [*QUICK, "OUTPUT_DIR=out", "TENSORBOARD.CLASS_NAMES_PATH=gone.txt"]

    results = final_test(
        settings_of(checkpoint, words), Processes(), checkpoint, "unlabeled/test.csv"
    )

    assert results["num_videos"] == 1
    assert "its labels are taken" not in capsys.readouterr().out


@pytest.mark.parametrize(("found", "said"), [("bf16", "bf16"), ("fp32", None)])
def test_results_say_which_precision_a_test_chose(tiny_checkpoint, monkeypatch, found, said):
    monkeypatch.setattr("octvideo.assembly.start.choose", lambda *_, **__: ("openvino", found))
    monkeypatch.setattr("octvideo.assembly.start.optimize", lambda network, *_, **__: network)
    used = []
    monkeypatch.setattr(
        testing, "fingerprint", lambda **parts: used.append(parts) or fingerprint(**parts)
    )
    checkpoint = read_weights(str(tiny_checkpoint))
    auto = ["TEST.OPTIMIZE=true", "TEST.PRECISION=auto", "OUTPUT_DIR=out"]

    results = final_test(
        settings_of(checkpoint, [*QUICK, *auto]), Processes(), checkpoint, "test.csv"
    )

    assert results["protocol"].get("precision") == used[0].get("precision") == said


@pytest.mark.parametrize(
    ("config", "settings", "says"),
    [
        ("data_preprocessor=dict(mean=[51, 51, 51])", [], r"set DATA\.MEAN \[0\.2, 0\.2, 0\.2\]"),
        ("cls_head=dict(multi_class=True)", ["MODEL.HEAD_ACT=softmax"], "scores by sigmoid, these"),
    ],
)
def test_a_test_of_mmaction2s_weights_is_that_of_their_config(config, settings, says):
    model = octvideo.create_model("slow_r26", num_classes=6, width_per_group=8)
    text = f"model = dict({config})"
    torch.save({"state_dict": of_mmaction2(model), "meta": {"cfg": text}}, "w.pth")
    published = ["DATA.MEAN=[0.485,0.456,0.406]", "DATA.STD=[0.229,0.224,0.225]"]
    Path("mine.yaml").write_text(OF_MMACTION2)
    cfg = load_config("mine.yaml", [*QUICK, *published, *settings])

    with pytest.raises(CheckpointError, match=says):
        final_test(cfg, Processes(), "w.pth", "test.csv")


@pytest.mark.parametrize(("multi_class", "act"), [(False, "softmax"), (True, "sigmoid")])
def test_texts_to_remove_from_names_are_removed_in_a_test_too(multi_class, act):
    model = octvideo.create_model("slow_r26", num_classes=6, width_per_group=8)
    state = {f"encoder.{name}": tensor for name, tensor in of_mmaction2(model).items()}
    text = f"model = dict(cls_head=dict(multi_class={multi_class}))"
    torch.save({"state_dict": state, "meta": {"cfg": text}}, "w.pth")
    published = ["DATA.MEAN=[0.485,0.456,0.406]", "DATA.STD=[0.229,0.224,0.225]"]
    Path("mine.yaml").write_text(OF_MMACTION2)
    clear = "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN=[encoder.]"
    cfg = load_config("mine.yaml", [*QUICK, *published, clear])

    results = final_test(cfg, Processes(), "w.pth", "test.csv")

    assert results["protocol"]["head_act"] == act


def test_texts_to_remove_from_start_weights_stay_in_the_names_of_a_run(tiny_checkpoint):
    checkpoint = read_weights(str(tiny_checkpoint))
    cfg = settings_of(
        checkpoint, [*QUICK, "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN=[stem.]", "OUTPUT_DIR=out"]
    )

    results = final_test(cfg, Processes(), replace(checkpoint, recipe=cfg.dump()), "test.csv")

    assert results["num_videos"] == 2


@pytest.mark.parametrize("rule", ["pyslowfast", "stride"])
def test_frames_by_another_rule_than_that_of_mmaction2s_weights_are_told(rule, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    model = octvideo.create_model("slow_r26", num_classes=6, width_per_group=8)
    torch.save({"state_dict": of_mmaction2(model), "meta": {"cfg": "model = dict()"}}, "w.pth")
    published = ["DATA.MEAN=[0.485,0.456,0.406]", "DATA.STD=[0.229,0.224,0.225]"]
    Path("mine.yaml").write_text(OF_MMACTION2)
    cfg = load_config("mine.yaml", [*QUICK, *published, f"DATA.SAMPLING_RULE={rule}"])

    testing._trained_model(cfg, read_weights("w.pth"))

    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    said = "w.pth: was trained on other clips than these settings take (DATA.SAMPLING_RULE"
    assert any(line.startswith(f"{said} pyslowfast instead of stride)") for line in told) == (
        rule != "stride"
    )


OF_MMACTION2 = """
MODEL: {ARCH: slow, NUM_CLASSES: 6}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 8}
DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}
OUTPUT_DIR: out
"""
PARTS = {"reduce": "conv1", "spatial": "conv2", "expand": "conv3", "shortcut": "downsample"}


def of_mmaction2(model):
    """The weights under mmaction2's names."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("h2h.", "").replace("high.", "").replace("head.fc", "cls_head.fc_cls")
        name = re.sub(r"^stem\.", "backbone.conv1.", name)
        if match := re.fullmatch(r"res(\d)\.block(\d+)\.(\w+)\.(.+)", name):
            stage, block, part, rest = match.groups()
            name = f"backbone.layer{int(stage) - 1}.{block}.{PARTS[part]}.{rest}"
        state[name] = tensor
    return state
