"""`octvideo shard`, then training, validation and the test from shards: the run that the files
give, to the byte."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import SETTINGS

from octvideo.data.video.encode import write_video

# Classes are those of class_names.txt.
CHANGES = ["MODEL.NUM_CLASSES=0", "SOLVER.MAX_EPOCH=2"]


pytestmark = pytest.mark.usefixtures("one_thread_per_run")


@pytest.fixture
def places(tmp_path, run_command):
    """Folders of lists and of their shards: four clips, one of them broken, in two classes."""
    lists = tmp_path / "lists"
    for i in range(4):
        frames = np.random.default_rng(i).integers(0, 255, (10, 40, 48, 3), np.uint8)
        write_video(lists / f"{i}.mp4", frames)
    (lists / "3.mp4").write_bytes(b"broken")
    (lists / "class_names.txt").write_text("clap\nwave\n")
    for split in ("train", "val"):
        (lists / f"{split}.csv").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(4)))
        out = tmp_path / "shards" / split
        command = ["octvideo", "shard", lists / f"{split}.csv", "--out", out, "--workers", 1]
        done = run_command(command)
        assert done.status == 0, done.err
        assert "3 videos in 1 shards" in done.out
        assert "3.mp4: " in done.out
    return {"video": lists, "shards": tmp_path / "shards"}


def _outcome(run: Path):
    """The weights, the curve and the predictions of a run."""
    weights = torch.load(next((run / "checkpoints").glob("best*")), weights_only=True)
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line]
    curve = [record["loss"] for record in log if "loss" in record]
    return weights["model_state"], curve, (run / "predictions.csv").read_bytes()


def test_a_run_on_shards_is_the_run_on_the_files(places, tmp_path, run_command):
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    outcomes = {}
    for form, folder in places.items():
        settings = [f"DATA.PATH_TO_DATA_DIR={folder}", f"DATA.LIST_FORMAT={form}"]
        settings += [f"OUTPUT_DIR={tmp_path}/run/{form}", "DATA.MAX_BAD_RATIO=0.5"]
        done = run_command(
            ["octvideo", "train", "--cfg", tmp_path / "mine.yaml", *CHANGES, *settings]
        )
        assert done.status == 0, done.err
        outcomes[form] = _outcome(tmp_path / "run" / form)

    (weights, curve, predictions), (expected, expected_curve, expected_predictions) = (
        outcomes["shards"],
        outcomes["video"],
    )
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert curve == expected_curve
    assert predictions == expected_predictions


def test_a_run_on_files_resumes_on_shards(places, tmp_path, run_command):
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    for form, epochs in (("video", 1), ("shards", 2)):
        settings = [f"DATA.PATH_TO_DATA_DIR={places[form]}", f"DATA.LIST_FORMAT={form}"]
        settings += [f"OUTPUT_DIR={tmp_path / 'run'}", "DATA.MAX_BAD_RATIO=0.5"]
        settings += [f"SOLVER.MAX_EPOCH={epochs}", "TEST.ENABLE=False"]
        done = run_command(
            ["octvideo", "train", "--cfg", tmp_path / "mine.yaml", *CHANGES, *settings]
        )
        assert done.status == 0, done.err

    assert "resum" in (done.out + done.err).lower()


def test_a_folder_without_shards_is_one_line(tmp_path, run_command):
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    settings = [f"DATA.PATH_TO_DATA_DIR={tmp_path}", "DATA.LIST_FORMAT=shards"]

    done = run_command(
        [
            "octvideo",
            "train",
            "--cfg",
            tmp_path / "mine.yaml",
            *settings,
            f"OUTPUT_DIR={tmp_path}/r",
        ]
    )

    assert done.status == 2
    assert "make them with `octvideo shard`" in done.err
    assert "Traceback" not in done.err
