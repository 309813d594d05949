"""One thread runs the network, on batches of all waiting requests."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scores = NDArray[np.float32]


class Scorer:
    """compute: uint8 (N, 3, T, H, W), N <= batch -> float32 (N, classes). computed: is called with
    each N.

    Requests gather while a forward pass runs; the next pass holds up to `batch` views of them. No
    request waits for others to arrive. Views are held for two passes alone, the one that runs and
    the next: whoever has more waits with them in `submit`.
    """

    def __init__(
        self, compute: Callable[[Tensor], Scores], batch: int, computed: Callable[[int], None]
    ) -> None:
        self._compute, self._batch, self._computed = compute, batch, computed
        self._waiting: queue.SimpleQueue[tuple[Tensor, Future[Scores]] | None] = queue.SimpleQueue()
        self._submitted = self._taken = 0  # views so far
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, views: Tensor, scores: "Future[Scores]") -> None:
        """Set `scores` to the mean (classes,) over the views (n, 3, T, H, W), unless it is
        cancelled before. Returns when the next pass has a place for them."""
        with self._moved:
            before = self._submitted
            self._submitted += len(views)
            self._waiting.put((views, scores))
            self._moved.wait_for(lambda: before - self._taken < self._batch)

    def close(self) -> None:
        """Finish the submitted requests, then stop."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            over = self._next_pass()

    def _next_pass(self) -> bool:
        """Whether the end has come. Nothing of this pass is held while the next one is awaited."""
        group, over = self._take()
        with self._moved:
            self._taken += sum(len(views) for views, _ in group)
            self._moved.notify_all()
        group = [entry for entry in group if entry[1].set_running_or_notify_cancel()]
        try:
            means = self._means([views for views, _ in group])
        except Exception as error:
            for _, future in group:
                future.set_exception(error)
        else:
            for (_, future), mean in zip(group, means, strict=True):
                future.set_result(mean)
        return over

    def _take(self) -> tuple[list[tuple[Tensor, "Future[Scores]"]], bool]:
        """Requests of about a batch, at least one, and whether the end has come."""
        group: list[tuple[Tensor, Future[Scores]]] = []
        size = 0
        while size < self._batch:
            try:
                entry = self._waiting.get(block=not group)
            except queue.Empty:
                break
            if entry is None:
                return group, True
            group.append(entry)
            size += len(entry[0])
        return group, False

    def _means(self, groups: list[Tensor]) -> list[Scores]:
        if not groups:
            return []
        views = groups[0] if len(groups) == 1 else torch.cat(groups)
        chunks = torch.split(views, self._batch)
        for chunk in chunks:
            self._computed(len(chunk))
        scores = np.concatenate([self._compute(chunk) for chunk in chunks])
        means, first = [], 0
        for group in groups:
            means.append(scores[first : first + len(group)].mean(axis=0))
            first += len(group)
        return means
