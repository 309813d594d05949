"""Batches of a dataset; (seed, epoch) alone decides their order and content."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice, pairwise
from typing import Any, Protocol

import torch

from octvideo.data.loading.batch import Batch, Sample
from octvideo.data.loading.pool import ReaderPool
from octvideo.errors import DataError

Bad = dict[str, str]
"""Path -> the cause why it cannot be read."""


class Dataset(Protocol):
    """sample: depends on its arguments (and the dataset's seed) only. It reads files within
    `reading`.

    A dataset may have prefetch(epoch, index), which starts fetching the bytes that `sample` will
    read, and returns at once.
    fingerprint: a digest of the entries and labels in their order; files may move.
    """

    def __len__(self) -> int: ...
    def fingerprint(self) -> str: ...
    def sample(self, epoch: int, index: int) -> Sample: ...


class Loader:
    """The batches of one rank.

    A global batch is the next batch_size * world_size samples of the epoch's order, and rank r
    takes its r-th part: training sees equal global batches on any number of ranks and workers.
    drop_last False keeps the last, smaller batch of an epoch; where it has fewer samples than there
    are ranks, the first of the epoch's order join it, so that each rank has one; shares may
    differ by one. No batch has a sample twice, unless the dataset itself has fewer than there
    are ranks.
    num_workers 0 reads in this process, which a file that hangs or crashes the decoder ends.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        num_workers: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        timeout_seconds: float = 60.0,
        max_bad_ratio: float = 0.05,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.bad: Bad = {}
        """The files that could not be read so far, those of other ranks since `share_bad`."""
        self._num_shared = 0  # of `bad`
        self._shuffle, self._seed, self._drop_last = shuffle, seed, drop_last
        self._rank, self._world_size = rank, world_size
        self._max_bad_ratio, self._pin_memory = max_bad_ratio, pin_memory
        self._num_workers, self._timeout = num_workers, timeout_seconds
        self._pool: ReaderPool | None = None
        self._reading: Generator[Sample, None, None] | None = None  # what the workers are at
        if not len(self):
            size = batch_size * world_size
            raise DataError(
                f"{len(dataset)} samples do not fill one batch of {size}; make TRAIN.BATCH_SIZE"
                " smaller."
            )

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        size = self.batch_samples
        return len(self.dataset) // size if self._drop_last else -(-len(self.dataset) // size)

    @property
    def batch_samples(self) -> int:
        """Samples of a global batch: of all ranks."""
        return self.batch_size * self._world_size

    def ends(self, start_sample: int = 0) -> list[int]:
        """The positions in the epoch's order at which the global batches end that follow its first
        `start_sample` samples.

        After batches of another size, the first one ends where a batch of this size would. If that
        leaves less than a sample per rank, it joins the next.
        """
        size, total = self.batch_samples, len(self.dataset)
        first = start_sample + (-start_sample % size or size)
        if first - start_sample < self._world_size:
            first += size
        if self._drop_last or start_sample >= total:
            return list(range(first, total + 1, size))
        return [*range(first, total, size), total]

    def epoch(self, epoch: int, start_sample: int = 0) -> Iterator[Batch]:
        """The batches of an epoch behind its first `start_sample` samples, which is how an
        interrupted run resumes.

        With workers, the next epoch ends this one. Raises DataError for what is taken of it then,
        and when more than max_bad_ratio of the dataset's files are in `bad`.
        """
        parts = list(self._parts(epoch, start_sample))
        tasks = [(epoch, index) for part, _ in parts for index in part]
        with closing(self._samples(tasks)) as found:
            for part, num_global in parts:
                samples = list(islice(found, len(part)))
                if len(samples) < len(part):
                    raise DataError(
                        f"epoch {epoch}: its loader was closed or began another epoch, which ends"
                        " this one; take one after the other, or each from a Loader of its own."
                    )
                batch = Batch.of(samples, num_global)
                self._note_bad(batch)
                yield batch.pin_memory() if self._pin_memory else batch

    @property
    def has_news(self) -> bool:
        """Whether files are in `bad` of which the other ranks have not been told."""
        return len(self.bad) > self._num_shared

    def share_bad(self, gather: Callable[[Bad], list[Bad]]) -> None:
        """Bring `bad` of all ranks together; each calls it at the same time.

        gather: the value of every rank, on every rank. Raises DataError as `epoch` does, on all
        ranks or on none.
        """
        new = dict(islice(self.bad.items(), self._num_shared, None))
        for found in gather(new):
            self.bad.update(found)
        self._num_shared = len(self.bad)
        self._refuse_too_many()

    def close(self) -> None:
        """End the workers, and the epoch that they read; they start again when needed."""
        self._leave()
        if self._pool:
            self._pool.close()
            self._pool = None

    def _parts(self, epoch: int, start_sample: int) -> Iterator[tuple[list[int], int]]:
        """Dataset positions of each batch of this rank, and the size of the global batch."""
        order, rank, ranks = self._order(epoch), self._rank, self._world_size
        for start, end in pairwise([start_sample, *self.ends(start_sample)]):
            whole = order[start:end]
            if not self._drop_last:
                # Every rank needs a sample of the last batch, which goes on at the beginning.
                whole += [order[i % len(order)] for i in range(ranks - len(whole))]
            own = slice(rank * len(whole) // ranks, (rank + 1) * len(whole) // ranks)
            yield whole[own], len(whole)

    def _order(self, epoch: int) -> list[int]:
        if not self._shuffle:
            return list(range(len(self.dataset)))
        # torch's generator sees 32 bits. An odd factor keeps seeds apart, this one far apart.
        mixed = (self._seed * 0x9E3779B1 + epoch) % 2**32
        generator = torch.Generator().manual_seed(mixed)
        return torch.randperm(len(self.dataset), generator=generator).tolist()

    def _leave(self) -> None:
        if self._reading:
            self._reading.close()

    def _samples(self, tasks: list[tuple[Any, ...]]) -> Generator[Sample, None, None]:
        if not self._num_workers:
            return (self.dataset.sample(*task) for task in tasks)
        self._leave()
        if self._pool is None:
            self._pool = ReaderPool(
                self.dataset.sample,
                num_workers=self._num_workers,
                timeout_seconds=self._timeout,
                prefetch=getattr(self.dataset, "prefetch", None),
            )
        self._reading = self._pool.run(tasks, ahead=2 * max(self.batch_size, self._num_workers))
        return self._reading

    def _note_bad(self, batch: Batch) -> None:
        self.bad.update((problem.path, problem.cause) for problem in batch.problems)
        self._refuse_too_many()

    def _refuse_too_many(self) -> None:
        if len(self.bad) > self._max_bad_ratio * len(self.dataset):
            path, cause = next(reversed(self.bad.items()))
            raise DataError(
                f"{len(self.bad)} of {len(self.dataset)} files cannot be read, the last one {path}"
                f" ({cause}); at most {self._max_bad_ratio:.1%} may be (DATA.MAX_BAD_RATIO)."
                " `octvideo check` lists them all."
            )
