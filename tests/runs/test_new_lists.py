"""New lists of a folder's videos: they wait, and replace those that are there as a whole."""

import shutil
from pathlib import Path

import pytest

from octvideo.errors import DataError
from octvideo.files import OutputError
from octvideo.runs.videos import prepare_videos


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{folder} {name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 files, which nobody decodes, and their lists."""
    names = [f"{name}/{i:02d}.mp4" for name in ("run", "jump") for i in range(20)]
    put(tmp_path / "videos", *names)
    prepare(tmp_path / "videos")
    return tmp_path / "videos"


def prepare(folder: Path) -> None:
    """The lists as a run that begins has them."""
    if new := prepare_videos(str(folder), "lists", check=False).new_lists:
        with new.staged() as staged:
            staged.put()


def contents(work: str = "lists") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(work).iterdir()}


@pytest.fixture
def new_lists(folder):
    """Lists in which a class has another name and videos were added, beside those of before."""
    (folder / "run").rename(folder / "walk")
    put(folder, *(f"jump/{i:02d}b.mp4" for i in range(10)))
    return prepare_videos(str(folder), "lists", check=False).new_lists


def test_new_lists_wait_beside_those_that_other_runs_read(new_lists):
    before = contents()

    with new_lists.staged() as staged:
        assert contents() == before
        assert (staged.folder / "class_names.txt").read_text() == "jump\nwalk\n"
        assert staged.divides_anew

    assert contents() == before
    assert [path.name for path in Path().iterdir()] == ["lists"]


def test_new_lists_replace_those_of_before_and_leave_what_else_is_there(new_lists):
    Path("lists/notes.txt").write_text("mine")

    with new_lists.staged() as staged:
        wanted = contents(str(staged.folder))
        staged.put()

    assert contents() == wanted
    assert Path("lists/notes.txt").read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["lists"]


def test_lists_that_did_not_change_are_not_new(folder):
    with prepare_videos(str(folder), "lists", check=False).new_lists.staged() as staged:
        assert not staged.changed


def test_what_a_killed_rehearsal_left_is_removed_and_changes_nothing(new_lists):
    before = contents()
    left = Path("lists.abc.unfinished/lists")
    shutil.copytree("lists", left)
    (left / "test.csv").write_text("half")

    with new_lists.staged() as staged:
        wanted = contents(str(staged.folder))
        assert contents() == before
        staged.put()

    assert contents() == wanted
    assert [path.name for path in Path().iterdir()] == ["lists"]


@pytest.mark.parametrize("renames", [1, 2])
def test_a_kill_in_the_middle_of_the_swap_leaves_one_set_of_lists(
    new_lists, folder, monkeypatch, renames
):
    before, rename, done = contents(), Path.rename, []

    def killed(self, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    with new_lists.staged() as staged:
        wanted = contents(str(staged.folder))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed)
            patch.setattr(shutil, "rmtree", lambda *_, **__: killed(Path(), Path()))
            with pytest.raises(KeyboardInterrupt):
                staged.put()

    prepare_videos(str(folder), "lists", check=False)
    assert contents() == (before if renames == 1 else wanted)
    prepare(folder)
    assert contents() == wanted
    assert [path.name for path in Path().iterdir()] == ["lists"]


def test_lists_that_were_replaced_do_not_come_back_where_those_of_now_are_deleted(folder):
    shutil.copytree("lists", ".lists.replaced")
    Path(".lists.replaced/parts.json").write_text("of before")

    prepare_videos(str(folder), "lists", check=False)
    shutil.rmtree("lists")

    prepare(folder)
    assert [path.name for path in Path().iterdir()] == ["lists"]


def test_a_swap_that_fails_leaves_the_lists_of_before(new_lists, monkeypatch):
    before, rename = contents(), Path.rename

    def full(self, target):
        if self.name == "lists" and self.parent != Path().absolute():
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="No space left"), new_lists.staged() as staged:
        staged.put()

    assert contents() == before


def test_two_commands_that_divide_alike_both_begin(new_lists, folder):
    with new_lists.staged() as staged:
        prepare(folder)
        wanted = contents()
        staged.put()

    assert contents() == wanted


def test_lists_that_another_command_wrote_meanwhile_are_not_replaced(new_lists, folder):
    with new_lists.staged() as staged:
        put(folder, "jump/another.mp4")
        prepare(folder)
        before = contents()
        with pytest.raises(DataError, match="another command has written these lists meanwhile"):
            staged.put()

    assert contents() == before
