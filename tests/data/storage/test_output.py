"""Files written anywhere: whole, or as they were before."""

import fsspec
import pytest
from client_errors import ClientError, told_by_botocore
from folder_handler import FolderHandler
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from full_disk import room_for
from iopath.common.file_io import g_pathmgr

from octvideo.data.storage.output import make_folder, new_file, replace_file, write_file
from octvideo.data.storage.ranges import exists, read_range
from octvideo.errors import DataError
from octvideo.files import OutputError


class _File(AbstractBufferedFile):
    """Is committed when it is closed, as those of object stores are."""

    def _upload_chunk(self, final=False):
        if final:
            self.fs.kept[self.path] = self.buffer.getvalue()
        return False


class _ObjectStore(AbstractFileSystem):
    protocol = "objects"
    kept: dict[str, bytes]

    def makedirs(self, path, exist_ok=False):
        pass

    def _open(self, path, mode="rb", **options):
        return _File(self, path, mode)


@pytest.fixture
def kept():
    """The files of objects://."""
    fsspec.register_implementation("objects", _ObjectStore, clobber=True)
    _ObjectStore.kept = {}
    return _ObjectStore.kept


def test_an_object_is_there_when_it_is_whole(kept):
    with new_file("objects://a") as file:
        file.write(b"one")
        assert not kept

    assert kept == {"a": b"one"}


def _write_a_part(address, error):
    with new_file(address) as file:
        file.write(b"a part")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_an_error_leaves_the_object_that_was_there(kept, error):
    write_file("objects://a", b"before")

    with pytest.raises(error):
        _write_a_part("objects://a", error)

    assert kept == {"a": b"before"}


@pytest.fixture(params=["opens://", "memory://output", "file://"])
def in_place(request, tmp_path, monkeypatch):
    """The address of an empty folder: of storages that show a file while it is written, and of this
    machine."""
    if request.param == "opens://":
        handlers = {**g_pathmgr._path_handlers, "opens://": FolderHandler(tmp_path)}
        monkeypatch.setattr(g_pathmgr, "_path_handlers", handlers)
    if request.param == "memory://output":
        fsspec.filesystem("memory").rm("/", recursive=True)
    return f"file://{tmp_path}" if request.param == "file://" else request.param


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_leaves_no_part_of_a_file(in_place, error):
    with pytest.raises(error):
        _write_a_part(f"{in_place}/a", error)

    assert not exists(f"{in_place}/a")


def test_an_error_leaves_the_file_that_was_there_at_an_address_of_this_machine(tmp_path):
    write_file(f"file://{tmp_path}/a", b"before")

    with pytest.raises(KeyboardInterrupt):
        _write_a_part(f"file://{tmp_path}/a", KeyboardInterrupt)

    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a": b"before"}


def test_a_whole_file_stays(in_place):
    write_file(f"{in_place}/a", b"whole")

    assert read_range(f"{in_place}/a", 0, 10) == b"whole"


@pytest.mark.parametrize("in_place", ["opens://", "file://"], indirect=True)
@pytest.mark.parametrize("size", [10, 10**5])  # of which a buffer holds one
def test_a_full_disk_of_a_storage_leaves_no_part_of_a_file(in_place, size):
    with room_for(5), pytest.raises(OutputError, match="cannot be written"):
        write_file(f"{in_place}/a", b"x" * size)

    assert not exists(f"{in_place}/a")


@pytest.mark.parametrize("in_place", ["opens://", "file://"], indirect=True)
@pytest.mark.parametrize("size", [10, 10**5])
def test_a_full_disk_of_a_storage_leaves_what_was_to_be_replaced(in_place, size):
    replace_file(f"{in_place}/a", b"old")

    with room_for(5), pytest.raises(OutputError, match="cannot be written"):
        replace_file(f"{in_place}/a", b"x" * size)

    assert read_range(f"{in_place}/a", 0, 10) == b"old"


def test_a_storage_that_removes_nothing_hides_no_error(in_place, monkeypatch):
    def cannot(*args, **options):
        raise NotImplementedError

    monkeypatch.setattr(FolderHandler, "_rm", cannot)
    for files in (LocalFileSystem, MemoryFileSystem):
        monkeypatch.setattr(files, "rm_file", cannot)

    with pytest.raises(ZeroDivisionError):
        _write_a_part(f"{in_place}/a", ZeroDivisionError)


def test_a_store_that_is_away_when_a_file_is_discarded_hides_no_error(kept, monkeypatch):
    def is_away(file):
        raise ConnectionError

    monkeypatch.setattr(_File, "discard", is_away)

    with pytest.raises(KeyboardInterrupt):
        _write_a_part("objects://a", KeyboardInterrupt)

    assert not kept


@pytest.mark.parametrize("call", ["makedirs", "_open", "write", "_upload_chunk"])
def test_what_the_client_of_a_store_raises_is_one_line(kept, monkeypatch, call):
    def is_away(*args, **options):
        raise ClientError("no endpoint")

    owner = _ObjectStore if call in ("makedirs", "_open") else _File
    monkeypatch.setattr(owner, call, is_away)

    with pytest.raises(OutputError, match=r"^objects://set\S* cannot be written \(no endpoint\)"):
        _write_into("objects://set")


def test_a_store_that_may_not_be_written_to_is_one_line(kept, monkeypatch):
    def is_closed(*args, **options):
        raise told_by_botocore("AccessDenied", 403)

    monkeypatch.setattr(_ObjectStore, "_open", is_closed)

    with pytest.raises(
        OutputError, match=r"^objects://set/a: cannot be written \(An error occurred \(AccessDenied"
    ):
        write_file("objects://set/a", b"one")


def test_missing_keys_of_a_store_are_one_line(kept, monkeypatch):
    class NoCredentialsError(Exception):
        pass

    def has_none(*args, **options):
        raise NoCredentialsError("unable to locate credentials")

    monkeypatch.setattr(_ObjectStore, "makedirs", has_none)

    with pytest.raises(DataError, match=r"^objects://set: unable .*; give the keys"):
        _write_into("objects://set")


def _write_into(folder):
    make_folder(folder)
    write_file(f"{folder}/a", b"one")
