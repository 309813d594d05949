"""Runs of a study on disk, one per line, and the statistics of its tables."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Run = dict[str, Any]
STUDENT_975 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
)  # of 1, 2, ... degrees


def write_runs(path: Path, head: Mapping[str, Any], runs: Iterable[Run]) -> None:
    """JSON in which a new run is a new line, so that a difference between two files can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    path.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "runs": [\n{lines}\n ]\n}}\n')


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of the runs, which is no interval of what another test set would give."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def difference(values: Sequence[float], digits: int = 0) -> str:
    """Mean of differences within pairs, and its 95 % interval by Student's t."""
    if not values:
        return ""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.1f}"
    freedom = len(values) - 1
    # Beyond the table to the second digit.
    t = STUDENT_975[freedom - 1] if freedom <= len(STUDENT_975) else 1.96 + 2.5 / freedom
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.1f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def markdown(columns: str, rows: Iterable[Sequence[str]]) -> str:
    """A table. columns: its head, "network | top-1"."""
    lines = [f"| {columns} |", "|" + "---|" * (columns.count("|") + 1)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
