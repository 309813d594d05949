"""`octvideo.batch.Predictor`: rows in, rows out, in any process; and the recipes of
docs/recipes."""

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from forked import Forked, python

import octvideo
from octvideo import batch
from octvideo.batch import Predictor
from octvideo.data.video.encode import write_video
from octvideo.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "a clip.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (12, 40, 56, 3), np.uint8)
    return write_video(path, frames) and path


@pytest.fixture
def predictor(tiny_checkpoint):
    return Predictor(tiny_checkpoint, views="1x1", top_k=2, device="cpu")


def test_a_row_gets_what_the_recognizer_says(predictor, tiny_checkpoint, video):
    row = predictor({"path": str(video), "id": 7})

    expected = octvideo.load(tiny_checkpoint, device="cpu").predict(video, views="1x1", top_k=2)
    assert row["names"] == [prediction.name for prediction in expected]
    assert row["scores"] == [prediction.probability for prediction in expected]
    assert (row["id"], row["path"], row["error"]) == (7, str(video), "")
    for content in (bytes, bytearray, memoryview):
        given = {"path": "name", "bytes": content(video.read_bytes())}
        assert predictor(given)["scores"] == row["scores"]


def test_a_video_that_cannot_be_read_is_a_row(predictor, tmp_path):
    for row in ({"path": str(tmp_path / "absent.mp4")}, {"bytes": b"no video"}):
        found = predictor(row)
        assert found["names"] == found["scores"] == []
        assert found["error"]


def test_columns_are_a_batch_of_rows(predictor, video):
    columns = {"path": np.array([str(video), "absent.mp4"], object), "id": np.array([3, 4])}

    found = predictor(columns)

    assert found["names"] == [predictor({"path": str(video)})["names"], []]
    assert [bool(error) for error in found["error"]] == [False, True]
    assert found["id"].tolist() == [3, 4]


def test_a_predictor_travels_as_its_arguments_and_loads_once(predictor, video, monkeypatch):
    loads, load = [], batch.load
    monkeypatch.setattr(batch, "load", lambda *args, **kw: loads.append(args) or load(*args, **kw))
    batch._recognizer.cache_clear()

    assert len(pickle.dumps(predictor)) < 1000
    copies = [pickle.loads(pickle.dumps(predictor)) for _ in range(3)]

    expected = predictor({"path": str(video)})
    assert all(copy({"path": str(video)}) == expected for copy in copies)
    assert len(loads) == 1


def test_a_predictor_made_after_its_file_was_replaced_has_the_new_network(
    tiny_checkpoint, tmp_path, video
):
    content = torch.load(tiny_checkpoint, weights_only=True)
    path, row = tmp_path / "best.pyth", {"path": str(video)}
    torch.save(content, path)
    before = Predictor(path, device="cpu")
    first = before(row)["scores"]
    content["model_state"]["head.fc.bias"] += torch.arange(6.0)
    torch.save(content, path)
    os.utime(path, ns=(1, 1))

    after = Predictor(path, device="cpu")(row)["scores"]

    expected = octvideo.load(path, device="cpu").predict(video, views="1x1")
    assert after == [prediction.probability for prediction in expected]
    assert before(row)["scores"] == first != after


def test_what_is_no_row_or_no_network_is_one_line(predictor, tmp_path):
    with pytest.raises(ConfigError, match="a row with id; it needs `path` or `bytes`"):
        predictor({"id": 3})
    with pytest.raises(CheckpointError, match=r"absent\.pyth"):
        Predictor(tmp_path / "absent.pyth")({"path": "a.mp4"})


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["pool_predict", "ray_predict"])
def test_a_recipe_names_all_videos_and_continues(recipe, repo, tiny_checkpoint, video, tmp_path):
    if recipe == "ray_predict" and find_spec("ray") is None:
        pytest.skip("no Ray")
    (tmp_path / "list.csv").write_text(f"{video} 0\nabsent.mp4 1\n")
    output = tmp_path / "predictions"
    words = [repo / "docs" / "recipes" / f"{recipe}.py", tiny_checkpoint]
    words += [tmp_path / "list.csv", output]

    def run():
        if recipe == "ray_predict":
            command = [sys.executable, *words]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
            return done.stdout
        done = Forked(python, *words, "--processes", "1", output=tmp_path / "said")
        text = done.communicate(timeout=300)
        assert done.returncode == 0, text
        return text

    said = [run().strip().splitlines()[-1] for _ in range(2)]

    if recipe == "ray_predict":
        assert said == ["0 were there, 2 predicted", "1 were there, 1 predicted"]
    else:
        assert [json.loads(line)["predicted"] for line in said] == [2, 1]
        rows = [json.loads(line) for line in output.read_text().splitlines() if line]
        assert [row["path"] for row in rows if not row["error"]] == [str(video)]
