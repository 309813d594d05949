"""Lists and videos behind a scheme that iopath has a handler for."""

from pathlib import Path

import numpy as np
import pytest
from iopath.common.file_io import PathHandler, g_pathmgr

from octvideo.data.lists.class_names import names_beside
from octvideo.data.lists.video_list import read_list
from octvideo.data.remote import join, local_path
from octvideo.data.video.decode import DecodeError, read_frames
from octvideo.data.video.encode import write_video
from octvideo.errors import DataError


@pytest.fixture
def store(tmp_path, monkeypatch):
    """far://x is tmp_path / x, once fetched."""

    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["far://"]

        def _get_local_path(self, path, force=False, **kwargs):
            return str(tmp_path / path.removeprefix("far://"))

    monkeypatch.setattr(g_pathmgr, "_path_handlers", dict(g_pathmgr._path_handlers))
    g_pathmgr.register_handler(Handler())
    return tmp_path


def test_a_list_its_class_names_and_its_videos_are_fetched(store):
    write_video(store / "data" / "a.mp4", np.full((3, 16, 16, 3), 90, np.uint8))
    (store / "data" / "train.csv").write_text("a.mp4 1\nfar://data/a.mp4 0\n")
    (store / "data" / "class_names.txt").write_text("clap\nwave\n")

    videos = read_list("far://data/train.csv")

    assert [entry.path for entry in videos] == ["far://data/a.mp4"] * 2
    assert names_beside("far://data/train.csv") == ["clap", "wave"]
    assert read_frames(videos[0].path, [2]).shape == (1, 16, 16, 3)


def test_a_prefix_may_have_a_scheme(store):
    (store / "list.csv").write_text("clips/a.mp4 0\n")

    assert (
        read_list(store / "list.csv", path_prefix="far://data")[0].path == "far://data/clips/a.mp4"
    )


def test_a_scheme_without_a_handler_is_one_line_with_the_next_step():
    with pytest.raises(
        DataError, match=r"nowhere://a\.mp4: nothing can fetch this; register a handler"
    ):
        local_path("nowhere://a.mp4")


def test_a_handler_that_cannot_fetch_is_one_line(store):
    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["listed://"]

    g_pathmgr.register_handler(Handler())

    with pytest.raises(DataError, match=r"listed://a\.mp4: cannot be fetched"):
        local_path("listed://a.mp4")


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("a", "b", "a/b"),
        ("a", "/b", "/b"),
        ("", "b", "b"),
        ("s3://a", "b", "s3://a/b"),
        ("a", "s3://b", "s3://b"),
    ],
)
def test_paths_join_with_and_without_schemes(folder, name, path):
    assert Path(join(folder, name)) == Path(path)
    assert ("://" in join(folder, name)) == ("://" in path)


def test_a_video_that_cannot_be_fetched_is_a_video_that_cannot_be_read():
    with pytest.raises(DecodeError, match=r"^nowhere://a\.mp4: nothing can fetch this"):
        read_frames("nowhere://a.mp4", [0])
