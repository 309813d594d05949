"""hf:// addresses against a server on this machine that answers as the Hugging Face Hub does."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import pytest

import octvideo
from octvideo import hub
from octvideo.errors import CheckpointError
from octvideo.publish import write_card

COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """One repository, me/mine, whose files are those of the last commit."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._file(False)

    def do_GET(self) -> None:
        self._file(True)

    def _file(self, with_content: bool) -> None:
        content = self.files.get(self.path.partition("/me/mine/resolve/main/")[2])
        if content is None:
            self._answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
        else:
            facts = {"ETag": '"1"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content))}
            self._answer(content if with_content else b"", 200, facts, len(content))

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/api/repos/create":
            answer = {"url": "http://127.0.0.1/me/mine", "name": "me/mine"}
        elif "/preupload/" in self.path:
            paths = [entry["path"] for entry in json.loads(body)["files"]]
            answer = {
                "files": [
                    {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
                ]
            }
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitOid": COMMIT, "commitUrl": f"http://127.0.0.1/me/mine/commit/{COMMIT}"}
        else:
            answer = {}
        self._answer(json.dumps(answer).encode(), 200, {"Content-Type": "application/json"})

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, content: bytes, status: int, facts: dict[str, str], length: int = -1) -> None:
        self.send_response(status)
        for name, value in facts.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length if length >= 0 else len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[type[Hub]]:
    if find_spec("huggingface_hub") is None:
        pytest.skip("no huggingface_hub")
    constants = import_module("huggingface_hub.constants")
    handler = type("OneHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield handler
    server.shutdown()
    server.server_close()


def test_a_pushed_folder_is_loaded_by_its_address(server, tiny_checkpoint, tmp_path, monkeypatch):
    write_card(str(tiny_checkpoint), tmp_path / "mine")
    library = import_module("huggingface_hub")
    endpoint = import_module("huggingface_hub.constants").ENDPOINT
    api = library.HfApi(endpoint=endpoint, token="hf_test")
    monkeypatch.setattr(library, "HfApi", lambda: api)

    page = hub.push(tmp_path / "mine", "me/mine")

    assert page.endswith("me/mine")
    assert set(server.files) >= {path.name for path in Path(tmp_path / "mine").iterdir()}
    assert octvideo.load("hf://me/mine", device="cpu").class_names == list("abcdef")


def test_a_repository_that_is_not_there_is_one_line(server):
    with pytest.raises(CheckpointError, match="hf://me/none: the Hub answered 404") as caught:
        octvideo.load("hf://me/none")

    assert "\n" not in str(caught.value)
