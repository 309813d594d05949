"""tools/check_videos.py as a user calls it: with processes that decode, and the bar on stderr."""

import numpy as np
import pytest

from octvideo.data.lists.video_list import read_list
from octvideo.data.video.encode import write_video


@pytest.mark.slow
def test_it_tells_good_from_bad_and_writes_the_index(run_tool, tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((4, 32, 32, 3), np.uint8))
    (tmp_path / "b.mp4").write_text("no video")
    (tmp_path / "val.csv").write_text("a.mp4 0\nb.mp4 1\n")

    result = run_tool("check_videos", tmp_path / "val.csv")

    assert result.status == 0, result.err
    assert "1 good" in result.out
    assert "1 bad" in result.out
    assert (tmp_path / "val_checked" / "good.csv").read_text() == f"{tmp_path / 'a.mp4'} 0\n"
    assert "b.mp4" in (tmp_path / "val_checked" / "bad.csv").read_text()
    assert (tmp_path / "val.index.csv").is_file()


def test_a_list_is_not_replaced_by_its_good_files(run_tool, tmp_path):
    (tmp_path / "good.csv").write_text("a.mp4 0\n")

    done = run_tool("check_videos", tmp_path / "good.csv", "--out", tmp_path)

    assert done.status == 2
    assert "good.csv itself" in done.err
    assert (tmp_path / "good.csv").read_text() == "a.mp4 0\n"


def test_names_of_classes_may_lie_where_they_are_copied_to(run_tool, tmp_path):
    (tmp_path / "val.csv").write_text("a.mp4 0\n")
    (tmp_path / "class_names.txt").write_text("run\n")

    done = run_tool("check_videos", tmp_path / "val.csv", "--out", tmp_path, "--workers", 0)

    assert done.status == 0, done.err
    assert (tmp_path / "class_names.txt").read_text() == "run\n"


def test_good_files_are_listed_for_the_same_separator(run_tool, tmp_path):
    write_video(tmp_path / "a b.mp4", np.zeros((4, 32, 32, 3), np.uint8))
    (tmp_path / "val.csv").write_text("a b.mp4;0\n")

    done = run_tool("check_videos", tmp_path / "val.csv", "--separator", ";", "--workers", 0)

    assert done.status == 0, done.err
    good = read_list(tmp_path / "val_checked" / "good.csv", separator=";")
    assert [(entry.path, entry.label) for entry in good] == [(str(tmp_path / "a b.mp4"), 0)]


def test_a_missing_list_is_one_line(run_tool, tmp_path):
    result = run_tool("check_videos", tmp_path / "val.csv")

    assert result.status == 2
    assert result.err.startswith("error: ")
    assert "octvideo lists" in result.err
