"""Files of features by several writers: one at a time, and nothing of the one before is lost."""

import fcntl
from pathlib import Path

import numpy as np
import pytest

from octvideo.engine.prediction.named import NamedVideo
from octvideo.engine.prediction.outputs import FEATURES, Output, feature_row, open_output
from octvideo.errors import DataError, OctvideoError

VIDEOS = {"a.mp4": "1", "b.mp4": "2"}


def _open(path: Path) -> Output:
    return open_output(path, FEATURES, {"views": "1x1"}, VIDEOS)


def _add(file: Output, path: str) -> None:
    video = NamedVideo(path, (), "", np.ones(3, np.float32))
    file.add(feature_row(video, VIDEOS[path]))


@pytest.fixture
def finished(tmp_path) -> Path:
    """A file with the features of one video."""
    path = tmp_path / "features.npz"
    with _open(path) as file:
        _add(file, "a.mp4")
        file.finish()
    return path


def test_a_finished_file_is_taken_apart_by_one_run_alone(finished):
    with _open(finished) as first:
        assert not first.wants("1")
        with pytest.raises(OctvideoError, match="another process is writing it"):
            _open(finished)


def test_a_run_that_begins_as_another_one_ends_goes_on_from_its_file(tmp_path, monkeypatch):
    path, lock = tmp_path / "features.npz", fcntl.flock
    first = _open(path)
    _add(first, "a.mp4")

    def late(descriptor, operation):
        monkeypatch.undo()
        with first:
            first.finish()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with _open(path) as second:
        assert not second.wants("1")
        _add(second, "b.mp4")
        second.finish()

    assert list(np.load(path)["paths"]) == list(VIDEOS)
    np.testing.assert_array_equal(np.load(path)["features"], np.ones((2, 3), np.float32))


def test_a_part_that_was_begun_and_not_filled_takes_up_the_finished_file(finished):
    finished.with_name("features.npz.part").touch()

    with _open(finished) as file:
        assert not file.wants("1")


def test_a_file_of_somebody_else_is_refused_and_has_no_part_beside_it(tmp_path):
    np.savez(tmp_path / "features.npz", mine=np.ones(3))

    with pytest.raises(DataError, match="not written by this command"):
        _open(tmp_path / "features.npz")

    assert [file.name for file in tmp_path.iterdir()] == ["features.npz"]
