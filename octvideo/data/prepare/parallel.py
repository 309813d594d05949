"""One call per video file, on all cores, in processes that may hang or crash."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from octvideo.data.loading.pool import ReaderPool
from octvideo.errors import ConfigError


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
    DecodeError. num_workers: as for `processes_of`. Raises ConfigError as it does, and for a
    time-out of 0 or less.
    """
    from tqdm import tqdm

    num_workers = min(processes_of(num_workers), len(tasks))
    if not timeout_seconds > 0:
        raise ConfigError(f"a time-out of {timeout_seconds:g} seconds; give more than 0")
    if not num_workers:
        return
    pool = ReaderPool(job, num_workers=num_workers, timeout_seconds=timeout_seconds)
    try:
        yield from tqdm(
            pool.run(tasks, ahead=16 * num_workers), total=len(tasks), desc=title, unit="video"
        )
    finally:
        pool.close()


def processes_of(num_workers: int | None) -> int:
    """How many are meant: a process per core for None or 0. Raises ConfigError for fewer."""
    if (num_workers or 0) < 0:
        raise ConfigError(f"{num_workers} workers; give 1 or more, or 0 for one per core")
    return num_workers or os.cpu_count() or 1
