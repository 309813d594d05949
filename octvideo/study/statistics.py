"""Mean, spread and paired difference of a few runs."""

import statistics
from collections.abc import Sequence

# Student's t, 97.5 %, of 1, 2, ... degrees of freedom.
STUDENT_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of the runs, no confidence interval for another test set."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and both ends of its 95 % interval (Student's t); for one value, all three are it."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, mean, mean
    freedom = len(values) - 1
    # Beyond the table to the second digit.
    t = STUDENT_975[freedom - 1] if freedom <= len(STUDENT_975) else 1.96 + 2.5 / freedom
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def difference(values: Sequence[float], digits: int = 0) -> str:
    """Mean of differences within pairs, and its 95 % interval; "" without a pair."""
    if not values:
        return ""
    mean, low, high = interval(values)
    if len(values) < 2:
        return f"{mean:+.1f}"
    return f"{mean:+.1f} ({low:+.{digits}f} to {high:+.{digits}f})"
