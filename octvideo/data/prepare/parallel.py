"""One call per video file, on all cores, in processes that may hang or crash."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from octvideo.data.loading.one_pass import one_pass
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

    num_workers = processes_of(num_workers)
    if not timeout_seconds > 0:
        raise ConfigError(f"a time-out of {timeout_seconds:g} seconds; give more than 0")
    if not tasks:
        return
    with closing(
        one_pass(job, tasks, num_workers=num_workers, ahead=16, timeout_seconds=timeout_seconds)
    ) as found:
        yield from tqdm(found, total=len(tasks), desc=title, unit="video")


def processes_of(num_workers: int | None) -> int:
    """How many are meant: a process per core for None or 0. Raises ConfigError for fewer."""
    if (num_workers or 0) < 0:
        raise ConfigError(f"{num_workers} workers; give 1 or more, or 0 for one per core")
    return num_workers or os.cpu_count() or 1
