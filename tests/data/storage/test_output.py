"""Files written anywhere: whole, or as they were before."""

import fsspec
import pytest
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from octvideo.data.storage.output import new_file, write_file


class _File(AbstractBufferedFile):
    """Is committed when it is closed, as those of object stores are."""

    def _upload_chunk(self, final=False):
        if final:
            self.fs.kept[self.path] = self.buffer.getvalue()
        return False


class _ObjectStore(AbstractFileSystem):
    protocol = "objects"
    kept: dict[str, bytes]

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


def test_a_store_that_is_away_when_a_file_is_discarded_hides_no_error(kept, monkeypatch):
    def is_away(file):
        raise ConnectionError

    monkeypatch.setattr(_File, "discard", is_away)

    with pytest.raises(KeyboardInterrupt):
        _write_a_part("objects://a", KeyboardInterrupt)

    assert not kept
