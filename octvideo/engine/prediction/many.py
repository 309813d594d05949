"""One network over many videos: a batch holds views of several videos, as they are decoded."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.data.clips.views import DecodedVideo, ViewSpec, view_batches
from octvideo.engine.threads import keep_to, torch_threads

Outputs = NDArray[np.float32]
_MAX_PASSES = 4  # at one time on a CPU
_LONG_PASS = 0.1  # seconds, beside which what a pass costs by itself is small


def mean_outputs(
    compute: Callable[[Tensor], Outputs],
    videos: Iterable[DecodedVideo],
    spec: ViewSpec,
    *,
    batch: int,
    on_cpu: bool,
    any_batch: bool = True,
) -> Iterator[tuple[int, Outputs | str]]:
    """(index, mean over the views of `compute`) of each video in its order; the problem of one that
    cannot be read.

    compute: uint8 (N, 3, T, H, W), N <= batch -> float32 (N, D); on a CPU several threads call it.
    Then each core computes whole passes: threads that wait for one another at every layer lose
    more. Passes then begin with one view, and grow to `batch` while they are short: long ones would
    keep the other cores waiting, at the beginning and at the end. any_batch: False if `compute`
    compiles for each batch size. What it compiles is for one number of threads too, so passes then
    run one after another, each on all threads. Whenever this yields, the caller's own number of
    torch threads is what it was.
    """
    threads = torch.get_num_threads()
    by_core = on_cpu and any_batch
    count = min(threads, _MAX_PASSES) if by_core else 1
    each = max(threads // count, 1)
    try:
        with ThreadPoolExecutor(count, initializer=keep_to, initargs=(each,)) as executor:
            sizes = (1 if by_core else batch), batch
            passes = _Passes(compute, spec, sizes, executor, ahead=count)
            for video in videos:
                with torch_threads(each):
                    passes.add(video)
                yield from passes.finished(ahead=count)
            passes.submit()
            yield from passes.finished(ahead=0)
    finally:
        keep_to(threads)  # of threads that are yet to use torch


@dataclass(slots=True, eq=False)
class _Video:
    """A video of which some views are still to be computed."""

    index: int
    problem: str
    missing: int
    outputs: list[Outputs] = field(default_factory=list)


class _Passes:
    """Views that wait for the network or are in it, and their videos."""

    def __init__(
        self,
        compute: Callable[[Tensor], Outputs],
        spec: ViewSpec,
        sizes: tuple[int, int],
        executor: Executor,
        *,
        ahead: int,
    ) -> None:
        """sizes: views of the first passes, and of the largest."""
        self._compute, self._spec = compute, spec
        self._batch, self._largest = sizes
        self._executor, self._ahead = executor, ahead
        self._views: list[Tensor] = []
        self._owners: list[_Video] = []
        self._waiting: deque[_Video] = deque()
        self._running: deque[tuple[Future[tuple[Outputs, float]], list[_Video]]] = deque()

    def add(self, video: DecodedVideo) -> None:
        """Cut the views of a video; a thread computes each full batch of them."""
        missing = 0 if video.problem else self._spec.num_views
        self._waiting.append(_Video(video.index, video.problem, missing))
        if video.problem:
            return
        for view in view_batches(video.frames, video.clips, self._spec, 1):
            self._views.append(view)
            self._owners.append(self._waiting[-1])
            if len(self._views) >= self._batch:
                self.submit()

    def submit(self) -> None:
        """Compute the waiting views, even if they do not fill a batch."""
        if self._views:
            self._collect(self._ahead)
            future = self._executor.submit(self._timed, torch.cat(self._views))
            self._running.append((future, self._owners))
            self._views, self._owners = [], []

    def finished(self, *, ahead: int) -> Iterator[tuple[int, Outputs | str]]:
        """Finished videos in their order; waits until at most `ahead` passes are running."""
        self._collect(ahead)
        while self._waiting and not self._waiting[0].missing:
            video = self._waiting.popleft()
            yield video.index, video.problem or np.mean(video.outputs, axis=0)

    def _collect(self, ahead: int) -> None:
        while self._running and (len(self._running) > ahead or self._running[0][0].done()):
            future, owners = self._running.popleft()
            outputs, seconds = future.result()
            for video, output in zip(owners, outputs, strict=True):
                video.outputs.append(output)
                video.missing -= 1
            if seconds < _LONG_PASS and len(owners) == self._batch:
                self._batch = min(2 * self._batch, self._largest)

    def _timed(self, views: Tensor) -> tuple[Outputs, float]:
        started = time.perf_counter()
        return self._compute(views), time.perf_counter() - started
