"""Addresses: from the list and from nowhere else."""

import errno
import io
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest

from octvideo.errors import ConfigError
from octvideo.serve.fetch import Fetcher, is_public
from octvideo.serve.limits import Limits, RefusedError


class Server:
    """Answers each connection with these bytes, and counts them."""

    def __init__(self) -> None:
        self.answer, self.seen, self.headers = b"", [], {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    first, *headers = connection.recv(4096).decode().splitlines()
                    self.seen.append(first)
                    self.headers = dict(line.split(": ", 1) for line in headers if line)
                    connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def _fetch(server: Server, address: str, **options) -> bytes:
    origin = f"http://127.0.0.1:{server.port}"
    limits = Limits(max_bytes=1000, receive_seconds=1)
    fetcher = Fetcher([origin], limits, **{"private": True, **options})
    file = io.BytesIO()
    fetcher.fetch(address.replace("ORIGIN", origin), file)
    return file.getvalue()


def test_a_full_disk_of_the_server_is_not_blamed_on_the_address(server):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvideo"
    origin = f"http://127.0.0.1:{server.port}"

    with pytest.raises(RefusedError, match="No space left on device") as refused:
        Fetcher([origin], Limits(), private=True).fetch(f"{origin}/a.mp4", Full())

    assert refused.value.status == 503


def test_a_listed_origin_is_fetched(server):
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvideo"

    assert _fetch(server, "ORIGIN/a/b.mp4?key=1") == b"video"
    assert server.seen == ["GET /a/b.mp4?key=1 HTTP/1.1"]


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1/a",
        "http://127.0.0.1/a",
        "http://localhost:PORT/a",
        "http://127.1:PORT/a",
        "http://2130706433:PORT/a",
        "http://[::1]:PORT/a",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:PORT@example.org/a",
        "http://me:secret@127.0.0.1:PORT/a",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "gopher://127.0.0.1:PORT/_x",
        "//127.0.0.1:PORT/a",
        "http://127.0.0.1:PORT/a b",
        "http://127.0.0.1:PORT/a\r\nHost: other",
        "http://127.0.0.1:99999/a",
        "http://[::1/a",
        "",
        "x" * 10000,
    ],
)
def test_everything_else_is_refused_without_a_connection(server, address):
    with pytest.raises(RefusedError) as refused:
        _fetch(server, address.replace("PORT", str(server.port)))

    assert refused.value.status in (400, 403)
    assert server.seen == []


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://media.test", "media.test"),
        ("https://media.test:443", "media.test"),
        ("https://media.test:80", "media.test:80"),
        ("http://media.test", "media.test"),
        ("http://media.test:443", "media.test:443"),
    ],
)
def test_the_usual_port_of_a_scheme_is_not_in_the_host_that_is_asked_for(
    server, monkeypatch, origin, host
):
    """Signed addresses are signed for the host without it."""
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvideo"
    here = partial(socket.create_connection, ("127.0.0.1", server.port))
    encrypts_nothing = SimpleNamespace(wrap_socket=lambda plain, **_: plain)
    monkeypatch.setattr(Fetcher, "_resolved", lambda *_: "127.0.0.1")
    monkeypatch.setattr(socket, "create_connection", lambda _, timeout: here(timeout))
    monkeypatch.setattr("ssl.create_default_context", lambda: encrypts_nothing)

    Fetcher([origin], Limits()).fetch(f"{origin}/a.mp4", io.BytesIO())

    assert server.headers["Host"] == host


def test_a_listed_name_of_a_private_machine_is_refused_without_a_connection(server):
    with pytest.raises(RefusedError, match="not public"):
        _fetch(server, "ORIGIN/a", private=False)

    assert server.seen == []


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch):
    entries = [(2, 1, 6, "", ("93.184.216.34", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)

    with pytest.raises(RefusedError, match="not public"):
        Fetcher(["http://rebinding.example"], Limits()).fetch(
            "http://rebinding.example/a", io.BytesIO()
        )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, status):
    other = Server()
    location = f"http://127.0.0.1:{other.port}/secret"
    server.answer = (
        f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )

    with pytest.raises(RefusedError, match="redirects are not followed"):
        _fetch(server, "ORIGIN/a")

    assert other.seen == []
    other.close()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n", 422),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001), 413),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\nx", 422),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 422),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 422),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", 422),
        (b"SSH-2.0-OpenSSH\r\n", 422),
        (b"", 422),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"\r\n", 422),
    ],
)
def test_an_answer_of_any_kind_ends_in_a_line(server, answer, status):
    server.answer = answer

    with pytest.raises(RefusedError) as refused:
        _fetch(server, "ORIGIN/a")

    assert refused.value.status == status


def test_a_video_that_ends_early_is_refused_with_its_two_sizes(server):
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"

    with pytest.raises(RefusedError, match="ended after 3 of 10 bytes"):
        _fetch(server, "ORIGIN/a")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_a_video_without_a_length_is_whole_at_its_end(server, answer):
    server.answer = answer

    assert _fetch(server, "ORIGIN/a") == b"abc"


def test_a_server_that_sends_a_byte_now_and_then_is_left_in_time():
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not stop.wait(0.1):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    fetcher = Fetcher([origin], Limits(receive_seconds=1), private=True)
    with pytest.raises(RefusedError, match="took over 1 s"):
        fetcher.fetch(f"{origin}/a", io.BytesIO())
    stop.set()
    thread.join()
    listener.close()


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        *((address, False) for address in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1")),
        *((address, False) for address in ("169.254.169.254", "0.0.0.0", "100.64.0.1")),
        *((address, False) for address in ("224.0.0.1", "255.255.255.255", "198.18.0.1")),
        *((address, False) for address in ("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1")),
        *((address, False) for address in ("::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1")),
    ],
)
def test_public_addresses_are_told_from_others(address, public):
    assert is_public(address) is public


@pytest.mark.parametrize(
    "origin",
    [
        *("media.example.org", "ftp://a", "https://a/path", "https://u@a", "https://a?x", ""),
        *("http://[::1", "http://a:x", "http://a:99999", "http://a\u2100b"),
    ],
)
def test_what_is_no_origin_is_refused_for_the_list(origin):
    with pytest.raises(ConfigError, match="give an origin"):
        Fetcher([origin], Limits())
