"""Ranges of bytes from files here, over HTTP, and behind handlers of iopath and fsspec."""

import itertools

import fsspec
import pytest
from client_errors import ClientError, caused, told_by_botocore
from folder_handler import FolderHandler
from fsspec.implementations.memory import MemoryFileSystem
from iopath.common.file_io import PathHandler, g_pathmgr

from octvideo.data.storage import http, ranges
from octvideo.data.storage.ranges import (
    exists,
    list_folder,
    read_file,
    read_range,
    size_of,
    state_of,
)
from octvideo.errors import DataError

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr(ranges, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(ranges, "_LONGEST_PAUSE", 0.01)


class _Fetches(FolderHandler):
    """Can fetch whole files only."""

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        raise NotImplementedError

    def _get_local_path(self, path, force=False, **kwargs):
        return str(self._place(path))


@pytest.fixture(params=["local", "http", "opens", "fetches", "fsspec"])
def folder(request, tmp_path, serve, monkeypatch):
    """The address of a folder that holds the file `a file.bin`."""
    (tmp_path / "a file.bin").write_bytes(CONTENT)
    monkeypatch.setattr(g_pathmgr, "_path_handlers", dict(g_pathmgr._path_handlers))
    if request.param == "http":
        return serve(tmp_path).url
    if request.param == "fsspec":
        fsspec.filesystem("memory").pipe("/ranges/a file.bin", CONTENT)
        return "memory://ranges"
    if request.param == "local":
        return str(tmp_path)
    g_pathmgr.register_handler(
        {"opens": FolderHandler, "fetches": _Fetches}[request.param](tmp_path)
    )
    return "opens://"


def _file(folder, name="a file.bin"):
    name = name.replace(" ", "%20") if folder.startswith("http") else name
    return f"{folder.removesuffix('//')}//{name}" if folder == "opens://" else f"{folder}/{name}"


def test_a_range_is_these_bytes_wherever_the_file_lies(folder):
    file = _file(folder)

    assert read_range(file, 300, 1000) == CONTENT[300:1300]
    assert read_range(file, 0, 1) == CONTENT[:1]
    assert read_range(file, len(CONTENT) - 5, 100) == CONTENT[-5:]
    assert read_range(file, len(CONTENT), 100) == b""
    assert size_of(file) == len(CONTENT)
    assert exists(file)


@pytest.mark.parametrize("place", ["local", "http", "fsspec"])
def test_the_version_of_a_file_changes_with_its_bytes_and_not_without(tmp_path, serve, place):
    file = tmp_path / "a.tar"
    store = fsspec.filesystem("memory")

    def write(data):
        file.write_bytes(data)
        store.pipe("/versions/a.tar", data)

    address = {"local": str(file), "http": "", "fsspec": "memory://versions/a.tar"}[place]
    address = address or f"{serve(tmp_path).url}/a.tar"
    write(b"one")
    first = state_of(address)

    assert first == state_of(address) == (3, first.version)
    assert first.version
    write(b"two")
    assert state_of(address).version != first.version


def test_a_server_that_tells_no_tag_tells_the_time(tmp_path, serve, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    server = serve(tmp_path)
    handler = server._server.RequestHandlerClass
    send = handler.send_header

    def send_header(self, name, value):
        if told and name == "ETag":
            send(self, told, "Thu, 01 Jan 2026 00:00:00 GMT")
        elif name != "ETag":
            send(self, name, value)

    monkeypatch.setattr(handler, "send_header", send_header)

    told = "Last-Modified"
    assert state_of(f"{server.url}/file").version == "Thu, 01 Jan 2026 00:00:00 GMT"
    told = ""
    assert state_of(f"{server.url}/file") == (len(CONTENT), "")


def test_a_listing_that_a_storage_keeps_hides_no_new_file(monkeypatch):
    kept, info = {}, MemoryFileSystem.info
    ls = MemoryFileSystem.ls

    def kept_info(files, path):
        return kept.setdefault(path, info(files, path))

    def kept_ls(files, path, **options):
        return kept.setdefault(path, ls(files, path, **options))

    monkeypatch.setattr(MemoryFileSystem, "info", kept_info)
    monkeypatch.setattr(MemoryFileSystem, "ls", kept_ls)
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda files: kept.clear())
    store = fsspec.filesystem("memory")

    store.pipe("/kept/a", b"one")
    assert (size_of("memory://kept/a"), list_folder("memory://kept")) == (3, ["a"])
    store.pipe({"/kept/a": b"three", "/kept/b": b""})
    assert (size_of("memory://kept/a"), list_folder("memory://kept")) == (5, ["a", "b"])


def test_a_file_that_is_not_there_is_not_there_wherever(folder):
    assert not exists(_file(folder, "other.bin"))
    with pytest.raises(FileNotFoundError):
        read_range(_file(folder, "other.bin"), 0, 10)


def test_files_of_a_folder_are_listed_except_over_http(folder):
    if folder.startswith("http"):
        with pytest.raises(DataError, match="does not list its files"):
            list_folder(folder)
    else:
        assert list_folder(folder) == ["a file.bin"]


def test_a_file_larger_than_its_kind_is_refused_without_reading_it(folder):
    with pytest.raises(DataError, match="more than 100 bytes"):
        read_file(_file(folder), 100)


@pytest.mark.parametrize("fault", ["503", "429", 0, 700])
def test_a_server_that_fails_for_a_while_is_asked_again(tmp_path, serve, fault):
    (tmp_path / "file").write_bytes(CONTENT)
    calls = itertools.count()
    server = serve(tmp_path, fault=lambda path, size: fault if next(calls) < 4 else None)

    assert read_range(f"{server.url}/file", 10, 2000) == CONTENT[10:2010]
    assert len(server.requests) == 5


def test_a_storage_that_stays_away_ends_in_one_line(tmp_path, serve, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setattr(ranges, "PATIENCE", 0.05)
    server = serve(tmp_path, fault=lambda path, size: "503")

    with pytest.raises(DataError, match=r"answered 503 .* The same command resumes"):
        read_range(f"{server.url}/file", 0, 10)


class NoCredentialsError(Exception):
    """botocore's has this name."""


@pytest.fixture
def failing(monkeypatch):
    """failing(error, times) lets the next calls of a store of fsspec fail; calls that came."""
    fsspec.filesystem("memory").pipe("/failing/file", CONTENT)
    calls = []

    def failing(error, times):
        for name in ("info", "ls", "cat_file"):
            calls.clear()
            monkeypatch.setattr(MemoryFileSystem, name, fails(name, error, times))
        return calls

    def fails(name, error, times):
        action = getattr(MemoryFileSystem, name)

        def fail(*args, **options):
            calls.append(name)
            if calls.count(name) <= times:
                raise error
            return action(*args, **options)

        return fail

    return failing


_ASKS = [
    lambda folder: read_range(f"{folder}/file", 0, 10) == CONTENT[:10],
    lambda folder: size_of(f"{folder}/file") == len(CONTENT),
    lambda folder: exists(f"{folder}/file"),
    lambda folder: list_folder(folder) == ["file"],
]


@pytest.mark.parametrize("ask", _ASKS)
@pytest.mark.parametrize(
    "error",
    [
        ClientError("no endpoint"),
        OSError("please slow down"),
        told_by_botocore("RequestTimeout", 400),
        caused(OSError("of s3fs"), told_by_botocore("InternalError", 500)),
    ],
)
def test_a_store_whose_client_fails_for_a_while_is_asked_again(failing, ask, error):
    failing(error, 3)

    assert ask("memory://failing")


@pytest.mark.parametrize("ask", _ASKS)
def test_a_store_whose_client_keeps_failing_ends_in_one_line(failing, ask, monkeypatch):
    monkeypatch.setattr(ranges, "PATIENCE", 0.02)
    failing(ClientError("no endpoint:\n  port 9"), 10**6)

    with pytest.raises(DataError, match=r"^memory://failing\S*: no endpoint: port 9; tried for"):
        ask("memory://failing")


@pytest.mark.parametrize("ask", _ASKS)
@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError("unable to locate credentials"),
        told_by_botocore("ExpiredToken", 400),
        caused(OSError("of a handler"), told_by_botocore("InvalidAccessKeyId", 403)),
        caused(PermissionError("of s3fs"), told_by_botocore("SignatureDoesNotMatch", 403)),
        caused(PermissionError("of s3fs"), told_by_botocore("RequestTimeTooSkewed", 403)),
    ],
)
def test_missing_and_wrong_keys_are_one_line_at_once(failing, ask, error):
    calls = failing(error, 10**6)

    with pytest.raises(DataError, match=r"^memory://failing\S*: .*; give the keys"):
        ask("memory://failing")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (told_by_botocore("NoSuchBucket", 404), FileNotFoundError),
        (told_by_botocore("AccessDenied", 403), PermissionError),
        (told_by_botocore("400", 400), DataError),
    ],
)
def test_what_a_store_refuses_for_good_is_said_at_once(failing, error, kind):
    calls = failing(error, 10**6)

    with pytest.raises(kind, match="memory://failing"):
        read_range("memory://failing/file", 0, 10)
    assert len(calls) == 1


def test_a_file_that_a_store_withholds_is_none_that_exists(failing):
    failing(told_by_botocore("403", 403), 10**6)

    assert not exists("memory://failing/file")


def test_a_handler_that_lists_no_files_is_one_line(monkeypatch):
    class Handler(PathHandler):
        def _get_supported_prefixes(self):
            return ["unlisted://"]

    monkeypatch.setattr(g_pathmgr, "_path_handlers", dict(g_pathmgr._path_handlers))
    g_pathmgr.register_handler(Handler())

    with pytest.raises(DataError, match="unlisted://set: its handler lists no files"):
        list_folder("unlisted://set")


def test_what_will_not_pass_is_not_asked_again(tmp_path, serve):
    (tmp_path / "file").write_bytes(CONTENT)
    server = serve(tmp_path, fault=lambda path, size: "403")

    with pytest.raises(OSError, match="answered 403"):
        read_range(f"{server.url}/file", 0, 10)
    assert len(server.requests) == 1


def test_a_range_costs_one_request_on_a_connection_that_is_kept(tmp_path, serve):
    (tmp_path / "file").write_bytes(CONTENT)
    server = serve(tmp_path)
    http.close_connections()

    for offset in range(5):
        read_range(f"{server.url}/file", offset, 10)

    assert len(server.requests) == 5
    assert len(server.connections) == 1


def test_a_server_without_ranges_is_refused_before_it_sends_a_shard(tmp_path, serve, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    server = serve(tmp_path)
    http.close_connections()
    send = http._send
    monkeypatch.setattr(http, "_send", lambda method, url, headers: send(method, url, {}))

    with pytest.raises(OSError, match="sends no byte ranges"):
        read_range(f"{server.url}/file", 5, 10)
    assert not http._idle


def test_a_server_that_does_not_tell_the_size_sends_small_files(tmp_path, serve, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    server = serve(tmp_path)

    def answer(self, sends_body):
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(CONTENT)

    monkeypatch.setattr(server._server.RequestHandlerClass, "_answer", answer)

    assert read_file(f"{server.url}/file", len(CONTENT)) == CONTENT
    with pytest.raises(DataError, match="more than 100 bytes"):
        read_file(f"{server.url}/file", 100)


def test_redirects_are_followed_within_http_only(tmp_path, serve, monkeypatch):
    (tmp_path / "file").write_bytes(CONTENT)
    server, other = serve(tmp_path), serve(tmp_path)
    handler = server._server.RequestHandlerClass

    def redirect(self, sends_body):
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    monkeypatch.setattr(handler, "_answer", redirect)

    target = f"{other.url}/file"
    assert read_range(f"{server.url}/x", 0, 10) == CONTENT[:10]
    target = "file:///etc/passwd"
    with pytest.raises(OSError, match="leaves HTTP"):
        read_range(f"{server.url}/x", 0, 10)
    target = f"{server.url}/x"
    with pytest.raises(OSError, match="redirects"):
        read_range(f"{server.url}/x", 0, 10)


def test_a_scheme_that_nothing_knows_names_what_to_install():
    with pytest.raises(DataError, match=r"nowhere://a: nothing can read this .* iopath"):
        read_range("nowhere://a", 0, 1)
