"""Times of calls, measured in turns, and the confidence in their median."""

import time
from collections.abc import Callable, Mapping, Sequence
from math import comb
from statistics import quantiles
from typing import TypeVar

import torch

Key = TypeVar("Key")


Call = Callable[[], object]
MIN_ROUNDS = 6
"""Six of six rounds fall on one side of the median in 3 % of all cases, five of five in 6 %: no
interval of 95 %."""


def interval_of_median(values: Sequence[float], looks: int = 1) -> tuple[float, float]:
    """A 95 % confidence interval of the median, whose ends are two of the values.

    It holds for any distribution: each of n draws falls on either side of the median like a coin. 0
    and infinity for too few values, fewer than 6 for one look.

    looks: how often values that grow are looked at, at most, to see whether they are enough. The
    5 % are divided among the looks (Bonferroni): all intervals hold the median together.
    """
    ordered, n = sorted(values), len(values)
    left_out, doubt = 0, 2 / 2**n
    if doubt > 0.05 / looks:
        return 0.0, float("inf")
    while doubt + 2 * comb(n, left_out + 1) / 2**n <= 0.05 / looks:
        left_out += 1
        doubt += 2 * comb(n, left_out) / 2**n
    return ordered[left_out], ordered[n - 1 - left_out]


def spread(seconds: Sequence[float]) -> float:
    """The interquartile range of the times over their median."""
    if len(seconds) < 2:
        return 0.0
    lower, middle, upper = quantiles(seconds, n=4, method="inclusive")
    return (upper - lower) / middle


def interleaved(
    calls: Mapping[Key, Call], rounds: int, device: str = "cpu"
) -> dict[Key, list[float]]:
    """Seconds of each call in each round: a, b, c, a, b, c, ..."""
    for call in calls.values():
        call()
    times: dict[Key, list[float]] = {case: [] for case in calls}
    for _ in range(rounds):
        for case, call in calls.items():
            times[case].append(seconds_of(call, device))
    return times


def seconds_of(call: Call, device: str) -> float:
    """Seconds of one call by the clock; on a GPU between two events in its stream, because a call
    returns before its work is done."""
    if device == "cpu":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def peak_megabytes(call: Call) -> float:
    """Peak GPU memory of a call, beyond the memory that is allocated before it."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - held) / 1e6
