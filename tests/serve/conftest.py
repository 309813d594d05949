"""A server on the loopback, in a thread of this process."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import uvicorn

import octvideo
import octvideo.recognizer
from octvideo.data.video.encode import write_video
from octvideo.recognizer.load import load_hashed
from octvideo.serve.app import run_server
from octvideo.serve.limits import Limits
from octvideo.serve.service import Service


class Answer(NamedTuple):
    status: int
    content: Any
    headers: dict[str, str]


class Client:
    """One request per connection."""

    def __init__(self, port: int, service: Service) -> None:
        self.port, self.service = port, service

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            kind = answer.headers.get("content-type", "")
            return Answer(
                answer.status,
                json.loads(content) if "json" in kind else content.decode(),
                dict(answer.headers),
            )
        finally:
            connection.close()

    def post(self, body: bytes, query: str = "") -> Answer:
        return self.ask("POST", f"/predict{query}", body)

    def fetch(self, address: str) -> Answer:
        body = json.dumps({"address": address})
        return self.ask("POST", "/predict", body, **{"Content-Type": "application/json"})


@contextmanager
def served(
    recognizer: octvideo.recognizer.Recognizer, *, stop_seconds: int = 20, **options: Any
) -> Iterator[Client]:
    service = Service(recognizer, **{"workers": 1, **options})
    configs: list[uvicorn.Config] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "uvicorn.run", lambda *args, **kw: configs.append(uvicorn.Config(*args, **kw))
        )
        run_server(service, "127.0.0.1", 0, stop_seconds=stop_seconds)
    server = uvicorn.Server(configs[0])
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Client(server.servers[0].sockets[0].getsockname()[1], service)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def recognizer(tiny_checkpoint: Path) -> octvideo.recognizer.Recognizer:
    return load_hashed(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (20, 40, 48, 3), np.uint8)
    write_video(path, frames, fps=10)
    return path


@pytest.fixture(scope="session")
def client(recognizer: octvideo.recognizer.Recognizer) -> Iterator[Client]:
    """With limits that tests can reach."""
    limits = Limits(
        max_bytes=200_000,
        max_video_seconds=5,
        max_pixels=512 * 512,
        max_views=6,
        receive_seconds=2,
        decode_seconds=20,
        request_seconds=100,
    )
    with served(recognizer, limits=limits) as one:
        yield one


@pytest.fixture
def serve() -> Callable[..., Any]:
    return served
