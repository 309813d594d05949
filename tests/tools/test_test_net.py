"""tools/test_net.py as a user calls it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from octvideo.checkpoint import Checkpoint
from octvideo.data.video.encode import write_video
from octvideo.engine.evaluation.journal import fingerprint

SETTINGS = """
MODEL: {ARCH: c2d, NUM_CLASSES: 2}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 8}
DATA: {PATH_TO_DATA_DIR: data, NUM_FRAMES: 2, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}
TRAIN: {BATCH_SIZE: 2, SAFETENSORS: true}
SOLVER: {BASE_LR: 0.01, MAX_EPOCH: 1}
TEST: {ENABLE: false, NUM_ENSEMBLE_VIEWS: 2, NUM_SPATIAL_CROPS: 3}
DATA_LOADER: {NUM_WORKERS: 0}
TENSORBOARD: {ENABLE: false}
LOG_MODEL_INFO: false
OUTPUT_DIR: run
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder in which the first test trains."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(kept, run_tool, tmp_path, monkeypatch):
    """A run of one epoch on three clips, whose classes have names; its config and checkpoint."""
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)
    best = Path("run/checkpoints/best.pyth")
    if not (kept / best).exists():
        monkeypatch.chdir(kept)
        for i in range(3):
            frames = np.random.default_rng(i).integers(0, 255, (6, 40, 48, 3), np.uint8)
            write_video(Path("data", f"{i}.mp4"), frames)
        for split in ("train", "val", "test"):
            Path("data", f"{split}.csv").write_text("0.mp4 0\n1.mp4 1\n2.mp4 1\n")
        Path("data/class_names.txt").write_text("jump\nrun\n")
        Path("mine.yaml").write_text(SETTINGS)
        assert run_tool("train_net", "--cfg", "mine.yaml").status == 0
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.yaml", tmp_path / best


def results(tmp_path, folder="run"):
    return json.loads((tmp_path / folder / "results.json").read_text())


def test_with_a_config_it_takes_the_newest_checkpoint_of_the_run(run_tool, trained, tmp_path):
    cfg, _ = trained

    result = run_tool("test_net", "--cfg", cfg)

    assert result.status == 0, result.err
    assert json.loads(result.out.splitlines()[-1])["split"] == "test_final"
    assert results(tmp_path)["protocol"]["checkpoint"].endswith("checkpoint_epoch_00001.pyth")
    assert results(tmp_path)["protocol"]["views"] == "2x3"


def test_a_training_list_that_was_divided_anew_is_warned_of(run_tool, trained, tmp_path):
    cfg, checkpoint = trained
    as_trained = run_tool("test_net", "--cfg", cfg)
    (tmp_path / "data/train.csv").write_text("0.mp4 0\n1.mp4 1\n")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "data/test.csv", tmp_path / "elsewhere/test.csv")

    anew = run_tool("test_net", "--checkpoint", checkpoint, "--list", "data/test.csv")
    of_other_data = run_tool(
        "test_net", "--checkpoint", checkpoint, "--list", "elsewhere/test.csv", "DATA.PATH_PREFIX=data"
    )  # fmt: skip

    assert anew.status == of_other_data.status == 0, anew.err + of_other_data.err
    assert (
        "trained on another list (3 entries) than data/train.csv (2) is now" in anew.out + anew.err
    )
    for quiet in (as_trained, of_other_data):
        assert "another list" not in quiet.out + quiet.err


@pytest.mark.parametrize("train", [None, "0.mp4\n", "0.mp4 7\n"])
def test_a_training_list_that_cannot_be_compared_is_no_hindrance(
    run_tool, trained, tmp_path, train
):
    cfg, _ = trained
    (tmp_path / "data/train.csv").unlink()
    if train:
        (tmp_path / "data/train.csv").write_text(train)

    result = run_tool("test_net", "--cfg", cfg)

    assert result.status == 0, result.err
    assert "another list" not in result.out + result.err


def test_the_file_is_read_once(run_tool, trained, monkeypatch):
    cfg, checkpoint = trained
    read, paths = Checkpoint.read, []
    monkeypatch.setattr(Checkpoint, "read", lambda path: paths.append(path) or read(path))

    result = run_tool("test_net", "--cfg", cfg, "--checkpoint", checkpoint)

    assert result.status == 0, result.err
    assert paths == [str(checkpoint)]


def test_safetensors_hold_all_that_a_test_needs(run_tool, trained, tmp_path):
    _, best = trained

    for kind in (".pyth", ".safetensors"):
        result = run_tool(
            "test_net", "--checkpoint", best.with_suffix(kind), f"OUTPUT_DIR={tmp_path / kind[1:]}"
        )
        assert result.status == 0, result.err

    scores = [np.load(tmp_path / kind / "scores.npz")["scores"] for kind in ("pyth", "safetensors")]
    np.testing.assert_array_equal(*scores)


def test_an_input_that_the_weights_were_not_trained_with_is_refused(run_tool, trained):
    cfg, _ = trained

    result = run_tool("test_net", "--cfg", cfg, "DATA.MEAN=[0.5,0.5,0.5]")

    assert result.status == 2
    assert (
        result.err
        == "error: the weights were trained with another input; set DATA.MEAN [0.45, 0.45, 0.45]\n"
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own compiler
@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-4), ("auto", 0.03)])
def test_an_optimized_network_scores_alike(run_tool, trained, tmp_path, precision, near):
    cfg, _ = trained
    run_tool("test_net", "--cfg", cfg)
    expected = np.load(tmp_path / "run" / "scores.npz", allow_pickle=False)["scores"]

    settings = ["TEST.OPTIMIZE=true", f"TEST.PRECISION={precision}"]
    result = run_tool("test_net", "--cfg", cfg, *settings)

    assert result.status == 0, result.err
    assert np.load(tmp_path / "run" / "scores.npz", allow_pickle=False)["scores"] == pytest.approx(
        expected, abs=near
    )


def test_a_checkpoint_and_a_list_need_no_config(run_tool, trained, tmp_path):
    cfg, checkpoint = trained
    run_tool("test_net", "--cfg", cfg, "TEST.CHECKPOINT_FILE_PATH", checkpoint)
    expected = results(tmp_path)

    result = run_tool(
        "test_net",
        "--checkpoint",
        checkpoint,
        "--list",
        tmp_path / "data" / "val.csv",
        f"OUTPUT_DIR={tmp_path / 'other'}",
    )

    assert result.status == 0, result.err
    assert results(tmp_path, "other")["classes"] == expected["classes"]
    assert results(tmp_path, "other")["class_names"] == ["jump", "run"]


@pytest.mark.parametrize(
    "setting",
    ["DATA.TRAIN_JITTER_SCALES=[64,64] DATA.TRAIN_CROP_SIZE=64", "DATA.TARGET_FPS=15"],
)
def test_settings_that_contradict_what_the_weights_assume_are_refused(run_tool, trained, setting):
    cfg, checkpoint = trained

    result = run_tool("test_net", "--cfg", cfg, "--checkpoint", checkpoint, *setting.split())

    assert result.status == 2
    assert "trained otherwise than these settings say" in result.err


def test_an_interrupted_test_is_not_continued_under_other_settings(run_tool, trained, monkeypatch):
    cfg, checkpoint = trained
    used = []
    monkeypatch.setattr(
        "octvideo.assembly.testing.fingerprint",
        lambda **parts: used.append(parts) or fingerprint(**parts),
    )

    for settings in ([], [], ["TEST.VIEW_CHUNK=1"]):
        result = run_tool("test_net", "--cfg", cfg, "--checkpoint", checkpoint, *settings)
        assert result.status == 0, result.err

    assert used[0] == used[1] != used[2]


def test_an_int8_test_is_not_continued_with_another_calibration(run_tool, trained, monkeypatch):
    cfg, _ = trained
    used = []
    monkeypatch.setattr("octvideo.assembly.start.optimize", lambda network, *_, **__: network)
    monkeypatch.setattr(
        "octvideo.assembly.testing.fingerprint",
        lambda **parts: used.append(parts) or fingerprint(**parts),
    )

    for train in ("0.mp4 0\n1.mp4 1\n", "0.mp4 0\n1.mp4 1\n", "1.mp4 1\n0.mp4 0\n"):
        Path("data/train.csv").write_text(train)
        words = ["TEST.OPTIMIZE=true", "TEST.PRECISION=int8"]
        result = run_tool("test_net", "--cfg", cfg, *words)
        assert result.status == 0, result.err

    assert used[0] == used[1] != used[2]


def test_a_list_with_another_class_order_is_scored_by_name(run_tool, trained, tmp_path):
    cfg, _ = trained
    run_tool("test_net", "--cfg", cfg)
    expected = results(tmp_path)["top1_acc"]
    (tmp_path / "data" / "class_names.txt").write_text("run\njump\n")
    (tmp_path / "data" / "test.csv").write_text("0.mp4 1\n1.mp4 0\n2.mp4 0\n")

    run_tool("test_net", "--cfg", cfg)

    assert results(tmp_path)["top1_acc"] == expected


def test_a_list_of_several_labels_gives_mean_average_precision(run_tool, trained, tmp_path):
    cfg, checkpoint = trained
    saved = torch.load(checkpoint, weights_only=True)
    saved["meta"]["multi_label"] = True
    torch.save(saved, checkpoint)
    (tmp_path / "data" / "test.csv").write_text("0.mp4 0,1\n1.mp4 1\n2.mp4 0\n")

    result = run_tool(
        "test_net",
        "--cfg",
        cfg,
        "--checkpoint",
        checkpoint,
        "DATA.MULTI_LABEL=true",
        "MODEL.LOSS_FUNC=bce_logit",
    )

    assert result.status == 0, result.err
    assert json.loads(result.out.splitlines()[-1]) == {
        "split": "test_final",
        "map": results(tmp_path)["map"],
    }
    assert 0 < results(tmp_path)["map"] <= 1


def test_a_list_of_other_classes_is_refused(run_tool, trained, tmp_path):
    cfg, _ = trained
    (tmp_path / "data" / "class_names.txt").write_text("swim\nfly\n")

    result = run_tool("test_net", "--cfg", cfg)

    assert result.status == 2
    assert "2 of 2 classes are not among the 2 of the network" in result.err


@pytest.mark.parametrize("content", [None, b"no checkpoint"], ids=["missing", "damaged"])
def test_a_checkpoint_that_cannot_be_used_is_one_line(run_tool, trained, tmp_path, content):
    cfg, _ = trained
    path = tmp_path / "weights.pyth"
    if content:
        path.write_bytes(content)

    result = run_tool("test_net", "--cfg", cfg, "--checkpoint", path)

    assert result.status == 2
    assert result.err.strip().splitlines()[-1].startswith(f"error: {path}: ")


def test_without_any_checkpoint_it_says_what_to_do(run_tool, trained, tmp_path):
    cfg, _ = trained

    result = run_tool("test_net", "--cfg", cfg, f"OUTPUT_DIR={tmp_path / 'empty'}")

    assert result.status == 2
    assert "no checkpoint to test; train first or set TEST.CHECKPOINT_FILE_PATH" in result.err
