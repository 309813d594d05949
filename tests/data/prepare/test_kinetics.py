"""Kinetics annotations in every form that is about, against the folder layouts that are about."""

from pathlib import Path

import pytest

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.kinetics import Annotation, kinetics_lists, read_annotations
from octvideo.data.prepare.make_lists import write_lists
from octvideo.errors import DataError, ListError

ID_A, ID_B = "a_b-c_d-e_f", "--bcdefghij"
FILE_A, FILE_B = f"{ID_A}_000005_000015.mp4", f"{ID_B}_000100_000110.mp4"
ANNOTATIONS = [
    Annotation(ID_A, 5, 15, "playing the flute", "train"),
    Annotation(ID_B, 100, 110, "abseiling", "val"),
]


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


HEADER = "label,youtube_id,time_start,time_end,split"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "train.csv",
            (
                'label,youtube_id,time_start,time_end,split,is_cc\n"playing the'
                f' flute",{ID_A},5,15,train,0\n'
            ),
            ("playing the flute", "train"),
        ),
        ("validate.csv", f"{HEADER}\nabseiling,{ID_A},5.0,15.0,val\n", ("abseiling", "val")),
        ("validate.csv", f"{HEADER}\nabseiling,{ID_A},5,15,validate\n", ("abseiling", "val")),
        (
            "validate.csv",
            f"youtube_id,label,time_start,time_end\n{ID_A},abseiling,5,15\n",
            ("abseiling", "val"),
        ),
        (
            "kinetics_train.csv",
            f"label,youtube_id,time_start,time_end\nabseiling,{ID_A},5,15\n",
            ("abseiling", "train"),
        ),
        ("test.csv", f"youtube_id,time_start,time_end,split\n{ID_A},5,15,test\n", ("", "test")),
        ("test.csv", f"\ufeff{HEADER}\n,{ID_A},5,15,test\n", ("", "test")),
    ],
)
def test_every_published_form_of_the_csv_is_read(tmp_path, name, text, expected):
    annotation = read_annotations(write(tmp_path / name, text))[0]

    assert annotation == Annotation(ID_A, 5, 15, *expected)
    assert annotation.stem + ".mp4" == FILE_A


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path label\na.mp4 0\n", DataError, "no column time_end, time_start, youtube_id"),
        (
            "label,youtube_id,time_start,time_end,split\nx,abc,soon,15,train\n",
            ListError,
            r"some.csv:2: time_start",
        ),
        (
            "label,youtube_id,time_start,time_end,split\nx,abc,5,15,\n",
            ListError,
            r"some.csv:2: no youtube_id, or no sp",
        ),
    ],
)
def test_a_csv_that_is_something_else_is_refused(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        read_annotations(write(tmp_path / "some.csv", text))


def test_a_csv_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "some.csv").write_bytes(b"label,youtube_id,time_start,time_end\ncaf\xe9,a,1,2\n")

    with pytest.raises(DataError, match=r"some.csv: is not UTF-8; save the file"):
        read_annotations(tmp_path / "some.csv")


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such annotation file"):
        read_annotations(tmp_path / "train.csv")


@pytest.mark.parametrize(
    "layout",
    [
        (f"train/playing the flute/{FILE_A}", f"val/abseiling/{FILE_B}"),
        (f"train/playing_the_flute/{FILE_A}", f"val/abseiling/{FILE_B}"),
        (f"train/{FILE_A}", f"val/{FILE_B}"),
        (FILE_A, FILE_B.replace(".mp4", ".mkv")),
    ],
)
def test_clips_are_found_in_every_folder_layout(tmp_path, layout):
    lists = kinetics_lists(ANNOTATIONS, put(tmp_path, *layout))

    assert [(str(clip.path.relative_to(tmp_path)), clip.label) for clip in lists.clips] == [
        (layout[0], 1),
        (layout[1], 0),
    ]
    assert not lists.missing
    assert not lists.duplicates


def test_a_replacement_wins_over_the_broken_file(tmp_path):
    inside = f"replacement/replacement_for_corrupted_k400/{FILE_A}"
    videos = put(tmp_path / "videos", f"train/{FILE_A}", f"val/{FILE_B}", inside)
    other = put(tmp_path / "elsewhere", FILE_B)

    lists = kinetics_lists(ANNOTATIONS, videos, replacements=other)

    assert [clip.path for clip in lists.clips] == [videos / inside, other / FILE_B]


def test_missing_duplicates_and_leaks_are_reported(tmp_path):
    videos = put(tmp_path, f"train/{FILE_A}", f"train/x/{FILE_A}", f"val/{ID_A}_000050_000060.mp4")
    annotations = [*ANNOTATIONS, ANNOTATIONS[0], Annotation(ID_A, 50, 60, "abseiling", "val")]

    lists = kinetics_lists(annotations, videos)

    assert lists.missing == {"val": [FILE_B.removesuffix(".mp4")]}
    assert len(lists.duplicates) == 2
    assert lists.leaks() == [ID_A]
    assert "val: 1 found, 1 missing" in lists.report()
    assert "  0, 1, 0  abseiling" in lists.report()


def test_a_part_of_kinetics_keeps_the_numbers_of_the_whole(tmp_path):
    known = {"four": ["abseiling", "bowling", "playing the flute", "zumba"]}

    lists = kinetics_lists(ANNOTATIONS, put(tmp_path, FILE_A, FILE_B), known=known)

    assert [clip.label for clip in lists.clips] == [2, 0]
    assert lists.class_names == known["four"]


def test_a_label_outside_the_class_names_is_refused(tmp_path):
    with pytest.raises(
        DataError, match="1 annotated labels are not among the class names, as 'playing the flute'"
    ):
        kinetics_lists(ANNOTATIONS, put(tmp_path, FILE_A), class_names=["abseiling"])


def test_nothing_found_names_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=f"none of the 2 annotated clips is here, as in {FILE_A}"):
        kinetics_lists(ANNOTATIONS, put(tmp_path, "other.mp4"))


def test_a_test_split_without_labels_becomes_an_unlabeled_list(tmp_path):
    videos = put(tmp_path / "my videos", FILE_A, FILE_B)
    annotations = [ANNOTATIONS[0], Annotation(ID_B, 100, 110, "", "test")]

    write_lists(kinetics_lists(annotations, videos), tmp_path / "lists", relative_to=tmp_path)

    train, test = (
        read_list(tmp_path / "lists" / f"{split}.csv", path_prefix=tmp_path)
        for split in ("train", "test")
    )
    assert (train.format, train[0].path) == ("video", str(videos / FILE_A))
    assert (test.format, test[0].path) == ("unlabeled", str(videos / FILE_B))
    assert not (tmp_path / "lists" / "val.csv").exists()


@pytest.mark.parametrize("count", [400, 600])
def test_the_class_names_are_in_the_alphabetical_order_of_kinetics(repo, count):
    names = (repo / "data_lists" / f"kinetics{count}_classes.txt").read_text().splitlines()

    assert len(set(names)) == count
    assert names == sorted(names)
