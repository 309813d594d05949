"""A video stays in its list under another name, and in another place."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from octvideo.errors import DataError
from octvideo.runs.videos import prepare_videos

CLASSES = ("run", "jump")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 files of different sizes, which nobody decodes, and their lists."""
    for i, name in enumerate(f"{name}/{i:02d}.mp4" for name in CLASSES for i in range(20)):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} {'.' * i}")
    prepare(tmp_path / "videos")
    return tmp_path / "videos"


def prepare(folder: Path, work: str = "lists", begin: str = "") -> dict[str, str]:
    """What each video is, by its content -> its list, once a run has begun with the lists."""
    if new := prepare_videos(str(folder), work, begin=begin, check=False).new_lists:
        with new.staged() as staged:
            staged.put()
    found = {}
    for path in Path(work).glob("*[!x].csv"):
        for line in path.read_text().splitlines():
            found[Path(line.rpartition(" ")[0]).read_text()] = path.stem
    return found


def test_a_class_that_is_renamed_keeps_its_division(folder, caplog):
    first = prepare(folder)
    (folder / "run").rename(folder / "a walk")

    with caplog.at_level("INFO", "octvideo"):
        assert prepare(folder) == first

    assert "20 videos have another name or place than before, by their sizes" in caplog.text
    assert "new are" not in caplog.text
    (folder / "a walk").rename(folder / "run")
    assert prepare(folder) == first


def test_a_folder_that_is_moved_keeps_its_division(folder, tmp_path):
    first = prepare(folder)
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "videos")

    assert prepare(moved, "second", begin="lists") == first
    assert prepare(moved) == first


def test_files_that_are_renamed_stay_in_their_lists(folder):
    first = prepare(folder)
    for i, path in enumerate(sorted(folder.glob("*/*.mp4"))):
        path.rename(path.with_name(f"clip{7 * i % 40}.mp4"))

    assert prepare(folder) == first


@pytest.mark.parametrize("kind", ["classes", "files"])
def test_names_that_are_exchanged_take_no_training_video_into_a_test(folder, kind):
    first = prepare(folder)
    one, other = (folder / name for name in CLASSES)
    if kind == "files":
        one, other = (next(p for p in one.iterdir() if first[p.read_text()] == split)
                      for split in ("train", "test"))  # fmt: skip
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)

    found = prepare(folder)

    assert "train" in first.values()
    assert all(found[text] == "train" for text, split in first.items() if split == "train")


def test_where_sizes_and_names_do_not_tell_the_videos_are_trained_on(folder):
    for path in folder.glob("run/*.mp4"):
        path.write_text("same " + path.name)
    prepare(folder)
    for path in folder.glob("run/*.mp4"):
        path.rename(path.with_name(f"clip{path.name}"))

    found = prepare(folder)

    assert {found[path.read_text()] for path in folder.glob("run/*.mp4")} == {"train"}


def test_other_videos_in_a_folder_of_the_same_name_are_refused(folder, tmp_path):
    other = tmp_path / "other" / "videos"
    other.parent.mkdir()
    folder.rename(other)
    for path in other.glob("*/*.mp4"):
        path.write_text(f"another one {path} {'.' * 80} {path.read_text()}")

    with pytest.raises(DataError, match=r"lists: holds lists of other videos.*name another run"):
        prepare(other)


def test_a_file_that_was_changed_in_its_place_stays_in_its_list(folder):
    first = prepare(folder)
    for path in folder.glob("run/*.mp4"):
        path.write_text(f"{path.read_text()} and much more, {'.' * 80}")

    found = prepare(folder)

    assert {text.partition(" and")[0]: split for text, split in found.items()} == first


def test_a_file_that_was_changed_to_the_size_of_another_goes_to_no_test(folder):
    first = prepare(folder)
    files = {split: [path for path in sorted(folder.glob("*/*.mp4"))
                     if first[path.read_text()] == split]
             for split in ("train", "test")}  # fmt: skip
    (one, other), (tested, *_) = files["train"][:2], files["test"]
    sizes = [path.stat().st_size for path in (one, other, tested)]
    for path, size in zip((one, other, tested), (sizes[2], 10_000, 10_001), strict=True):
        path.write_text("!" * size)

    prepare(folder)

    assert str(one) in Path("lists/train.csv").read_text()
    assert str(tested) in Path("lists/test.csv").read_text()

    tested.write_text("?" * 10_000)
    other.write_text("?" * 10_002)
    prepare(folder)
    assert str(tested) in Path("lists/train.csv").read_text()


def test_a_video_returns_to_its_list_where_another_of_its_size_was_there_meanwhile(folder):
    first = prepare(folder)
    gone = next(path for path in folder.glob("run/*.mp4") if first[path.read_text()] == "train")
    text = gone.read_text()
    gone.unlink()
    (folder / "jump/other.mp4").write_text("!" * len(text))
    prepare(folder)

    gone.write_text(text)

    assert {text: split for text, split in prepare(folder).items() if text in first} == first


def test_another_folder_of_the_same_name_is_refused_where_a_size_is_the_same(folder, tmp_path):
    sizes = [path.stat().st_size for path in folder.glob("*/*.mp4")]
    shutil.rmtree(folder)
    other = tmp_path / "other" / "videos"
    for i, size in enumerate(sizes):
        path = other / CLASSES[i % 2] / f"other{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{i} {'!' * size}"[:size])

    with pytest.raises(DataError, match=r"lists: holds lists of other videos.*name another run"):
        prepare(other)


def test_a_path_that_cannot_be_reached_counts_as_gone(folder):
    first = prepare(folder)
    parts = json.loads(Path("lists/parts.json").read_bytes())
    parts[f"{folder}/{'long' * 100}.mp4"] = ["train", 9_000]
    Path("lists/parts.json").write_text(json.dumps(parts))
    (folder / "run/new.mp4").write_text("!" * 9_000)

    found = prepare(folder)

    assert found.pop("!" * 9_000) == "train"
    assert found == first


def test_without_a_check_a_repeated_command_asks_once_for_each_file(folder, monkeypatch):
    asked, stat = Counter(), os.stat

    def counted(path, *args, **options):
        asked[str(path)] += 1
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr(os.path, "isfile", lambda path: bool(counted(path)))

    prepare_videos(str(folder), "lists", check=False)

    assert {asked[str(path)] for path in folder.glob("*/*.mp4")} == {1}
    assert asked[str(folder / "run")] <= 2


def test_a_line_says_that_changed_and_renamed_videos_count_as_new(folder, caplog):
    for path in folder.glob("run/*.mp4"):
        path.write_text(f"{path.read_text()} and much more, {'.' * 80}")
        path.rename(path.with_name(f"new {path.name}"))

    with caplog.at_level("INFO", "octvideo"):
        prepare(folder)

    assert "new are 16 train, 2 val, 2 test; the others stay in their lists; 20 of" in caplog.text
    assert "one both renamed and changed counts as new" in caplog.text


def test_videos_that_were_renamed_do_not_count_as_gone(folder, caplog):
    (folder / "run").rename(folder / "walk")
    (folder / "walk/new.mp4").write_text("!" * 900)

    with caplog.at_level("INFO", "octvideo"):
        prepare(folder)

    assert "the others stay in their lists" in caplog.text
    assert "are gone" not in caplog.text


def test_a_division_of_an_earlier_version_is_gone_on_with(folder):
    first = prepare(folder)
    parts = json.loads(Path("lists/parts.json").read_bytes())
    Path("lists/parts.json").write_text(json.dumps({path: said[0] for path, said in parts.items()}))

    assert prepare(folder) == first
    (folder / "run").rename(folder / "walk")
    assert prepare(folder) == first


def test_clips_of_one_source_stay_on_its_side_when_the_earlier_ones_are_gone(folder):
    clips = [folder / f"run/v_Run_g{group:02d}_c01.avi" for group in range(9)]
    for clip in clips:
        clip.write_text(clip.name)
    first = prepare(folder)
    for clip in clips:
        clip.with_name(clip.name.replace("c01", "c02")).write_text(f"the second {clip.name}")
        clip.unlink()

    for i in range(20):
        (folder / f"run/another{i}.mp4").write_text("!" * (100 + i))

    found = prepare(folder)

    assert all(found[f"the second {clip.name}"] == first[clip.name] for clip in clips)
