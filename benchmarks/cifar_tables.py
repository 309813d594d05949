"""The tables of docs/results_cifar10.md, from the records that cifar10.py keeps."""

import statistics
from itertools import product
from pathlib import Path
from typing import Any

from cifar_studies import REPLICATION, STUDIES, Study
from pages import write_tables

from octvideo.study.statistics import difference, spread
from octvideo.study.tables import markdown

SHOWN_EPOCHS = (1, 2, 3, 5, 10, 15, 20, 25, 30)
Run = dict[str, Any]


def table(study: Study, content: Run) -> str:
    """Markdown of the networks with their whole runs, and sentences on the other runs."""
    whole, under_way = runs_by_row(study, content, True), runs_by_row(study, content, False)
    controls = {row: whole[row] for row in controls_of(study)}
    known = content.get("costs", {}).get(study.name, {})
    shown = [row for row in study.rows if whole[row] or row in known]
    rows = [row_cells(study, row, whole[row], controls, known.get(row, {})) for row in shown]
    parts = [f"{sum(map(len, whole.values()))} of {len(study.rows) * len(study.seeds)} runs done."]
    for row, runs in under_way.items():
        for run in runs.values():
            reached = f"{run['curve'][-1][3]:.1f} % at epoch {len(run['curve'])} of {run['epochs']}"
            parts.append(f"{row}, seed {run['seed']}: {reached}.")
    columns = "network | multiply-adds, M | parameters, M | s per epoch | time | top-1 of each run"
    against = " | ".join(f"against {row}" for row in controls)
    head = f"{columns} | mean | {against} | replication"
    return "\n\n".join(filter(None, [markdown(head, rows) if rows else "", " ".join(parts)]))


def controls_of(study: Study) -> list[str]:
    """The first row, and the one that has the octave's pools alone."""
    first = next(iter(study.rows))
    return [row for row in study.rows if row in (first, f"{first}, pooled")]


def runs_by_row(study: Study, content: Run, whole: bool) -> dict[str, dict[int, Run]]:
    found: dict[str, dict[int, Run]] = {row: {} for row in study.rows}
    for run in content["runs"]:
        if run["study"] == study.name and run["row"] in found and is_whole(run) == whole:
            found[run["row"]][run["seed"]] = run
    return found


def is_whole(run: Run) -> bool:
    return len(run["curve"]) == run["epochs"]


def accuracies(runs: dict[int, Run]) -> dict[int, float]:
    """Seed -> top-1 after the last epoch."""
    return {seed: run["curve"][-1][3] for seed, run in sorted(runs.items())}


def differences(top1: dict[int, float], first: dict[int, float]) -> list[float]:
    """Of the runs that share a seed."""
    return [value - first[seed] for seed, value in top1.items() if seed in first]


def row_cells(
    study: Study, row: str, runs: dict[int, Run], controls: dict[str, dict[int, Run]], cost: Run
) -> list[str]:
    top1 = accuracies(runs)
    seconds, times = cost.get("epoch_seconds"), cost.get("times")
    first = next(iter(controls))
    words = dict(word.split("=", 1) for word in study.rows[row])
    published = REPLICATION.get((words["MODEL.ARCH"], float(words["OCTCONV.ALPHA"])))
    return [
        row,
        f"{cost['macs'] / 1e6:.1f}" if cost else "",
        f"{cost['parameters'] / 1e6:.2f}" if cost else "",
        f"{seconds:.0f}" if seconds else "",
        "{:.2f} ({:.2f} to {:.2f})".format(*times) if times and row != first else "",
        ", ".join(f"{value:.1f}" for value in top1.values()),
        spread(list(top1.values())) if top1 else "",
        *(
            difference(differences(top1, accuracies(own)), 1) if row not in (first, name) else ""
            for name, own in controls.items()
        ),
        f"{published:.2f}" if published else "",
    ]


def curves(study: Study, content: Run) -> str:
    """Training and test top-1 by epoch, the mean over the runs that came so far, and where the test
    loss was lowest."""
    rows = []
    for row in study.rows:
        runs = [r for r in content["runs"] if (r["study"], r["row"]) == (study.name, row)]
        for number, name in ((1, "train"), (3, "test")):
            cells = [mean_at(runs, epoch, number) for epoch in SHOWN_EPOCHS]
            if any(cells):
                lowest = lowest_loss(runs) if name == "test" else ""
                rows.append([row, name, *cells, lowest])
    epochs = " | ".join(map(str, SHOWN_EPOCHS))
    return markdown(f"network | top-1 | {epochs} | lowest test loss at", rows) if rows else ""


def verdict(study: Study, content: Run) -> str:
    """One sentence: what the first network reaches, and what the others differ by."""
    whole = runs_by_row(study, content, True)
    name, *others = study.rows
    reached = {row: accuracies(runs) for row, runs in whole.items()}
    if not reached[name]:
        return "No run is done."
    seeds = len(study.seeds)
    first = f"{spread(list(reached[name].values()))} % ({len(reached[name])} of {seeds} seeds)"
    parts = [f"{name} reaches {first}"]
    pairs = {row: differences(reached[row], reached[name]) for row in others}
    parts += [
        f"{row} {difference(found, 1)} ({len(found)} of {seeds} seeds)"
        for row, found in pairs.items()
        if found
    ]
    epochs = next(iter(whole[name].values()))["epochs"]
    return f"{'; '.join(parts)}, after {epochs} epochs."


def mean_at(runs: list[Run], epoch: int, number: int) -> str:
    values = [run["curve"][epoch - 1][number] for run in runs if len(run["curve"]) >= epoch]
    return f"{statistics.mean(values):.1f}" if values else ""


def lowest_loss(runs: list[Run]) -> str:
    """The epoch in each whole run."""
    return ", ".join(str(epoch_of_lowest_loss(run["curve"])) for run in runs if is_whole(run))


def epoch_of_lowest_loss(curve: list[list[float]]) -> int:
    losses = [epoch[2] for epoch in curve]
    return losses.index(min(losses)) + 1


MAKERS = {"verdict": verdict, "table": table, "curves": curves}


def write_page(page: Path, content: Run) -> None:
    tables = {
        f"cifar10 {kind} {study.name}": make(study, content)
        for study, (kind, make) in product(STUDIES.values(), MAKERS.items())
    }
    write_tables(page, tables)
