"""One call per video file, on all cores, in processes that may hang or crash."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from octvideo.data.loading.pool import ReaderPool


def for_each(
    job: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    title: str,
    timeout_seconds: float,
    num_workers: int | None = None,
) -> Iterator[Any]:
    """Call job(*task) for every task, in order, with a progress bar. `job` returns the problem that
    it finds, and raises nothing.

    A file on which a process hangs or dies is given to `job` again, where reading it raises
    DecodeError. num_workers None: a process per core.
    """
    from tqdm import tqdm

    num_workers = min(num_workers or os.cpu_count() or 1, len(tasks))
    if not num_workers:
        return
    pool = ReaderPool(job, num_workers=num_workers, timeout_seconds=timeout_seconds)
    try:
        yield from tqdm(
            pool.run(tasks, ahead=16 * num_workers), total=len(tasks), desc=title, unit="video"
        )
    finally:
        pool.close()
