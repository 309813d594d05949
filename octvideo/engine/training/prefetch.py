"""The batches of a run: the next one is copied to the GPU while the GPU computes."""

from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from octvideo.errors import DataError

if TYPE_CHECKING:
    from octvideo.data.loading.batch import Batch


class OnDevice:
    """The batches of a loader, on `device`. On a CPU none is read ahead.

    An error of the loader is raised in the turn of its batch, even if that batch was read ahead.
    """

    def __init__(self, batches: "Iterator[Batch]", device: torch.device) -> None:
        self.batches, self.device = batches, device
        self.taken: deque[Batch | DataError] = deque()
        self.copies: Any = None  # the stream of the copies
        if device.type == "cuda":
            self.copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def next(self) -> "Batch":
        """The next batch, ready for the current stream. Raises what the loader raised for it."""
        item = self.taken.popleft() if self.taken else self._take()
        if isinstance(item, DataError):
            raise item
        if self.copies is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self.copies)
            for tensor in (item.inputs, item.targets, item.indices):
                tensor.record_stream(computing)
        return item

    def prefetch(self, count: int) -> bool:
        """Read the next `count` batches while the GPU is busy; True if it ran out of work."""
        if self.copies is None:
            return False
        try:
            while len(self.taken) < count:
                self.taken.append(self._take())
        except StopIteration:  # the epoch ends with those that are taken
            pass
        return torch.cuda.current_stream(self.device).query()

    def _take(self) -> "Batch | DataError":
        # What a loader draws to start its workers must not shift the dropout of a resumed run.
        stream = torch.cuda.stream(self.copies) if self.copies is not None else nullcontext()
        with torch.random.fork_rng(devices=[]), stream:
            try:
                return next(self.batches).to(self.device)
            except DataError as error:
                return error
