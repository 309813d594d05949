"""Mean, spread and paired difference of a few runs."""

import statistics
from collections.abc import Hashable, Iterable, Sequence

# Student's t, 97.5 %, of 1, 2, ... degrees of freedom.
ROUNDED = 1e-4  # of the percentages in results.json
STUDENT_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of the values, of single runs or of seeds; no confidence interval
    for another test set."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def independent(pairs: Iterable[tuple[Hashable, float]]) -> list[float]:
    """The differences that `interval` takes: the mean over the seeds of each fold, or those of the
    seeds where there is one fold.

    pairs: fold and difference of each two runs. Runs of one fold share their test clips. Taken for
    independent ones, 4 folds x 3 seeds give an interval that misses 18 times of 100, not 5, where
    folds differ as much as seeds do.
    """
    folds: dict[Hashable, list[float]] = {}
    for fold, value in pairs:
        folds.setdefault(fold, []).append(value)
    if len(folds) == 1:
        return next(iter(folds.values()))
    return [statistics.mean(values) for values in folds.values()]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and both ends of its 95 % interval (Student's t); all three are the mean for one value,
    and for equal ones: accuracies of few videos are coarse, and that they coincide is no
    certainty."""
    mean = statistics.mean(values)
    if len(values) < 2 or statistics.stdev(values) < ROUNDED:
        return mean, mean, mean
    freedom = len(values) - 1
    # Beyond the table to the second digit.
    t = STUDENT_975[freedom - 1] if freedom <= len(STUDENT_975) else 1.96 + 2.5 / freedom
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def difference(values: Sequence[float], digits: int = 0) -> str:
    """Mean of `independent` differences, and its 95 % interval where there is one; "" without
    differences."""
    if not values:
        return ""
    mean, low, high = interval(values)
    if low == high:
        return f"{mean:+.1f}"
    return f"{mean:+.1f} ({low:+.{digits}f} to {high:+.{digits}f})"
