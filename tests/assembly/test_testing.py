"""The final test of weights that bring a network and an input, and no settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octvideo.assembly import final_test, settings_of, testing
from octvideo.cli import main
from octvideo.data.video.encode import write_video
from octvideo.engine.distributed import Processes
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
