"""Byte ranges over HTTP on persistent connections, so that a range costs one round trip."""

import http.client
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

TIMEOUT = 30.0  # seconds without a byte
_MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_KEPT = 32


class TransientError(OSError):
    """A failure that may pass: a lost connection, a busy server."""


def read_range(url: str, offset: int, size: int) -> bytes:
    """At most `size` bytes from `offset`; fewer only at the end of the file.

    Raises TransientError, FileNotFoundError, or OSError for a failure that is permanent.
    """
    answer = _request("GET", url, {"Range": f"bytes={offset}-{offset + size - 1}"})
    with answer.connection:
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""
        length = int(answer.response.headers.get("Content-Length") or -1)
        is_whole_file = answer.status == HTTPStatus.OK
        if is_whole_file and not (offset == 0 and length <= size):
            raise OSError(
                f"{url}: the server sends no byte ranges; use one that answers Range requests"
            )
        if length > size:
            raise OSError(f"{url}: the server sends {length:,} bytes where {size:,} were asked for")
        try:
            data = answer.response.read(size)
        except (http.client.HTTPException, OSError) as error:
            raise TransientError(f"{url}: {_line(error)}") from error
        if 0 <= length != len(data):
            raise TransientError(f"{url}: the connection ended early")
        answer.connection.keep(answer.response)
        return data


def state_of(url: str) -> tuple[int, str]:
    """(bytes of the file, its ETag, else when it was last modified, else ""). Raises as
    `read_range`."""
    answer = _request("HEAD", url, {})
    with answer.connection:
        answer.response.read()
        answer.connection.keep(answer.response)
        headers = answer.response.headers
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        return int(headers.get("Content-Length") or 0), version


def close_connections() -> None:
    """Close all idle connections."""
    with _lock:
        while _idle:
            _idle.pop().close()


class _Connection:
    """A connection in use; the context's end closes it unless it is kept for the next range."""

    def __init__(self, parts: SplitResult) -> None:
        """Take a kept connection to this server, or make one."""
        self.server, self.was_kept, self._is_kept = (parts.scheme, parts.netloc), True, False
        self.client: http.client.HTTPConnection
        with _lock:
            found = next((idle for idle in _idle if idle.server == self.server), None)
            if found:
                _idle.remove(found)
        if found:
            self.client = found.client
            return
        self.was_kept = False
        secure, proxy = parts.scheme == "https", _proxy(parts)
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        host, port = (proxy or parts).hostname or "", (proxy or parts).port
        self.client = kind(host, port, timeout=TIMEOUT)
        if proxy and secure:
            self.client.set_tunnel(parts.hostname or "", parts.port)

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_kept:
            self.close()

    def keep(self, response: http.client.HTTPResponse) -> None:
        """Keep the connection for the next range, if this response has been read to its end."""
        if not response.isclosed() or response.will_close:
            return
        self._is_kept = True
        with _lock:
            _idle.append(self)
            surplus = _idle.pop(0) if len(_idle) > _MAX_KEPT else None
        if surplus:
            surplus.close()

    def close(self) -> None:
        with suppress(OSError):
            self.client.close()


_idle: list[_Connection] = []
_lock = threading.Lock()


class _Answer(NamedTuple):
    connection: _Connection
    response: http.client.HTTPResponse
    status: int


def _request(method: str, url: str, headers: dict[str, str]) -> _Answer:
    """The answer 200, 206 or 416, behind redirects. Raises for others as `read_range`."""
    for _ in range(_MAX_REDIRECTS):
        answer = _send(method, url, headers)
        status, location = answer.status, answer.response.headers.get("Location")
        if status in (200, 206, 416):
            return answer
        answer.connection.close()
        if status in _REDIRECTS and location:
            url = urljoin(url, location)
            if urlsplit(url).scheme not in ("http", "https"):
                raise OSError(f"{url}: a redirect that leaves HTTP is not followed")
            continue
        text = f"{url}: the server answered {status} {answer.response.reason}"
        if status in (404, 410):
            raise FileNotFoundError(text)
        raise TransientError(text) if status >= 500 or status in (408, 429) else OSError(text)
    raise OSError(f"{url}: more than {_MAX_REDIRECTS} redirects")


def _send(method: str, url: str, headers: dict[str, str]) -> _Answer:
    """The answer, on a kept connection, or a new one where the server has closed that."""
    parts = urlsplit(url)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    if parts.scheme == "http" and _proxy(parts):
        target = url
    while True:
        connection = _Connection(parts)
        try:
            connection.client.request(method, target, headers={"User-Agent": "octvideo", **headers})
            response = connection.client.getresponse()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            if not connection.was_kept:
                raise TransientError(f"{url}: {_line(error)}") from error
        else:
            return _Answer(connection, response, response.status)


def _proxy(parts: SplitResult) -> SplitResult | None:
    found = getproxies().get(parts.scheme)
    if not found or proxy_bypass(parts.netloc):
        return None
    return urlsplit(found if "://" in found else f"http://{found}")


def _line(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
