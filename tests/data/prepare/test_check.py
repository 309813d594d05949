"""Checking a list: good and bad told apart, nothing looked at twice, and an index that training can
use."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare import check
from octvideo.data.prepare.check import check_list
from octvideo.data.video.encode import write_video
from octvideo.data.video.index import index_path, read_index


@pytest.fixture
def checkable(tmp_path: Path) -> Path:
    """A list of two good videos, an empty file, a text file and a missing one."""
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    for name in ("a b.mp4", "c.mp4"):
        write_video(tmp_path / name, frames)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video")
    names = ("a b.mp4", "empty.mp4", "c.mp4", "text.mp4", "missing.mp4")
    (tmp_path / "train.csv").write_text(
        "".join(f"{name} {label}\n" for label, name in enumerate(names))
    )
    (tmp_path / "class_names.txt").write_text("v\nw\nx\ny\nz\n")
    return tmp_path / "train.csv"


@pytest.fixture
def here(monkeypatch):
    """Run the looks in this process, and note which files were looked at."""
    looked_at = []

    def for_each(job, tasks, **_):
        for task in tasks:
            looked_at.append(Path(task[0].path).name)
            yield job(*task)

    monkeypatch.setattr(check, "for_each", for_each)
    return looked_at


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_good_and_bad_files_are_listed_apart(checkable, here):
    result = check_list(read_list(checkable))

    good = read_list(result.good_list)
    assert [(Path(video.path).name, video.label) for video in good] == [
        ("a b.mp4", 0),
        ("c.mp4", 2),
    ]
    assert [(Path(row["path"]).name, row["reason"]) for row in rows(result.bad_list)] == [
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "Invalid data found when processing input"),
        ("missing.mp4", "No such file or directory"),
    ]
    assert (result.good, result.bad, result.damaged) == (2, 3, 0)
    assert (result.good_list.parent / "class_names.txt").read_text() == "v\nw\nx\ny\nz\n"


def test_the_index_is_written_for_the_list_and_for_the_good_part_of_it(checkable, here):
    result = check_list(read_list(checkable))

    for path in (checkable, result.good_list):
        index = read_index(index_path(path))
        known = [index.get(video.path) for video in read_list(path)]
        assert [info.num_frames for info in known if info] == [6, 6]


def test_new_changed_and_bad_files_are_looked_at_again(checkable, here):
    check_list(read_list(checkable))
    folder = checkable.parent
    os.utime(folder / "c.mp4", (1, 1))
    write_video(folder / "empty.mp4", np.zeros((3, 32, 48, 3), np.uint8))
    write_video(folder / "new.mp4", np.zeros((3, 32, 48, 3), np.uint8))
    checkable.write_text(checkable.read_text() + "new.mp4 1\n")
    here.clear()

    result = check_list(read_list(checkable))

    assert here == ["empty.mp4", "c.mp4", "text.mp4", "missing.mp4", "new.mp4"]
    assert (result.good, result.bad) == (4, 2)


def test_an_interrupted_check_goes_on_where_it_was(checkable, here, monkeypatch):
    whole = check.for_each

    def interrupted(job, tasks, **options):
        yield from whole(job, tasks[:2], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "for_each", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_list(read_list(checkable))
    notes = checkable.parent / "train_checked" / "findings.jsonl"
    notes.write_text(notes.read_text() + '\n{"path": "torn li')
    monkeypatch.setattr(check, "for_each", whole)
    here.clear()

    result = check_list(read_list(checkable))

    assert here == ["empty.mp4", "c.mp4", "text.mp4", "missing.mp4"]
    assert (result.good, result.bad) == (2, 3)


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ("a b.mp4 0\nc.mp4 1\n", {}),
        ("a b.mp4,0\nc.mp4,1\n", {"separator": ","}),
        ("a b.mp4;0\nc.mp4;1\n", {"separator": ";"}),
        ('path,labels\na b.mp4,"0,1"\nc.mp4,\n', {}),
        ('path,labels\na b.mp4,"0,1"\nc.mp4,2\n', {"separator": ","}),
        ("a b.mp4 0,1\nc.mp4 2\n", {"format": "multilabel"}),
        ("path\na b.mp4\nc.mp4\n", {"separator": ","}),
    ],
)
def test_good_files_are_a_list_under_the_settings_of_the_list(checkable, here, content, settings):
    checkable.write_text(content)
    videos = read_list(checkable, **settings)

    result = check_list(videos, separator=settings.get("separator"))

    good = read_list(result.good_list, **settings)
    assert [(entry.path, entry.labels) for entry in good] == [
        (entry.path, entry.labels) for entry in videos
    ]
    assert good.format == videos.format


def test_folders_of_frames_are_checked_image_by_image(tmp_path, here):
    for folder in ("good", "torn"):
        (tmp_path / folder).mkdir()
        for frame in range(3):
            Image.fromarray(np.full((8, 8, 3), frame, np.uint8)).save(
                tmp_path / folder / f"{frame}.jpg"
            )
    (tmp_path / "torn" / "1.jpg").write_bytes(b"\xff\xd8 no more")
    (tmp_path / "val.csv").write_text("good 3 0\ntorn 3 0\n")

    result = check_list(read_list(tmp_path / "val.csv", format="frames"))

    assert [Path(row["path"]).name for row in rows(result.bad_list)] == ["torn"]
    for format in ("frames", "video"):
        (good,) = read_list(result.good_list, format=format)
        assert (Path(good.path).name, good.num_frames, good.label) == ("good", 3, 0)


def test_a_folder_is_looked_at_again_for_another_number_of_frames(tmp_path, here):
    (tmp_path / "clip").mkdir()
    for frame in range(3):
        Image.fromarray(np.full((8, 8, 3), frame, np.uint8)).save(tmp_path / f"clip/{frame}.jpg")
    found = []
    for count in (3, 3, 4, 3):
        (tmp_path / "val.csv").write_text(f"clip {count} 0\n")
        here.clear()
        result = check_list(read_list(tmp_path / "val.csv", format="frames"))
        found.append((len(here), result.good))

    assert found == [(1, 1), (0, 1), (1, 0), (0, 1)]


def test_addresses_stay_addresses(tmp_path, here, serve, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", np.zeros((3, 32, 48, 3), np.uint8))
    server = serve(tmp_path / "videos")
    address = f"{server.url}/a.mp4"
    (tmp_path / "val.csv").write_text(f"{address} 0\n")

    result = check_list(read_list(tmp_path / "val.csv"))

    assert [entry.path for entry in read_list(result.good_list)] == [address]
    for path in (result.index, index_path(result.good_list)):
        assert read_index(path).get(address).num_frames == 3


def test_an_index_knows_a_video_by_any_path_to_it(checkable, here, monkeypatch):
    result = check_list(read_list(checkable))
    monkeypatch.chdir(checkable.parent)

    for path in ("c.mp4", "../" + checkable.parent.name + "/c.mp4", str(Path("c.mp4").absolute())):
        assert read_index(result.index).get(path).num_frames == 6
    assert read_index("train.index.csv").get(str(Path("c.mp4").absolute())).num_frames == 6
