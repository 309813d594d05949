"""A run over many videos: decoded by processes, scored in common passes, written as they come,
continued."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.data.clips.views import DecodedVideo, ViewSpec, decode_entry
from octvideo.data.lists.video_list import VideoEntry
from octvideo.data.loading.pool import ReaderPool
from octvideo.data.reading import DecodeError
from octvideo.engine.evaluation.journal import fingerprint, stamp_of
from octvideo.engine.prediction.many import mean_outputs
from octvideo.engine.prediction.named import NamedVideo, top_predictions
from octvideo.engine.prediction.outputs import (
    FEATURES,
    PREDICTIONS,
    Output,
    feature_row,
    open_output,
    prediction_row,
    window_row,
)
from octvideo.engine.prediction.rows import Row
from octvideo.engine.threads import available_cores
from octvideo.errors import ConfigError

Listed = str | Path | VideoEntry
Progress = Callable[[int, int], None]


class Network(Protocol):
    """What names the videos: `octvideo.recognizer.Recognizer`."""

    class_names: list[str]
    device: torch.device

    def fingerprint(self) -> str: ...
    def view_spec(self, views: str) -> ViewSpec: ...
    def outputs(self, views: Tensor, *, scores: bool, features: bool) -> NDArray[np.float32]:
        """uint8 (N, 3, T, H, W) -> (N, classes), (N, channels), or one beside the other."""


@dataclass(frozen=True, slots=True)
class How:
    """The arguments of `Recognizer.predict_many` that decide what is computed. top_k None: features
    alone."""

    views: str
    top_k: int | None
    features: bool
    workers: int | None = None
    batch: int = 8
    timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.workers or 0) < 0 or not self.timeout_seconds > 0:
            raise ConfigError(
                f"batch {self.batch}, workers {self.workers}, timeout_seconds"
                f" {self.timeout_seconds}: a batch holds at least one view, workers are 0 or more,"
                " a time-out is positive"
            )


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """Where predictions and features go, and whether the rows that are there count."""

    predictions: Path | None
    features: Path | None
    resume: bool = True


def run_many(
    network: Network, paths: Iterable[Listed], how: How, files: OutputFiles, progress: Progress
) -> Iterator[NamedVideo]:
    """See `Recognizer.predict_many`. Wrong arguments and foreign files are an error at once, before
    the first video."""
    spec = network.view_spec(how.views)
    entries = {entry.path: entry for entry in map(_entry, paths)}
    outputs = _Outputs(network, files, how, video_digests(entries))
    left = [entry for path, entry in entries.items() if not outputs.have(path)]
    videos = _named(network, left, spec, how)
    return _written(videos, outputs, len(entries) - len(left), len(entries), progress)


def run_windows(
    network: Any,
    paths: Iterable[Listed],
    files: OutputFiles,
    window_seconds: float,
    stride_seconds: float | None,
    progress: Progress,
) -> Iterator[NamedVideo]:
    """`Recognizer.features` over time of each file, into files.features; yields the videos that
    cannot be read.

    A video streams through this process: one of any length can be read, and one that hangs the
    decoder is not survived.
    """
    assert files.features
    names = [_entry(listed).path for listed in paths]
    digests = video_digests(names)
    stride = window_seconds if stride_seconds is None else stride_seconds
    made_with = {
        "window_seconds": str(window_seconds),
        "stride_seconds": str(stride),
        "weights": network.fingerprint(),
    }
    file = open_output(files.features, FEATURES, made_with, digests, overwrite=not files.resume)
    with file:
        for done, (path, digest) in enumerate(digests.items()):
            progress(done, len(digests))
            if file.has(digest):
                continue
            try:
                found = network.features(path, window_seconds=window_seconds, stride_seconds=stride)
            except DecodeError as error:
                found = error.cause
                yield NamedVideo(path, (), found)
            file.add(window_row(path, found, digest))
        progress(len(digests), len(digests))
        file.finish()


def _written(
    videos: Iterator[NamedVideo], outputs: "_Outputs", done: int, total: int, progress: Progress
) -> Iterator[NamedVideo]:
    with outputs:
        progress(done, total)
        for count, video in enumerate(videos, start=done + 1):
            outputs.add(video)
            progress(count, total)
            yield video
        outputs.finish()


class _Outputs:
    """The files of a run, open for writing."""

    def __init__(
        self, network: Network, files: OutputFiles, how: How, digests: Mapping[str, str]
    ) -> None:
        self._digests = digests
        self._files: list[tuple[Output, Callable[[NamedVideo, str], Row]]] = []
        if not (files.predictions or files.features):
            return
        made_with = {"views": how.views, "weights": network.fingerprint()}
        with ExitStack() as stack:
            if files.predictions:
                k = min(how.top_k or 0, len(network.class_names))
                made, path = made_with | {"top_k": str(k)}, files.predictions
                file = open_output(
                    path, PREDICTIONS, made, digests, top_k=k, overwrite=not files.resume
                )
                self._files.append((stack.enter_context(file), prediction_row))
            if files.features:
                file = open_output(
                    files.features, FEATURES, made_with, digests, overwrite=not files.resume
                )
                self._files.append((stack.enter_context(file), feature_row))
            self._stack = stack.pop_all()

    _stack = ExitStack()

    def __enter__(self) -> "_Outputs":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def have(self, path: str) -> bool:
        """Whether every file holds this video."""
        digest = self._digests[path]
        return bool(self._files) and all(file.has(digest) for file, _ in self._files)

    def add(self, video: NamedVideo) -> None:
        digest = self._digests[video.path]
        for file, row in self._files:
            if not file.has(digest):
                file.add(row(video, digest))

    def finish(self) -> None:
        for file, _ in self._files:
            file.finish()


def video_digests(paths: Iterable[str]) -> dict[str, str]:
    """16 hex digits of each path, with size and time of change of what is there."""
    return {path: fingerprint(path=path, stamp=stamp_of(path)) for path in paths}


def weights_digest(state: Mapping[str, Tensor], facts: object) -> str:
    """16 hex digits of tensors by name, and of plain values."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, value in state.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _entry(listed: Listed) -> VideoEntry:
    return listed if isinstance(listed, VideoEntry) else VideoEntry(str(listed))


def _named(
    network: Network, entries: Sequence[VideoEntry], spec: ViewSpec, how: How
) -> Iterator[NamedVideo]:
    compute = partial(network.outputs, scores=how.top_k is not None, features=how.features)
    count = len(network.class_names) if how.top_k is not None else 0
    videos = _decoded(entries, spec, how.workers, how.timeout_seconds)
    on_cpu = network.device.type == "cpu"
    for index, found in mean_outputs(compute, videos, spec, batch=how.batch, on_cpu=on_cpu):
        path = entries[index].path
        if isinstance(found, str):
            yield NamedVideo(path, (), found)
        else:
            named = top_predictions(found[:count], network.class_names, how.top_k or 0)
            yield NamedVideo(path, named, "", found[count:] if how.features else None)


def _decoded(
    entries: Sequence[VideoEntry], spec: ViewSpec, workers: int | None, timeout_seconds: float
) -> Iterator[DecodedVideo]:
    """In the order of the entries; by default in processes, one per core, and a single video in
    this process."""
    if workers is None:
        workers = available_cores() if len(entries) > 1 else 0
    workers = min(workers, len(entries))
    decode, tasks = partial(decode_entry, spec), list(enumerate(entries))
    if not workers:
        yield from (decode(*task) for task in tasks)
        return
    pool = ReaderPool(decode, num_workers=workers, timeout_seconds=timeout_seconds)
    try:
        yield from pool.run(tasks, ahead=2 * workers)
    finally:
        pool.close()
