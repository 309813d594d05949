"""An HTTP server on this machine that sends ranges of the files of a folder, late and with faults
on demand."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Fault = Callable[[str, int], str | int | None]
"""(path, bytes to send) -> None for a whole answer, a number of bytes after which the connection is
cut, or the status of an error as text, as "503"."""


class RangeServer:
    """`url` serves `folder`. latency: seconds before each answer. fault: decides about every
    request.

    requests: (method, path, Range header) of all that came. connections: the addresses that they
    came from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        latency: float = 0.0,
        fault: Fault | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.folder, self.latency, self.fault = folder, latency, fault
        self.requests: list[tuple[str, str, str]] = []
        self.connections: set[tuple[str, int]] = set()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server((host, 0), handler)
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> "RangeServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that leaves in the middle is part of what is tried here."""


class _Handler(BaseHTTPRequestHandler):
    owner: RangeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        self._answer(sends_body=True)

    def do_HEAD(self) -> None:
        self._answer(sends_body=False)

    def _answer(self, sends_body: bool) -> None:
        asked = self.headers.get("Range", "")
        self.owner.connections.add(self.client_address)
        self.owner.requests.append((self.command, self.path, asked))
        time.sleep(self.owner.latency)
        path = self.owner.folder / unquote(self.path.partition("?")[0]).lstrip("/")
        if not path.is_file():
            self._refuse(404)
            return
        size = path.stat().st_size
        first, last = 0, size - 1
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or size - 1), size - 1)
        if first > last and size:
            self._refuse(416)
            return
        length = last - first + 1
        fault = self.owner.fault(self.path, length) if self.owner.fault else None
        if isinstance(fault, str):
            self._refuse(int(fault))
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", f'"{size}-{path.stat().st_mtime_ns}"')
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if not sends_body:
            return
        with path.open("rb") as file:
            file.seek(first)
            left = length if fault is None else fault
            while left > 0 and (chunk := file.read(min(left, 1 << 20))):
                self.wfile.write(chunk)
                left -= len(chunk)
        if fault is not None:
            self.wfile.flush()
            self.close_connection = True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
