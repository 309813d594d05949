"""Parts of files: checked, fetched ahead, and kept in a cache with a limit."""

import os
import time
import zlib
from pathlib import Path

import pytest

from octvideo.data.storage import part as parts
from octvideo.data.storage.cache import RangeCache
from octvideo.data.storage.part import Part, prefetch, read_part

CONTENT = os.urandom(10_000)


@pytest.fixture
def server(tmp_path, serve):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.tar").write_bytes(CONTENT)
    return serve(tmp_path / "served")


def _part(address, offset=100, size=1000, **more):
    return Part(address, offset, size, zlib.crc32(CONTENT[offset : offset + size]), **more)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_a_part_is_its_bytes_fetched_ahead_or_not(server):
    part = _part(f"{server.url}/a.tar")

    prefetch(part)
    assert read_part(part) == read_part(part) == CONTENT[100:1100]
    assert len(server.requests) == 2
    assert not parts._fetching


def test_what_is_fetched_ahead_and_never_read_does_not_pile_up(server):
    for offset in range(20):
        prefetch(_part(f"{server.url}/a.tar", offset=offset))

    assert len(parts._fetching) <= 4
    parts._fetching.clear()


def test_fetching_ahead_hides_the_latency(server):
    server.latency = 0.2
    part = _part(f"{server.url}/a.tar")

    prefetch(part)
    time.sleep(0.4)
    start = time.perf_counter()
    read_part(part)

    assert time.perf_counter() - start < server.latency


def test_a_failure_ahead_is_raised_where_the_part_is_read(server):
    part = _part(f"{server.url}/gone.tar")

    prefetch(part)
    with pytest.raises(FileNotFoundError):
        read_part(part)


def test_other_bytes_than_were_written_are_noticed(tmp_path):
    (tmp_path / "a.tar").write_bytes(CONTENT)

    with pytest.raises(OSError, match="holds other bytes"):
        read_part(_part(str(tmp_path / "a.tar"))._replace(crc32=1))
    with pytest.raises(OSError, match="ends before byte"):
        read_part(_part(str(tmp_path / "a.tar"), offset=9_500))


def test_a_cached_part_is_read_once_and_a_damaged_copy_again(server, tmp_path):
    part = _part(f"{server.url}/a.tar", cache=RangeCache(str(tmp_path / "cache"), 10**6))

    assert read_part(part) == read_part(part) == CONTENT[100:1100]
    assert len(server.requests) == 1
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            file.write_bytes(b"x" * 1000)
    assert read_part(part) == CONTENT[100:1100]
    assert len(server.requests) == 2


def test_bytes_without_a_checksum_are_cached_by_the_version_of_their_file(server, tmp_path):
    cache = RangeCache(str(tmp_path / "cache"), 10**6)
    part = Part(f"{server.url}/a.tar", 100, 1000, cache=cache)

    for version in ("", "", "1", "1", "2"):
        assert read_part(part._replace(version=version)) == CONTENT[100:1100]

    assert len(server.requests) == 4


def test_the_cache_keeps_below_its_limit_and_keeps_what_was_used_last(server, tmp_path):
    cache = RangeCache(str(tmp_path / "cache"), 5_000)
    favorite = _part(f"{server.url}/a.tar", offset=0, cache=cache)

    for offset in range(1, 30):
        read_part(favorite)
        read_part(_part(f"{server.url}/a.tar", offset=offset, cache=cache))
        assert _size(tmp_path / "cache") <= 5_000

    assert sum(asked == "bytes=0-999" for _, _, asked in server.requests) == 1


def test_a_cache_that_cannot_be_written_is_no_error(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    part = _part(f"{server.url}/a.tar", cache=RangeCache(str(tmp_path / "cache"), 10**6))

    assert read_part(part) == CONTENT[100:1100]
