"""The index: what was written is what training finds."""

from dataclasses import replace

import pytest

from octvideo.data.video.index import index_path, read_index, write_index
from octvideo.data.video.info import VideoInfo
from octvideo.errors import DataError

INFO = VideoInfo(300, 29.97, 340, 256, 0, "h264", 10.01, "decord", num_bytes=12345)


def test_what_was_written_is_found_by_path(tmp_path):
    inside, outside = tmp_path / "a video, with a comma.mp4", tmp_path.parent / "ünicode.avi"
    damaged = replace(
        INFO, backend="pyav", reason="damaged", problems=("breaks off after 9 frames", "two\nlines")
    )
    path = index_path(tmp_path / "train.csv")

    write_index(path, [(str(inside), INFO), (str(outside), damaged)])
    index = read_index(path)

    assert path.name == "train.index.csv"
    assert len(index) == 2
    found = index.get(str(inside))
    assert found is not None
    assert replace(found, codec="h264") == INFO
    assert (index.get(str(outside)).backend, index.get(str(outside)).num_frames) == ("pyav", 300)
    assert index.get(str(outside)).reason == "damaged"
    assert index.get(str(tmp_path / "another.mp4")) is None


def test_an_index_moves_with_its_folder(tmp_path):
    (tmp_path / "here").mkdir()
    write_index(tmp_path / "here" / "index.csv", [(str(tmp_path / "here" / "a.mp4"), INFO)])

    (tmp_path / "here").rename(tmp_path / "there")

    assert (
        read_index(tmp_path / "there" / "index.csv").get(str(tmp_path / "there" / "a.mp4"))
        is not None
    )


def test_an_index_of_an_earlier_version_is_refused_with_the_way_out(tmp_path):
    """It remembers decord for files that decord reads wrongly, and no flip."""
    path = tmp_path / "train.index.csv"
    write_index(path, [("a.mp4", INFO)])
    rows = [line.rsplit(",", 2)[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(rows) + "\n")

    with pytest.raises(DataError, match=r"by an earlier version.* with `octvideo check`"):
        read_index(path)


@pytest.mark.parametrize(
    "spoil", [lambda text: "path,label\n", lambda text: text.replace("300", "many")]
)
def test_something_else_is_refused(tmp_path, spoil):
    path = tmp_path / "index.csv"
    write_index(path, [("a.mp4", INFO)])
    path.write_text(spoil(path.read_text()))

    with pytest.raises(DataError, match=r"index\.csv.* with `octvideo check`"):
        read_index(path)
