"""One pass over files: the processes that read them end with it."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from octvideo.data.loading.pool import ReaderPool


def one_pass(
    read: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    num_workers: int,
    ahead: int,
    timeout_seconds: float,
    prefetch: Callable[..., None] | None = None,
) -> Generator[Any, None, None]:
    """read(*task) for each task, in order: see `ReaderPool`. num_workers: 0 reads in this process.
    ahead: the results of each worker that wait."""
    if not num_workers or not tasks:
        yield from (read(*task) for task in tasks)
        return
    num_workers = min(num_workers, len(tasks))
    with closing(
        ReaderPool(
            read, num_workers=num_workers, timeout_seconds=timeout_seconds, prefetch=prefetch
        )
    ) as pool:
        yield from pool.run(tasks, ahead=ahead * num_workers)
