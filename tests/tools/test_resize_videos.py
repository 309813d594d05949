"""tools/resize_videos.py as a user calls it."""

import numpy as np
import pytest

from octvideo.data.video.decode import probe
from octvideo.data.video.encode import write_video


@pytest.mark.slow
def test_it_makes_videos_small_and_says_what_was_gained(run_tool, tmp_path):
    write_video(tmp_path / "in" / "a.mp4", np.zeros((20, 96, 128, 3), np.uint8), gop=250)
    (tmp_path / "in" / "b.mp4").write_text("no video")

    size = ["--short-side", "64", "--gop", "6"]
    result = run_tool("resize_videos", tmp_path / "in", tmp_path / "out", *size)

    assert result.status == 0, result.err
    assert "1 videos in" in result.out
    assert "b.mp4: Invalid data" in result.out
    assert "times as fast" in result.out
    assert probe(tmp_path / "out" / "a.mp4").height == 64


def test_a_missing_folder_is_one_line(run_tool, tmp_path):
    result = run_tool("resize_videos", tmp_path / "none", tmp_path / "out")

    assert result.status == 2
    assert result.err.startswith("error: ")
