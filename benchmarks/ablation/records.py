"""Runs that are kept, and the table of their means."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from octvideo.errors import DataError
from octvideo.files import write_atomically
from octvideo.study.statistics import difference, spread
from octvideo.study.tables import markdown

Run = dict[str, Any]


def kept(path: Path, run: Callable[[], Run], **settings: Any) -> Run:
    """What `run` returns, from `path` if it has run before: the same command continues an
    interrupted series. Raises DataError for a run of other `settings`."""
    settings = json.loads(json.dumps(settings))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        result = run()
        result["cpu_seconds"] = round(time.process_time() - began, 1)
        content = json.dumps({"settings": settings, "run": result}).encode()
        write_atomically(str(path), lambda file: file.write(content))
    content = json.loads(path.read_text())
    if content.get("settings") != settings:
        raise DataError(
            f"{path}: a run of other settings ({content.get('settings')}, not {settings}); give"
            " another folder, or delete it"
        )
    return content["run"]


def table(runs: Iterable[Run], against: Callable[[str], str]) -> str:
    """Markdown: a row per variant with all its seeds, and its difference to the variant that it is
    held against."""
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        found.setdefault(run["variant"], {})[run["seed"]] = run
    rows = []
    for variant, seeds in found.items():
        first, top1, reference = (
            next(iter(seeds.values())),
            [r["top1"] for r in seeds.values()],
            against(variant),
        )
        change = difference(within_seeds(seeds, found.get(reference, {})), digits=1)
        cells = [
            variant,
            f"{first['macs'] / 1e6:.1f}",
            f"{first['parameters']:,}",
            ", ".join(f"{value:.1f}" for value in top1),
            spread(top1),
            "" if variant == reference else f"{reference}: {change}",
        ]
        rows.append(cells)
    return markdown("variant | MMACs | parameters | top-1 of each seed | mean | against", rows)


def within_seeds(runs: Mapping[int, Run], reference: Mapping[int, Run]) -> list[float]:
    """Differences in top-1 over the seeds of both."""
    return [
        run["top1"] - reference[seed]["top1"] for seed, run in runs.items() if seed in reference
    ]
