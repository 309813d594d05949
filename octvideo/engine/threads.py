"""The number of CPU threads of torch. More threads than cores cost a factor of 6 in OpenMP's
waiting loops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from octvideo.errors import logger


def available_cores() -> int:
    """The number of cores in this process's affinity mask, not that of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan_threads(num_workers: int, local_world_size: int = 1, cores: int | None = None) -> int:
    """Torch threads per process: local_world_size x (threads + num_workers) <= cores, at least 1.

    A single process takes no more than OMP_NUM_THREADS says; torchrun sets that to 1 for several.
    """
    share = (cores or available_cores()) // local_world_size - num_workers
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if local_world_size == 1 and wanted.isdecimal():
        share = min(share, int(wanted))
    return max(1, share)


def set_threads(num_workers: int, local_world_size: int = 1) -> int:
    """Set and log the plan. num_workers: each process's loader workers that are active together."""
    cores = available_cores()
    threads = plan_threads(num_workers, local_world_size, cores)
    torch.set_num_threads(threads)
    logger.info(
        "%d cores: %d process(es) x (%d torch threads + %d workers)",
        cores,
        local_world_size,
        threads,
        num_workers,
    )
    if local_world_size * (threads + num_workers) > cores:
        logger.warning(
            "more threads and workers than cores: lower DATA_LOADER.NUM_WORKERS or the number of"
            " processes"
        )
    return threads


def keep_to(count: int) -> None:
    """Make torch use this many threads for one operation of this thread.

    torch has a number for each thread, and one for threads that are yet to use it, which this
    changes too; a thread takes that one when it first asks for its own.
    """
    torch.get_num_threads()
    torch.set_num_threads(count)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """A context in which torch uses this many threads for one operation of this thread. A generator
    leaves it before it yields: two that take turns would end theirs in the wrong order."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
