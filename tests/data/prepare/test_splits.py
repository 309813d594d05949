"""Lists from a class-per-folder tree and from the split files of UCF101 and HMDB51."""

from collections import Counter
from pathlib import Path

import pytest

from octvideo.data.prepare.splits import folder_lists, hmdb51_lists, ucf101_lists
from octvideo.errors import ConfigError, DataError, ListError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return put(
        tmp_path, *(f"{name}/{i:02d}.mp4" for name in ("run", "jump high") for i in range(20))
    )


def test_a_tree_is_divided_class_by_class_and_always_alike(tree):
    lists = folder_lists(tree, seed=3)

    assert lists.class_names == ["jump high", "run"]
    counts = Counter((clip.split, clip.label) for clip in lists.clips)
    assert counts == {
        ("train", 0): 16,
        ("train", 1): 16,
        ("val", 0): 2,
        ("val", 1): 2,
        ("test", 0): 2,
        ("test", 1): 2,
    }
    assert lists.clips == folder_lists(tree, seed=3).clips
    assert lists.clips != folder_lists(tree, seed=4).clips


def test_a_new_class_leaves_the_other_classes_divided_as_they_were(tree):
    before = {clip.path: clip.split for clip in folder_lists(tree).clips}
    put(tree, "dance/00.mp4")

    after = {clip.path: clip.split for clip in folder_lists(tree).clips}

    assert before.items() <= after.items()


@pytest.mark.parametrize("added", [1, 7, 60])
def test_videos_that_were_divided_before_stay_where_they_are(tree, added):
    before = {str(clip.path): clip.split for clip in folder_lists(tree).clips}
    put(tree, *(f"run/{i:02d}b.mp4" for i in range(added)))

    lists = folder_lists(tree, before=before)

    assert before.items() <= {str(clip.path): clip.split for clip in lists.clips}.items()
    counts = Counter(clip.split for clip in lists.clips if clip.label == 1)
    tenth = round(0.1 * (20 + added))
    assert counts == {"train": 20 + added - 2 * tenth, "val": tenth, "test": tenth}


def test_a_new_clip_joins_its_source_and_a_source_that_was_divided_goes_to_train(tmp_path):
    put(tmp_path, *(f"Jump/v_Jump_g{g:02d}_c00.avi" for g in range(10)))
    others = {"v_Jump_g02": "val", "v_Jump_g03": "test"}
    before = {
        str(clip.path): others.get(clip.source, "train") for clip in folder_lists(tmp_path).clips
    }
    put(tmp_path, "Jump/v_Jump_g03_c01.avi", "Jump/v_Jump_g04_c01.avi", "Jump/v_Jump_g05_c01.avi")
    before[str(tmp_path / "Jump/v_Jump_g05_c01.avi")] = "test"

    lists = folder_lists(tmp_path, before=before)

    splits = {clip.path.name: clip.split for clip in lists.clips}
    assert splits["v_Jump_g03_c01.avi"] == "test"
    assert splits["v_Jump_g04_c01.avi"] == "train"
    assert splits["v_Jump_g05_c01.avi"] == splits["v_Jump_g05_c00.avi"] == "train"


def test_a_class_grows_from_one_video(tree):
    put(tree, "rare/0.mp4")
    before = {str(clip.path): clip.split for clip in folder_lists(tree).clips}
    put(tree, "rare/1.mp4", "rare/2.mp4")

    lists = folder_lists(tree, before=before)

    rare = lists.class_names.index("rare")
    assert sorted(clip.split for clip in lists.clips if clip.label == rare) == [
        "test", "train", "val",
    ]  # fmt: skip


def test_clips_of_one_source_and_equal_files_stay_together(tmp_path):
    put(tmp_path, *(f"Jump/v_Jump_g{g:02d}_c{c:02d}.avi" for g in range(5) for c in range(4)))
    (tmp_path / "Jump" / "copy.avi").write_bytes(
        (tmp_path / "Jump" / "v_Jump_g00_c00.avi").read_bytes()
    )

    lists = folder_lists(tmp_path)

    assert {clip.split for clip in lists.clips} == {"train", "val", "test"}
    assert lists.leaks() == []
    assert len(lists.duplicates) == 1


def test_equal_files_of_two_classes_stay_on_one_side_and_are_noted(tree):
    for i in range(20):
        copy = tree / "run" / f"{i:02d}.mp4"
        copy.write_bytes((tree / "jump high" / copy.name).read_bytes())

    lists = folder_lists(tree)

    of_class = [
        {clip.source: clip.split for clip in lists.clips if clip.label == n} for n in (0, 1)
    ]
    assert of_class[0] == of_class[1]
    assert set(of_class[0].values()) == {"train", "val", "test"}
    assert lists.leaks() == []
    source = tree / "jump high" / "00.mp4"
    assert lists.notes == [
        f"20 source(s) are in several classes, such as {source} ('jump high' and 'run'): each is on"
        " one side"
    ]


def test_a_copy_in_an_earlier_class_joins_the_side_of_a_video_that_was_divided(tree):
    before = {str(clip.path): clip.split for clip in folder_lists(tree).clips}
    held = [path for path, split in before.items() if split == "test" and "/run/" in path]
    put(tree, "dance/00.mp4")
    for i, path in enumerate(held):
        (tree / "dance" / f"copy{i}.mp4").write_bytes(Path(path).read_bytes())

    lists = folder_lists(tree, before=before)

    assert before.items() <= {str(clip.path): clip.split for clip in lists.clips}.items()
    assert {clip.split for clip in lists.clips if clip.path.stem.startswith("copy")} == {"test"}
    assert lists.leaks() == []


@pytest.mark.parametrize(("count", "lacking"), [(1, "val and test"), (2, "test")])
def test_a_class_with_too_few_videos_is_named(tree, count, lacking):
    put(tree, *(f"rare/{i}.mp4" for i in range(count)))

    lists = folder_lists(tree)

    assert lists.notes == [f"'rare' has {count} video(s): none in {lacking}"]
    assert f"note: 'rare' has {count} video(s): none in {lacking}" in lists.report()


def test_one_video_per_class_trains_and_says_what_its_accuracy_is(tmp_path):
    put(tmp_path, "run/a.mp4", "jump/b.mp4")

    lists = folder_lists(tmp_path)

    assert [len(lists.of(split)) for split in ("train", "val", "test")] == [2, 2, 0]
    assert (
        "note: no video is left for val: val.csv repeats train.csv\nnote: THE ACCURACY WILL BE"
        in lists.report()
    )


def test_class_folders_one_level_too_deep_are_noticed(tmp_path):
    put(tmp_path, *(f"all/{name}/{i}.mp4" for name in ("run", "jump") for i in range(5)))

    assert folder_lists(tmp_path).notes == [
        f"one class only, 'all': the folders right below {tmp_path} are the classes"
    ]


def test_split_folders_are_taken_as_they_are_and_their_leaks_found(tmp_path):
    put(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "validation/run/c.mp4")
    (tmp_path / "validation" / "run" / "d.mp4").write_bytes(
        (tmp_path / "train" / "run" / "a.mp4").read_bytes()
    )

    lists = folder_lists(tmp_path)

    assert [(clip.path.name, clip.label, clip.split) for clip in lists.clips] == [
        ("b.mp4", 0, "train"),
        ("a.mp4", 1, "train"),
        ("c.mp4", 1, "val"),
        ("d.mp4", 1, "val"),
    ]
    assert lists.leaks() == [str(tmp_path / "train" / "run" / "a.mp4")]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("videos_train", "videos_val"),
        ("train_256", "val_256"),
        ("videos_train_320p", "videos_val_320p"),
        ("Train", "testset"),
    ],
)
def test_split_folders_may_be_named_as_other_toolkits_name_them(train, val, tmp_path):
    put(tmp_path, f"{train}/run/a.mp4", f"{train}/jump/b.mp4", f"{val}/run/c.mp4")

    lists = folder_lists(tmp_path)

    assert lists.class_names == ["jump", "run"]
    assert [clip.path.name for clip in lists.of("train")] == ["b.mp4", "a.mp4"]


def test_a_class_may_be_called_after_a_train(tmp_path):
    put(tmp_path, *(f"{name}/{i}.mp4" for name in ("train station", "my_test") for i in range(9)))

    assert folder_lists(tmp_path).class_names == ["my_test", "train station"]


def test_classes_may_be_numbered_tests_and_trains(tmp_path):
    put(tmp_path, *(f"{name}/run/{i}.mp4" for name in ("test1", "test2", "train2") for i in "abc"))

    assert folder_lists(tmp_path).class_names == ["test1", "test2", "train2"]


def test_a_video_outside_class_folders_is_refused(tmp_path):
    put(tmp_path, "run/a.mp4", "b.mp4")

    with pytest.raises(DataError, match="is in no class folder"):
        folder_lists(tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: put(path, "notes.txt")])
def test_a_folder_without_videos_is_refused(tmp_path, make):
    make(tmp_path / "videos")

    with pytest.raises(DataError, match=r"no such folder of videos|no video in it"):
        folder_lists(tmp_path / "videos")


@pytest.fixture
def ucf(tmp_path: Path) -> tuple[Path, Path]:
    splits = tmp_path / "ucfTrainTestlist"
    splits.mkdir()
    (splits / "classInd.txt").write_text("1 Archery\n2 Punch\n")
    train = [
        f"{name}/v_{name}_g{g:02d}_c01.avi" for name in ("Archery", "Punch") for g in range(8, 18)
    ]
    test = [
        "Archery/v_Archery_g01_c01.avi",
        "Punch/v_Punch_g01_c01.avi",
        "Punch/v_Punch_g08_c02.avi",
    ]
    (splits / "trainlist01.txt").write_text(
        "".join(f"{name} {1 + ('Punch' in name)}\r\n" for name in train)
    )
    (splits / "testlist01.txt").write_text("".join(f"{name}\n" for name in test))
    return put(tmp_path / "UCF-101", *train[:-1], *test), splits


def test_ucf101_split_files_give_lists_and_a_report(ucf):
    lists = ucf101_lists(*ucf)

    assert lists.class_names == ["Archery", "Punch"]
    assert [len(lists.of(split)) for split in ("train", "val", "test")] == [19, 3, 3]
    assert lists.missing == {"train": ["v_Punch_g17_c01"]}
    assert lists.leaks() == ["v_Punch_g08"]
    assert {clip.label for clip in lists.clips if "Punch" in clip.source} == {1}
    assert "val.csv repeats test.csv" in lists.report()


def test_a_share_of_train_can_become_val(ucf):
    lists = ucf101_lists(*ucf, val_share=0.2)

    assert [len(lists.of(split)) for split in ("train", "val", "test")] == [15, 4, 3]


def test_a_source_of_two_classes_is_not_divided_between_train_and_val(ucf):
    videos, splits = ucf
    with (splits / "trainlist01.txt").open("a") as file:
        file.writelines(f"Archery/v_Punch_g{g:02d}_c03.avi 1\n" for g in range(8, 18))
    put(videos, *(f"Archery/v_Punch_g{g:02d}_c03.avi" for g in range(8, 18)))

    lists = ucf101_lists(videos, splits, val_share=0.3)

    val = {clip.source for clip in lists.of("val")}
    assert val
    assert not val & {clip.source for clip in lists.of("train")}


def test_hmdb51_split_files_give_lists(tmp_path):
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "brush_hair_test_split2.txt").write_text("a b.avi 1 \nc.avi 0 \n")
    (splits / "wave_test_split2.txt").write_text("d.avi 2\n")

    lists = hmdb51_lists(
        put(tmp_path / "v", "brush_hair/a b.avi", "brush_hair/c.avi", "wave/d.avi"), splits, fold=2
    )

    assert lists.class_names == ["brush_hair", "wave"]
    assert [(clip.path.name, clip.label, clip.split) for clip in lists.clips] == [
        ("a b.avi", 0, "train"),
        ("d.avi", 1, "test"),
        ("d.avi", 1, "val"),
    ]


def test_split_files_that_are_something_else_are_refused(tmp_path):
    put(tmp_path, "v/a.mp4")

    with pytest.raises(DataError, match=r"no files <class>_test_split1.txt"):
        hmdb51_lists(tmp_path / "v", tmp_path)
    with pytest.raises(DataError, match="there is no such split file"):
        ucf101_lists(tmp_path / "v", tmp_path)
    (tmp_path / "classInd.txt").write_bytes(b"1 Caf\xe9\n")
    with pytest.raises(DataError, match=r"classInd.txt: is not UTF-8; save the file"):
        ucf101_lists(tmp_path / "v", tmp_path)
    (tmp_path / "wave_test_split1.txt").write_text("a.avi yes\n")
    with pytest.raises(ListError, match=r"wave_test_split1.txt:1: 'a.avi yes' is not"):
        hmdb51_lists(tmp_path / "v", tmp_path)


@pytest.mark.parametrize("shares", [(80, 10, 10), (0.9, 0.2, -0.1), (0.5, 0.1, 0.1)])
def test_shares_are_parts_of_one(tree, shares):
    with pytest.raises(ConfigError, match="that add up to 1"):
        folder_lists(tree, shares=shares)


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_folders_of_splits_have_the_names_in_use(tmp_path, val):
    put(tmp_path, "Train/run/0.mp4", f"{val}/run/1.mp4", "testing/run/2.mp4")

    lists = folder_lists(tmp_path)

    assert lists.class_names == ["run"]
    assert sorted(clip.split for clip in lists.clips) == ["test", "train", "val"]


def test_a_folder_beside_those_of_splits_is_named(tmp_path):
    put(tmp_path, "train/run/0.mp4", "val/run/1.mp4", "raw/run/2.mp4")

    with pytest.raises(DataError, match="'raw' beside folders of train, val"):
        folder_lists(tmp_path)


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    put(tmp_path, "test/0.mp4", "run/1.mp4", "train/2.mp4")

    assert folder_lists(tmp_path).class_names == ["run", "test", "train"]
