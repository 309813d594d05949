"""The lists of a run: every video stays in its list, whatever is added, taken away or shared."""

import json
import shutil
from pathlib import Path

import pytest

from octvideo.errors import DataError
from octvideo.runs.videos import prepare_videos


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder} {name}")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 files, which nobody decodes."""
    return put(
        tmp_path / "videos", *(f"{name}/{i:02d}.mp4" for name in ("run", "jump") for i in range(20))
    )


def prepare(folder: Path, work: str = "lists", begin: str = "") -> dict[str, list[str]]:
    """The lines of each list, once a run has begun with them."""
    if new := prepare_videos(str(folder), work, begin=begin, check=False).new_lists:
        with new.staged() as staged:
            staged.put()
    return {path.stem: path.read_text().splitlines() for path in Path(work).glob("t*.csv")} | {
        "val": Path(work, "val.csv").read_text().splitlines()
    }


def test_no_test_holds_what_an_earlier_run_was_trained_on(folder, caplog):
    first = prepare(folder)
    put(folder, *(f"run/{i:02d}b.mp4" for i in range(10)))

    with caplog.at_level("INFO", "octvideo"):
        grown = prepare(folder)

    assert all(set(first[split]) < set(grown[split]) for split in ("train", "val", "test"))
    assert "new are 8 train, 1 val, 1 test; the others stay in their lists" in caplog.text


def test_an_unchanged_folder_gives_the_same_lists(folder, caplog):
    first = prepare(folder)

    assert prepare(folder) == first
    assert prepare(folder, "elsewhere") == first
    assert "new are" not in caplog.text


def test_a_video_that_was_away_comes_back_to_its_list(folder):
    first = prepare(folder)
    for path in folder.glob("run/0*.mp4"):
        path.rename(folder.parent / path.name)
    prepare(folder)
    for path in folder.parent.glob("*.mp4"):
        path.rename(folder / "run" / path.name)

    assert prepare(folder) == first


def test_lists_of_an_earlier_version_are_gone_on_with(folder):
    first = prepare(folder)
    Path("lists/parts.json").unlink()
    put(folder, *(f"run/{i:02d}b.mp4" for i in range(10)))

    grown = prepare(folder)

    assert all(set(first[split]) < set(grown[split]) for split in ("train", "val", "test"))


def test_a_training_video_that_val_repeated_stays_in_train(tmp_path):
    folder = put(tmp_path / "videos", "run/0.mp4", "jump/0.mp4")
    assert prepare(folder)["val"] == prepare(folder)["train"]
    Path("lists/parts.json").unlink()
    put(folder, "run/1.mp4")

    grown = prepare(folder)

    assert [line.split("/")[-2:] for line in grown["val"]] == [["run", "1.mp4 1"]]
    assert len(grown["train"]) == 2


def test_a_list_that_is_empty_now_is_not_tested(folder):
    assert prepare(folder)["test"]
    Path("lists/parts.json").unlink()
    for path in folder.glob("*/*.mp4"):
        path.rename(folder.parent / path.name)
    put(folder, "run/new.mp4", "jump/new.mp4")
    for path in Path("lists").glob("*.csv"):
        path.write_text(f"{folder}/run/new.mp4 1\n")

    assert "test" not in prepare(folder)
    said = "no video is in test: test.csv of before is now test.csv.old"
    assert said in Path("lists/report.txt").read_text()


def test_new_lists_begin_with_the_division_of_others_and_go_on_by_themselves(folder):
    first = prepare(folder)
    put(folder, *(f"{name}/{i:02d}b.mp4" for name in ("run", "jump") for i in range(10)))

    second = prepare(folder, "second", begin="lists")
    Path("lists/parts.json").write_text("{")

    assert all(set(first[split]) < set(second[split]) for split in ("train", "val", "test"))
    assert prepare(folder, "second", begin="lists") == second


def test_new_lists_take_nothing_from_those_of_another_folder_of_the_same_name(folder, tmp_path):
    prepare(folder)
    other = tmp_path / "other" / "videos"
    shutil.copytree(folder, other)

    found = prepare(other, "second", begin="lists")

    assert found == prepare(other, "third")
    assert str(folder) not in Path("second/parts.json").read_text()


def test_another_folder_of_the_same_name_is_refused(folder, tmp_path):
    first = prepare(folder)
    other = tmp_path / "other" / "videos"
    shutil.copytree(folder, other)

    with pytest.raises(DataError, match=r"lists: holds lists of other videos.*name another run"):
        prepare(other)

    assert prepare(folder) == first


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"a": "all"}), json.dumps({"a": {}})])
def test_a_damaged_division_is_refused_in_a_line(folder, content):
    prepare(folder)
    Path("lists/parts.json").write_text(content)

    with pytest.raises(DataError, match=r"parts\.json: is damaged.*delete it") as error:
        prepare(folder)

    assert "\n" not in str(error.value)


def test_without_a_check_the_files_stay_out_that_an_earlier_one_could_not_read(my_videos, caplog):
    torn = my_videos / "dark" / "torn.mp4"
    torn.write_bytes(b"torn")
    prepare_videos(str(my_videos), "lists")
    caplog.clear()

    first = prepare(my_videos)

    assert str(torn) not in str(first)
    assert "1 of 11 files are left out, since an earlier check could not read them" in caplog.text
    assert str(torn) not in str(prepare(my_videos, "second", begin="lists"))

    shutil.copy(my_videos / "dark" / "0.mp4", torn)
    assert str(torn) in str(prepare(my_videos))
    assert str(torn) in str(prepare(my_videos, "second", begin="lists"))


def test_without_a_check_the_last_finding_about_a_file_counts(my_videos):
    video = str(my_videos / "dark" / "0.mp4")
    prepare_videos(str(my_videos), "lists")
    notes = Path("lists/all_checked/findings.jsonl")
    (noted,) = (line for line in notes.read_text().splitlines() if video in line)
    bad = noted.replace('"cause": ""', '"cause": "no memory"')

    for lines, is_in in (((noted, bad), False), ((bad, noted), True)):
        notes.write_text("\n".join(lines))
        assert (f"{video} 0" in str(prepare(my_videos))) == is_in


def test_without_a_check_too_there_must_be_a_file_that_can_be_read(folder):
    with pytest.raises(DataError, match="none of the 40 videos can be read"):
        prepare_videos(str(folder), "lists")

    with pytest.raises(DataError, match=r"none of the 40 videos can be read: .*; \.\.\.$"):
        prepare(folder)
