"""Files that appear whole, lines that a kill cannot spoil, output folders."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from folder_handler import FolderHandler
from iopath.common.file_io import g_pathmgr

from octvideo.errors import ConfigError, OctvideoError
from octvideo.files import (
    appear_together,
    appears_whole,
    append_json_line,
    folder_beside,
    is_stream,
    make_output_folder,
    read_json_lines,
    require_another_file,
    require_place,
    write_atomically,
)


def test_many_ranks_prove_at_once_that_they_can_write(tmp_path):
    with ThreadPoolExecutor(8) as ranks:
        list(ranks.map(make_output_folder, [str(tmp_path / "run")] * 400))

    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    "folder", ["s3://bucket/run", "gs://run", "file:///tmp/run", "weird+x://a"]
)
def test_a_scheme_that_nothing_handles_is_refused(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(OctvideoError, match="nothing can write to"):
        make_output_folder(folder)
    with pytest.raises(OctvideoError, match="nothing can write to"):
        write_atomically(f"{folder}/best.pyth", lambda file: file.write(b"x"))

    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "results.json"

    def slowly(file):
        write_atomically(str(path), lambda other: other.write(b"other"))
        file.write(b"mine")

    write_atomically(str(path), slowly)

    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_part_of_a_file_of_a_handler(tmp_path, monkeypatch):
    def half(file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(g_pathmgr, "_path_handlers", {"opens://": FolderHandler(tmp_path)})
    write_atomically("opens://whole", lambda file: file.write(b"whole"))

    with pytest.raises(KeyboardInterrupt):
        write_atomically("opens://half", half)

    assert [file.name for file in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole").read_bytes() == b"whole"


class _OnClose(FolderHandler):
    """Shows what was written when the file is closed, as object stores do."""

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        if "r" in mode:
            return super()._open(path, mode)
        place = self._place(path)

        class File(io.BytesIO):
            def close(self):
                place.write_bytes(self.getvalue())
                super().close()

        return File()


def _half(error):
    def write(file):
        file.write(b"half")
        raise error

    return write


@pytest.mark.parametrize("handler", [FolderHandler, _OnClose])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("quota")])
@pytest.mark.parametrize("before", [b"", b"before" * 10**5])
def test_an_error_leaves_the_file_of_a_handler_that_was_to_be_replaced(
    tmp_path, monkeypatch, handler, error, before
):
    monkeypatch.setattr(g_pathmgr, "_path_handlers", {"opens://": handler(tmp_path)})
    write_atomically("opens://file", lambda file: file.write(before))

    with pytest.raises((KeyboardInterrupt, OctvideoError)):
        write_atomically("opens://file", _half(error))

    assert (tmp_path / "file").read_bytes() == before


def test_what_is_too_large_to_keep_leaves_no_part_of_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(g_pathmgr, "_path_handlers", {"opens://": FolderHandler(tmp_path)})
    monkeypatch.setattr("octvideo.files.MOST_KEPT", 3)
    write_atomically("opens://file", lambda file: file.write(b"four"))

    with pytest.raises(KeyboardInterrupt):
        write_atomically("opens://file", _half(KeyboardInterrupt))

    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_to_is_told_without_a_promise(tmp_path, monkeypatch):
    monkeypatch.setattr(g_pathmgr, "_path_handlers", {"opens://": FolderHandler(tmp_path)})

    with pytest.raises(OctvideoError, match=r"cannot be written \(quota\); the same command"):
        write_atomically("opens://file", _half(OSError("quota")))


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(OctvideoError, match=r"cannot be written .No such file or directory.; what"):
        write_atomically(str(tmp_path / "gone/results.json"), lambda file: file.write(b"x"))


def test_a_file_appears_when_it_is_complete_and_not_at_all_after_an_error(tmp_path):
    path = tmp_path / "clip.mp4"

    with appears_whole(path) as temporary:
        temporary.write_bytes(b"frames")
        assert not path.exists()
    with suppress(ZeroDivisionError), appears_whole(path) as temporary:
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018

    assert path.read_bytes() == b"frames"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_belong_together_replace_those_before_and_change_no_open_one(tmp_path):
    path = tmp_path / "new" / "model.xml"
    for content in (b"first", b"second"):
        with appear_together(path) as unfinished:
            unfinished.write_bytes(content)
            unfinished.with_suffix(".bin").write_bytes(content)
        if content == b"first":
            (tmp_path / "mapped").hardlink_to(path.with_suffix(".bin"))

    assert (tmp_path / "mapped").read_bytes() == b"first"
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == {
        "model.xml": b"second",
        "model.bin": b"second",
    }


def test_files_that_belong_together_do_not_appear_after_an_error(tmp_path):
    path = tmp_path / "model.xml"
    path.write_bytes(b"before")

    with suppress(KeyboardInterrupt), appear_together(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise KeyboardInterrupt

    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_processes_left_beside_a_path_is_removed_and_what_others_write_is_not(tmp_path):
    path, left = tmp_path / "a[1].xml", tmp_path / "a[1].xml.1234.unfinished"
    (left / "deep").mkdir(parents=True)
    (tmp_path / "b.xml.1234.unfinished").mkdir()

    with folder_beside(path) as first, folder_beside(path) as second:
        assert {first, second} < {*tmp_path.iterdir()}
        assert not left.exists()

    assert [found.name for found in tmp_path.iterdir()] == ["b.xml.1234.unfinished"]


def test_without_locks_nothing_beside_a_path_is_removed(tmp_path, monkeypatch):
    (tmp_path / "a.1234.unfinished").mkdir()

    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("octvideo.files.fcntl.flock", no_locks)
    with folder_beside(tmp_path / "a"):
        assert len(list(tmp_path.iterdir())) == 2

    assert [found.name for found in tmp_path.iterdir()] == ["a.1234.unfinished"]


def test_files_that_belong_together_need_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with (
        pytest.raises(OctvideoError, match=r"model\.xml: cannot be written"),
        appear_together(tmp_path / "file" / "model.xml"),
    ):
        pass


def test_a_line_that_was_cut_short_costs_no_other_line(tmp_path):
    path = tmp_path / "notes.jsonl"
    append_json_line(path, {"a": 1})
    with path.open("ab") as file:
        file.write(b'\n{"b": "\xc3')

    append_json_line(path, {"c": 3})

    assert list(read_json_lines(path)) == [{"a": 1}, {"c": 3}]
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize("name", ["a", "b", "../{folder}/a", "new", "no folder/new"])
def test_a_source_is_known_by_all_its_names(tmp_path, name):
    (tmp_path / "a").write_text("precious")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    output = tmp_path / name.format(folder=tmp_path.name)

    if output.exists():
        with pytest.raises(ConfigError, match="name another file"):
            require_another_file(output, tmp_path / "a")
    else:
        require_another_file(output, tmp_path / "a")
    require_another_file(output, "https://host/a")


@pytest.mark.parametrize("name", ["/dev/fd/{end}", "{folder}/pipe"])
def test_a_pipe_is_written_to_and_not_replaced(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    ends = [*os.pipe(), os.open(tmp_path / "pipe", os.O_RDWR)]
    path = Path(name.format(end=ends[1], folder=tmp_path))

    require_place(path)
    write_atomically(str(path), lambda file: file.write(b"rows"))

    assert os.read(ends[2 if path.parent == tmp_path else 0], 9) == b"rows"
    assert path.is_fifo()
    for end in ends:
        os.close(end)


def test_a_device_is_known(tmp_path):
    (tmp_path / "null").touch()
    assert is_stream(Path("/dev/null"))
    assert not is_stream(tmp_path / "null")
    assert not is_stream(Path("/dev/shm/rows.json"))


def test_a_place_where_no_file_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place, words in {
        tmp_path: "is a folder; name a file",
        tmp_path / "no" / "b.json": f"there is no folder {tmp_path}/no; name a file",
    }.items():
        with pytest.raises(ConfigError, match=words):
            require_place(place)
    require_place(tmp_path / "new.json")
    require_place(tmp_path / "file")
