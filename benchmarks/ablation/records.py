"""Runs that are kept, and the table of their means."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from octvideo.report.environment import environment

Run = dict[str, Any]
T_95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
}  # Student's t of two-sided 95 %, by degrees of freedom


def kept(path: Path, run: Callable[[], Run]) -> Run:
    """What `run` returns, from `path` if it has run before: the same command continues an interrupted series."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        result = run()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result | {"cpu_seconds": round(time.process_time() - began, 1)}))
        part.replace(path)
    return json.loads(path.read_text())


def write_summary(path: Path, runs: Iterable[Run], **what: Any) -> None:
    """One run per line, so that a difference between two files can be read."""
    head = json.dumps({**what, "environment": environment()}, indent=1)[:-2]
    lines = ",\n  ".join(json.dumps(run) for run in runs)
    path.write_text(f'{head},\n "runs": [\n  {lines}\n ]\n}}\n')


def table(runs: Iterable[Run], against: Callable[[str], str]) -> str:
    """Markdown: a row per variant with all its seeds, and its difference to the variant that it is held against."""
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        found.setdefault(run["variant"], {})[run["seed"]] = run
    lines = [
        "| variant | MMACs | parameters | top-1 of each seed | mean (sd) | against |",
        "|" + "---|" * 6,
    ]
    for variant, seeds in found.items():
        first, top1, reference = (
            next(iter(seeds.values())),
            [r["top1"] for r in seeds.values()],
            against(variant),
        )
        cells = [
            variant,
            f"{first['macs'] / 1e6:.1f}",
            f"{first['parameters']:,}",
            ", ".join(f"{value:.1f}" for value in top1),
            spread(top1),
            ""
            if variant == reference
            else f"{reference}: {difference(seeds, found.get(reference, {}))}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """The mean and the standard deviation."""
    return f"{statistics.mean(values):.1f}" + (
        f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    )


def difference(runs: Mapping[int, Run], reference: Mapping[int, Run]) -> str:
    """The mean difference over the seeds of both, with Student's 95 % interval."""
    points = [
        run["top1"] - reference[seed]["top1"] for seed, run in runs.items() if seed in reference
    ]
    if len(points) < 2:
        return f"{points[0]:+.1f}" if points else ""
    mean, half = (
        statistics.mean(points),
        T_95[len(points) - 1] * statistics.stdev(points) / len(points) ** 0.5,
    )
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"
