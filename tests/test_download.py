"""Files come whole or not at all: from a server on this machine that cuts, forgets and lies."""

import errno
import hashlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from octvideo import download
from octvideo.download import cache_folder, cached
from octvideo.errors import CheckpointError
from octvideo.files import OutputError

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        if server.status != 200:
            self.send_error(server.status)
            return
        start, content = 0, server.content
        if (wanted := self.headers.get("Range")) and self.headers["If-Range"] == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) if not server.cuts else start + server.cuts.pop()
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OCTVIDEO_OFFLINE", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.cuts, server.status = [], [], 200
    server.content, server.etag = CONTENT, '"1"'
    server.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched_once_and_its_hash_remembered(server):
    path = cached(server.url, "weights/a.pth")
    again = cached(server.url, "weights/a.pth")

    assert path == again == cache_folder() / "weights" / "a.pth"
    assert path.read_bytes() == CONTENT
    assert path.with_name("a.pth.sha256").read_text().strip() == SHA256
    assert len(server.requests) == 1


def test_a_connection_that_breaks_off_is_resumed(server):
    server.cuts = [70_000, 300_000, 10]

    path = cached(server.url, "a.pth", SHA256[:8])

    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=10-", "bytes=300010-", "bytes=370010-"]
    assert not [name for name in path.parent.iterdir() if ".part" in name.name]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server):
    server.cuts, part = [1000] * 20, cache_folder() / "a.pth.part"
    part.parent.mkdir()
    part.write_bytes(b"older" * 10)
    part.with_name("a.pth.part.etag").write_text('"0"')
    server.cuts = []

    assert cached(server.url, "a.pth", SHA256[:8]).read_bytes() == CONTENT


def test_a_server_that_sends_nothing_more_is_given_up_and_what_came_is_kept(server):
    server.cuts = [0] * 9 + [50_000]

    with pytest.raises(CheckpointError, match=r"ended early; run it again to resume"):
        cached(server.url, "a.pth")

    assert (cache_folder() / "a.pth.part").stat().st_size == 50_000
    server.cuts = []
    assert cached(server.url, "a.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 5)])
def test_what_the_server_answers_is_told(server, status, requests):
    server.status = status

    with pytest.raises(CheckpointError, match=f"{status}.*put the file at .*a.pth"):
        cached(server.url, "a.pth")

    assert len(server.requests) == requests


def test_another_file_than_the_hash_says_is_removed(server):
    with pytest.raises(CheckpointError, match="what came is another file, and was removed"):
        cached(server.url, "a.pth", "00000000")

    assert sorted(p.name for p in cache_folder().iterdir()) == ["a.pth.lock", "a.pth.part.etag"]


def test_a_file_that_is_no_longer_the_remembered_one_is_refused(server):
    path = cached(server.url, "a.pth")
    path.write_bytes(CONTENT + b"more")

    with pytest.raises(CheckpointError, match=r"remove it and a\.pth\.sha256 to fetch it again"):
        cached(server.url, "a.pth")


def test_offline_nothing_is_fetched_and_a_file_put_there_by_hand_is_found(server, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")

    with pytest.raises(CheckpointError, match="OCTVIDEO_OFFLINE is set; put the file of http"):
        cached(server.url, "a.pth")
    (cache_folder() / "a.pth").write_bytes(CONTENT)

    assert cached(server.url, "a.pth", SHA256).read_bytes() == CONTENT
    assert not server.requests


def test_a_full_disk_gets_one_line(server, monkeypatch):
    def write_nothing(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_append", write_nothing)

    with pytest.raises(CheckpointError, match="No space left on device; make room"):
        cached(server.url, "a.pth")


def test_a_file_of_a_folder_that_cannot_be_written_to_is_read(server, monkeypatch):
    def refuse(*_):
        raise OutputError(errno.EROFS, "Read-only file system")

    path = cache_folder() / "a.pth"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    monkeypatch.setattr(download, "_locked", refuse)
    monkeypatch.setattr(download, "write_atomically", refuse)

    assert cached(server.url, "a.pth") == cached(server.url, "a.pth", SHA256[:8]) == path
    with pytest.raises(CheckpointError, match="Read-only file system"):
        cached(server.url, "b.pth")
    with pytest.raises(CheckpointError, match="remove it"):
        cached(server.url, "a.pth", "00000000")
    assert not server.requests


def test_two_that_ask_at_once_fetch_it_once(server):
    server.cuts = [100_000]

    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: cached(server.url, "a.pth"), range(2)))

    assert paths[0] == paths[1]
    assert len(server.requests) == 2  # one of them was cut


def test_a_proxy_is_asked(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")

    assert cached("http://weights.invalid/a.pth", "a.pth").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"OCTVIDEO_HOME": "/a/b"}, "/a/b"),
        ({"OCTVIDEO_HOME": "", "XDG_CACHE_HOME": "/c"}, "/c/octvideo"),
    ],
)
def test_where_files_are_kept(variables, folder, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert str(cache_folder()) == folder


def test_two_processes_that_ask_at_once_fetch_it_once(server):
    """The second one waits for the first, and finds the file; the connection breaks off in
    between."""
    server.cuts = [100_000]
    ask = f"from octvideo.download import cached; print(cached({server.url!r}, 'weights/a.pth'))"

    both = [
        subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = [process.communicate(timeout=120)[0].strip() for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert paths == [str(cache_folder() / "weights" / "a.pth")] * 2
    assert Path(paths[0]).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]
