"""`Recognizer.predict_many`: what one by one gives, in common passes, in files that a kill does not
harm."""

import csv
import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked

import octvideo
import octvideo.recognizer
from octvideo.cli.main import main
from octvideo.data.clips.views import DecodedVideo, decode_entry
from octvideo.data.lists.video_list import VideoEntry
from octvideo.data.reading import DecodeError, reading
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError, DataError, OctvideoError


@pytest.fixture(scope="module")
def recognizer(tiny_checkpoint: Path) -> octvideo.recognizer.Recognizer:
    return octvideo.load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four videos of different sizes and lengths, and one that is none in the middle."""
    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for k, (frames, width) in enumerate(((12, 48), (7, 64), (0, 0), (30, 56), (2, 48))):
        path = folder / f"{k}.mp4"
        if frames:
            write_video(path, random.integers(0, 255, (frames, 40, width, 3), np.uint8), fps=15)
        else:
            path.write_bytes(b"no video")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_many_videos_are_named_as_each_by_itself(recognizer, videos, views, batch):
    found = list(recognizer.predict_many(videos, views=views, batch=batch, workers=0, top_k=6))

    assert [video.path for video in found] == [str(path) for path in videos]
    assert [bool(video.problem) for video in found] == [False, False, True, False, False]
    for video in found:
        if not video.problem:
            alone = recognizer.predict(video.path, views=views, top_k=6)
            assert [p.name for p in video.predictions] == [p.name for p in alone]
            assert [p.probability for p in video.predictions] == pytest.approx(
                [p.probability for p in alone], abs=1e-5
            )


def test_features_come_from_the_same_passes(recognizer, videos, monkeypatch):
    passes, features = [], recognizer.model.features
    monkeypatch.setattr(recognizer.model, "features", lambda x: passes.append(x) or features(x))

    found = list(recognizer.predict_many(videos, views="1x1", workers=0, batch=1, features=True))

    monkeypatch.undo()
    assert len(passes) == 4
    for video in found:
        if video.problem:
            assert video.features is None
        else:
            np.testing.assert_allclose(
                video.features, recognizer.features(video.path), atol=1e-5, rtol=1e-4
            )


def test_a_video_that_is_named_twice_is_one(recognizer, videos):
    twice = [videos[0], str(videos[0]), VideoEntry(str(videos[0]))]

    assert len(list(recognizer.predict_many(twice, views="1x1", workers=0))) == 1


def test_a_file_that_is_complete_costs_nothing(recognizer, videos, tmp_path, monkeypatch):
    outputs = {"output": tmp_path / "rows.csv", "features": tmp_path / "features.npz"}
    told: list[tuple[int, int]] = []
    list(recognizer.predict_many(videos, views="1x1", workers=0, **outputs))
    before = (tmp_path / "rows.csv").read_bytes()
    monkeypatch.setattr(recognizer, "outputs", lambda *_, **__: pytest.fail("computed again"))

    again = recognizer.predict_many(
        videos, views="1x1", workers=0, **outputs, progress=lambda *done: told.append(done)
    )

    # What could not be read has no row in the .npz and is tried again.
    assert [Path(video.path).name for video in again] == ["2.mp4"]
    assert (tmp_path / "rows.csv").read_bytes() == before
    assert told == [(4, 5), (5, 5)]


def test_new_videos_join_a_finished_file_of_features(recognizer, videos, tmp_path):
    path = tmp_path / "features.npz"
    list(recognizer.predict_many(videos[:2], views="1x1", workers=0, features=path))
    first = np.load(path)["features"]

    list(recognizer.predict_many(videos, views="1x1", workers=0, features=path))

    saved = np.load(path)
    assert saved["paths"].tolist() == [str(videos[k]) for k in (0, 1, 3, 4)]
    np.testing.assert_array_equal(saved["features"][:2], first)
    assert not list(tmp_path.glob("*.part"))


def test_other_weights_do_not_continue_a_file(tiny_checkpoint, videos, tmp_path):
    one, other = (octvideo.load(tiny_checkpoint, device="cpu") for _ in range(2))
    other.model.head.fc.bias.data[0] += 1
    arguments = {"views": "1x1", "workers": 0, "output": tmp_path / "rows.jsonl"}
    list(one.predict_many(videos[:1], **arguments))

    with pytest.raises(DataError, match="made with weights"):
        other.predict_many(videos, **arguments)
    with pytest.raises(DataError, match="made with views 1x1, not 1x3"):
        one.predict_many(videos, **arguments | {"views": "1x3"})
    assert len(list(other.predict_many(videos, **arguments, resume=False))) == 5


@pytest.mark.parametrize("kind", ["output", "features"])
def test_a_parquet_holds_what_was_found_or_says_what_is_missing(recognizer, videos, kind, tmp_path):
    path = tmp_path / "rows.parquet"
    arguments = {"views": "1x1", "workers": 0, kind: path}
    if find_spec("pyarrow") is None:
        with pytest.raises(OctvideoError, match="pip install pyarrow"):
            recognizer.predict_many(videos, **arguments)
        return

    list(recognizer.predict_many(videos[:3], **arguments))
    list(recognizer.predict_many(videos, **arguments))

    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(str(path)).to_pylist()
    readable = videos if kind == "output" else [v for v in videos if v.name != "2.mp4"]
    assert [row["path"] for row in rows] == [str(video) for video in readable]
    if kind == "features":
        np.testing.assert_allclose(
            rows[0]["features"], recognizer.features(videos[0]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"workers": -1},
        {"timeout_seconds": 0},
        {"output": "rows.txt"},
        {"top_k": -1},
        {"top_k": 0},
        {"top_k": 2.5},
        {"top_k": True},
    ],
)
def test_wrong_arguments_are_refused_before_the_first_video(recognizer, videos, wrong):
    with pytest.raises(ConfigError):
        recognizer.predict_many(videos, **wrong)


def test_a_file_is_not_begun_anew_beside_one_that_cannot_be_written(recognizer, videos, tmp_path):
    (tmp_path / "rows.csv").write_text("rows of before")
    files = {"output": tmp_path / "rows.csv", "features": tmp_path / "features.txt"}

    with pytest.raises(ConfigError, match=r"features\.txt"):
        recognizer.predict_many(videos, **files, resume=False)

    assert (tmp_path / "rows.csv").read_text() == "rows of before"


@pytest.mark.parametrize("one", ["a.mp4", b"a.mp4", Path("a.mp4"), VideoEntry("a.mp4")])
def test_one_video_is_not_taken_for_a_list(recognizer, one):
    with pytest.raises(ConfigError, match="is one video"):
        recognizer.predict_many(one)


def flat(video):
    """What a video's row says, by field; a probability by the name of its class."""
    row = video.as_dict()
    return row | {p["name"]: p["probability"] for p in row.pop("predictions")}


@pytest.mark.slow
def test_workers_find_what_this_process_finds(recognizer, videos):
    alone = list(recognizer.predict_many(videos, views="1x1", workers=0))
    together = list(recognizer.predict_many(videos, views="1x1", workers=2))

    for found, expected in zip(map(flat, together), map(flat, alone), strict=True):
        assert found == pytest.approx(expected, abs=1e-6)  # passes that are fast hold more views


@pytest.mark.slow
def test_videos_that_hang_or_crash_the_decoder_are_rows_and_the_others_go_on(
    recognizer, videos, monkeypatch, tmp_path
):
    for name in ("crash.mp4", "hang.mp4"):
        (tmp_path / name).write_bytes(b"hostile")
    paths = [videos[0], tmp_path / "crash.mp4", videos[1], tmp_path / "hang.mp4", videos[3]]
    monkeypatch.setattr("octvideo.engine.prediction.run.decode_entry", _hostile)

    found = list(recognizer.predict_many(paths, views="1x1", workers=2, timeout_seconds=3))

    assert [video.path for video in found] == list(map(str, paths))
    assert "ended the process" in found[1].problem
    assert "within 3 seconds" in found[3].problem
    assert not any(found[k].problem for k in (0, 2, 4))


def _hostile(spec, index, entry):
    """Stand-ins for what native code may do, in the worker that reads the file."""
    name = Path(entry.path).name
    try:
        with reading(entry.path):
            if name == "crash.mp4":
                os.kill(os.getpid(), signal.SIGSEGV)
            if name == "hang.mp4":
                time.sleep(600)
    except DecodeError as error:
        return DecodedVideo(index, entry.path, torch.empty(0), torch.empty(0), error.cause)
    return decode_entry(spec, index, entry)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_and_doubles_no_row(tiny_checkpoint, tmp_path):
    folder, rows, features = (tmp_path / name for name in ("videos", "rows.csv", "features.npz"))
    write_video(tmp_path / "one.mp4", np.zeros((20, 40, 48, 3), np.uint8), fps=15)
    folder.mkdir()
    for k in range(100):
        (folder / f"{k:03}.mp4").symlink_to(tmp_path / "one.mp4")
    words = ["predict", "--checkpoint", tiny_checkpoint, folder, "--views", "2x3", "--batch", 4]
    words += ["--workers", 1, "--output", rows, "--features", features]
    kills = 0
    for number in range(40):
        process = Forked(main, list(map(str, words)), output=tmp_path / "said.txt")
        before = _size(rows)
        while process.poll() is None:
            # Twenty-odd rows further, in the middle of whatever it is doing.
            if kills < 3 and _size(rows) > before + 2500 + 37 * number:
                process.kill()
                kills += 1
            time.sleep(0.001)
        if process.returncode == 0:
            break

    assert kills == 3, (tmp_path / "said.txt").read_text()
    found = [row["path"] for row in csv.DictReader(rows.read_text().splitlines())]
    assert sorted(found) == sorted(map(str, folder.iterdir()))
    assert sorted(np.load(features)["paths"].tolist()) == sorted(found)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_rows_of_json_are_what_is_printed(recognizer, videos, tmp_path):
    path = tmp_path / "rows.jsonl"

    found = list(recognizer.predict_many(videos, views="1x1", workers=0, output=path))

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [
        {k: row[k] for k in video.as_dict()} for row, video in zip(rows, found, strict=True)
    ] == [video.as_dict() for video in found]
