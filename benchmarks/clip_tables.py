"""The tables of docs/results_clips.md, from the records that clips.py keeps."""

import statistics
from pathlib import Path
from typing import Any

from clip_studies import ORDERS, STUDIES, Row, Study
from pages import write_tables

from octvideo.report.tradeoff import Point
from octvideo.study.statistics import difference, independent, spread
from octvideo.study.tables import markdown

HEAD = (
    "network | start | multiply-adds, M | top-1 | mean | against vanilla | against pooled"
    " | against divided | against pooled, divided | in training | probe | reversed | shuffled | one frame"
)
STARTS = {
    "scratch": "scratch",
    "image": "image weights",
    "divided": "image weights, divided",
    "pooled_divided": "pooled image weights, divided",
    "imagenet": "ImageNet",
}
Run = dict[str, Any]
Runs = dict[tuple[int, int], Run]  # By seed and part.


def table(study: Study, content: Run) -> str:
    """Markdown of the networks with their whole runs, and how many there are."""
    by_row = {row: runs_of(study, row, content) for row in study.rows}
    rows = [cells(study, row, by_row, content) for row in study.rows if by_row[row]]
    planned = len(study.rows) * len(study.seeds) * len(study.parts)
    done = f"{sum(map(len, by_row.values()))} of {planned} runs done."
    return f"{markdown(HEAD, rows)}\n\n{done}" if rows else done


def cells(study: Study, row: Row, by_row: dict[Row, Runs], content: Run) -> list[str]:
    runs = by_row[row]
    vanilla = by_row.get(row.vanilla, {}) if row.vanilla != row else {}
    pooled = by_row.get(row.pooled, {}) if row.alpha else {}
    divided, pooled_divided = (
        by_row.get(Row(row.network, row.alpha, start), {}) if row.start == "image" else {}
        for start in ("divided", "pooled_divided")
    )
    cost = content["costs"].get(f"{study.name}, {row.name}")
    top1 = by_seed(study, runs)
    probes = [run["probe"] for run in runs.values() if "probe" in run]
    return [
        row.label,
        STARTS[row.start],
        f"{cost / 1e6:.0f}" if cost else "",
        ", ".join(f"{value:.1f}" for value in top1),
        spread(top1) if top1 else "",
        difference(differences(runs, vanilla), 1),
        difference(differences(runs, pooled), 1),
        difference(differences(runs, divided), 1),
        difference(differences(runs, pooled_divided), 1),
        mean_of([run["curve"][-1][1] for run in runs.values()]),
        mean_of(probes),
        *(mean_in(order, runs) for order in ORDERS),
    ]


def points(study: Study, content: Run) -> list[Point]:
    """The networks that are whole in a seed, for a picture of top-1 against GFLOPs."""
    found = []
    for row in study.rows:
        top1 = by_seed(study, runs_of(study, row, content))
        if top1:
            macs = content["costs"][f"{study.name}, {row.name}"]
            family = f"{row.network}, {STARTS[row.start]}"
            found.append(Point.of_runs(family, row.alpha, macs / 1e9, top1))
    return found


def mean_in(order: str, runs: Runs) -> str:
    """The mean top-1 with the frames in this order."""
    return mean_of([run[order][1] for run in runs.values()])


def mean_of(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f}" if values else ""


def runs_of(study: Study, row: Row, content: Run) -> Runs:
    """The whole runs."""
    return {
        (run["seed"], run["part"]): run
        for run in content["runs"]
        if (run["study"], run["row"]) == (study.name, row.name) and "videos" in run
    }


def top1_of(run: Run) -> float:
    return float(run["curve"][-1][3])


def by_seed(study: Study, runs: Runs) -> list[float]:
    """Top-1 over the clips of all parts, for each seed whose parts are done."""
    found = []
    for seed in study.seeds:
        own = [runs[seed, part] for part in study.parts if (seed, part) in runs]
        if len(own) == len(study.parts):
            videos = sum(run["videos"] for run in own)
            found.append(sum(top1_of(run) * run["videos"] for run in own) / videos)
    return found


def differences(runs: Runs, others: Runs) -> list[float]:
    """Of the runs that share seed and part, as `independent` makes them of each part."""
    both = sorted(runs.keys() & others.keys())
    return independent(
        (part, top1_of(runs[seed, part]) - top1_of(others[seed, part])) for seed, part in both
    )


def write_page(page: Path, content: Run) -> None:
    tables = {f"clips table {study.name}": table(study, content) for study in STUDIES.values()}
    write_tables(page, tables)
