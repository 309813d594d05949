"""The steps of a request: it is received, decoded, scored; each within its limits."""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from torch import Tensor

from octvideo.data.clips.views import ViewSpec, view_batches
from octvideo.engine.prediction.named import NamedVideo, top_predictions
from octvideo.errors import ConfigError
from octvideo.models.network import alpha_of, config_of
from octvideo.recognizer import Recognizer
from octvideo.serve.decoders import Decoders
from octvideo.serve.fetch import Fetcher
from octvideo.serve.limits import Limits, RefusedError, storing
from octvideo.serve.metrics import Metrics
from octvideo.serve.scoring import Scorer, Scores

_MAX_JSON = 2**14  # bytes of an address


class Service:
    """A network for many clients. `close` ends its processes; unfinished requests then fail.

    origins: servers from which videos may be fetched, none by default; private: even if their
    addresses are not public.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        workers: int,
        batch: int = 8,
        limits: Limits | None = None,
        origins: Iterable[str] = (),
        private: bool = False,
    ) -> None:
        if workers < 1 or batch < 1:
            raise ConfigError(
                f"workers {workers}, batch {batch}: a server needs at least one of each"
            )
        self.limits, self.metrics, self.inside = limits or Limits(), Metrics(), 0
        self.recognizer, self.stopping = recognizer, False
        self._fetcher = Fetcher(origins, self.limits, private=private)
        self._decoders = Decoders(workers, self.limits, self.metrics.restarted)
        compute = partial(recognizer.outputs, scores=True, features=False)
        self._scorer = Scorer(compute, batch, self.metrics.computed)
        self._decoding = ThreadPoolExecutor(workers)
        self._fetching = ThreadPoolExecutor(max(4, workers))
        self._folder = _new_folder()

    def close(self) -> None:
        self.stopping = True
        self._decoding.shutdown(cancel_futures=True)
        self._fetching.shutdown(wait=False, cancel_futures=True)
        self._scorer.close()
        self._decoders.close()
        self._folder.cleanup()

    async def predict(
        self, body: AsyncIterator[bytes], headers: Mapping[str, str], views: str, top_k: str
    ) -> dict[str, Any]:
        """The answer to a POST. views, top_k: as the client wrote them. Raises RefusedError, and
        nothing else for what a client sends."""
        with self._admitted():
            spec, rows = self._spec(views), _rows(top_k)
            try:
                async with asyncio.timeout(self.limits.request_seconds):
                    return await self._answer(body, headers, spec, rows)
            except TimeoutError:
                raise RefusedError(
                    504, "the request was not done in time; try again later"
                ) from None

    async def _answer(
        self, body: AsyncIterator[bytes], headers: Mapping[str, str], spec: ViewSpec, top_k: int
    ) -> dict[str, Any]:
        begin = time.monotonic()
        with storing():
            path = self._new_path()
        future: Future[Scores] = Future()
        try:
            with storing(), path.open("wb") as file:
                name = await self._receive(body, headers, file)
            received = time.monotonic()
            decoded = await asyncio.get_running_loop().run_in_executor(
                self._decoding, self._decode_and_submit, str(path), spec, future
            )
            scores = await asyncio.wrap_future(future)
        finally:
            future.cancel()  # of a request that ends before: the network need not compute it
            path.unlink(missing_ok=True)
        named = NamedVideo(name, top_predictions(scores, self.recognizer.class_names, top_k))
        seconds = {
            "receive": received - begin,
            "decode": decoded - received,
            "score": time.monotonic() - decoded,
        }
        weights = {"checkpoint_sha256": self.recognizer.sha256}
        return named.as_dict() | weights | {"seconds": {k: round(v, 4) for k, v in seconds.items()}}

    def model(self) -> dict[str, Any]:
        """The facts of the network: the digest of its file, by the name that results.json has for
        it, what it is, its input and its output."""
        recognizer = self.recognizer
        options = config_of(recognizer.model)
        return {
            "checkpoint_sha256": recognizer.sha256,
            "network": options.get("name"),
            "alpha": alpha_of(options) if options else None,
            "num_classes": len(recognizer.class_names),
            "multi_label": recognizer.multi_label,
            "head_act": recognizer.head_act,
            "preprocessing": recognizer.preprocessing,
        }

    def _new_path(self) -> Path:
        """Of a request's video. The folder may be gone: systems remove temporary ones that were
        empty for days."""
        if not Path(self._folder.name).is_dir():
            self._folder.cleanup()
            self._folder = _new_folder()
        return Path(self._folder.name) / uuid4().hex

    async def _receive(
        self, body: AsyncIterator[bytes], headers: Mapping[str, str], file: IO[bytes]
    ) -> str:
        """What the video is called: its address, or nothing."""
        is_json = _is_json(headers)
        largest, what = (_MAX_JSON, " of JSON") if is_json else (self.limits.max_bytes, "")
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > largest:
            raise RefusedError(413, f"{announced} bytes{what}; at most {largest} are taken")
        content = bytearray()
        try:
            async with asyncio.timeout(self.limits.receive_seconds):
                size = 0
                async for chunk in body:
                    size += len(chunk)
                    if size > largest:
                        raise RefusedError(
                            413, f"more than {largest} bytes{what}; they are not taken"
                        )
                    if is_json:
                        content += chunk
                    else:
                        file.write(chunk)
        except TimeoutError:
            raise RefusedError(408, f"not received in {self.limits.receive_seconds:g} s") from None
        if not size:
            raise RefusedError(400, "the body is empty; POST the bytes of a video")
        if not is_json:
            return ""
        address = _address(bytes(content))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._fetching, self._fetcher.fetch, address, file)
        return address

    def _decode_and_submit(self, path: str, spec: ViewSpec, scores: "Future[Scores]") -> float:
        """The time at which the video was decoded. Its thread decodes nothing else before the
        network has a place for it: what is decoded takes memory, what waits to be does not."""
        begin = time.monotonic()
        views = self._views(path, spec)
        decoded = time.monotonic()
        self.metrics.decoded(decoded - begin)
        self._scorer.submit(views, scores)
        return decoded

    def _views(self, path: str, spec: ViewSpec) -> Tensor:
        """All views of a video; not on the event loop, where all other requests would wait."""
        video = self._decoders.decode(path, spec)
        if video.problem:
            if not Path(path).exists():  # the system removed it meanwhile, or its client has left
                raise RefusedError(503, "the server lost the video; try again later")
            raise RefusedError(422, f"the video cannot be read: {video.problem}")
        (views,) = view_batches(video.frames, video.clips, spec, spec.num_views)
        return views

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self.stopping or self.inside >= self.limits.max_waiting:
            raise RefusedError(503, "the server is busy; try again in a second")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def _spec(self, views: str) -> ViewSpec:
        if len(views) > 16:
            raise RefusedError(400, "views are clips x crops, as 1x1")
        try:
            spec = self.recognizer.view_spec(views)
        except ConfigError as error:
            raise RefusedError(400, str(error)) from None
        if spec.num_views > self.limits.max_views:
            raise RefusedError(
                400, f"views {views}: at most {self.limits.max_views} are computed here"
            )
        return spec


def _new_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="octvideo_serve_")


def _is_json(headers: Mapping[str, str]) -> bool:
    """Whether the body is an address. Raises RefusedError for a body that wraps a video."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    coding = headers.get("content-encoding", "").strip().lower()
    wrapped = kind if kind.startswith("multipart/") else coding
    if wrapped not in ("", "identity"):
        raise RefusedError(
            415,
            f"the body is {wrapped[:32]}; POST the bytes of the video themselves, as"
            " curl --data-binary @clip.mp4 does",
        )
    return kind == "application/json"


def _rows(top_k: str) -> int:
    """How many classes to name. Here, as a type of FastAPI's would answer in a form of its own."""
    if not (top_k.isascii() and top_k.isdecimal() and len(top_k) < 7 and int(top_k)):
        raise RefusedError(
            400, f"top_k is {top_k[:16]!r}; give how many classes to name, 1 to 999999"
        )
    return int(top_k)


def _address(content: bytes) -> str:
    try:
        address = json.loads(content)["address"]
    except (ValueError, KeyError, TypeError, RecursionError):
        address = None
    if not isinstance(address, str):
        raise RefusedError(
            400, 'JSON must be an object with one string, as {"address": "https://..."}'
        )
    return address
