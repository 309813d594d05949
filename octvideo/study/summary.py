"""The results of a sweep: table.md, table.csv, table.tex and tradeoff.png."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octvideo.complexity import without
from octvideo.report.tradeoff import Point, curve_name, draw_tradeoff
from octvideo.study.origin import read_results
from octvideo.study.statistics import difference, independent, interval, spread
from octvideo.study.sweep import SEED, Repetition, Sweep, Variant, check_runs, measured_times
from octvideo.study.tables import comma_separated, latex, markdown
from octvideo.study.trial import metric, metric_name, unread_note


@dataclass(frozen=True)
class Line:
    """The results of a variant's runs. against: `independent` differences to the first variant,
    within a repeat."""

    variant: Variant
    runs: dict[Repetition, dict[str, Any]]
    against: list[float]
    milliseconds: float | None

    @property
    def scores(self) -> list[float]:
        return [metric(run) for run in self.runs.values()]

    @property
    def network(self) -> dict[str, Any]:
        return dict(next(iter(self.runs.values()))["protocol"]["network"])


def lines_of(sweep: Sweep, out: Path) -> list[Line]:
    """The variants that have a run, in their order. Raises ConfigError as `check_runs`
    does."""
    check_runs(sweep, out)
    found = {variant: _results(sweep, variant, out) for variant in sweep.variants}
    first = found[sweep.variants[0]]
    times = measured_times(sweep, out)
    return [
        Line(variant, runs, _differences(runs, first), times.get(variant.label))
        for variant, runs in found.items()
        if runs
    ]


def _results(sweep: Sweep, variant: Variant, out: Path) -> dict[Repetition, dict[str, Any]]:
    folders = {each: out / "runs" / variant.folder(each) for each in sweep.repetitions}
    found = {each: read_results(folder) for each, folder in folders.items()}
    return {each: results for each, results in found.items() if results}


def _differences(runs: Mapping[Repetition, Any], first: Mapping[Repetition, Any]) -> list[float]:
    if runs is first:
        return []
    both = [each for each in runs if each in first]
    return independent((_fold(each), metric(runs[each]) - metric(first[each])) for each in both)


def _fold(repetition: Repetition) -> Repetition:
    """The settings of a repeat without its seed."""
    return tuple(word for word in repetition if not word.startswith(f"{SEED}="))


def write_tables(sweep: Sweep, out: Path) -> str:
    """table.md, table.csv, table.tex and tradeoff.png of finished runs; returns the Markdown."""
    lines = lines_of(sweep, out)
    if not lines:
        return ""
    name = metric_name(next(iter(lines[0].runs.values())))
    varied = [*(["network"] if any(sweep.rows) else []), *sweep.axes]
    head = [
        *varied,
        "GFLOPs",
        "ms per view",
        f"{name} of each run",
        "mean",
        "against the first",
    ]
    rows = [_cells(line) for line in lines]
    left_out = _left_out(lines)
    text = "\n\n".join([markdown(" | ".join(head), rows), *left_out])
    columns = [*varied, "runs", name, "stdev", "difference", "low", "high"]
    columns += ["gflops", "parameters", "ms", "uncounted", "unread"]
    for file, content in (
        ("table.md", text + "\n"),
        ("table.tex", "\n".join([latex(head, rows), *(f"% {line}" for line in left_out)]) + "\n"),
        ("table.csv", comma_separated(columns, map(_numbers, lines))),
    ):
        (out / file).write_text(content, encoding="utf-8")
    points = list(_points(lines))
    draw_tradeoff(points, paper=(), metric=name).savefig(out / "tradeoff.png", dpi=140)
    return text


def _cells(line: Line) -> list[str]:
    return [
        *line.variant.cells,
        f"{line.network['gflops_per_view']:.2f}",
        f"{line.milliseconds:.1f}" if line.milliseconds else "",
        ", ".join(f"{score:.1f}" for score in line.scores),
        spread(line.scores),
        difference(line.against, 1),
    ]


def _left_out(lines: Sequence[Line]) -> list[str]:
    """Lines below the table: what the GFLOPs of a network leave out, and what tests could not
    read."""
    networks = {line.network["name"]: line.network.get("uncounted", ()) for line in lines}
    notes = [f"GFLOPs of {name}{without(names)}" for name, names in networks.items() if names]
    said = unread_note(
        (line.variant.folder(repetition), run)
        for line in lines
        for repetition, run in line.runs.items()
    )
    return [*notes, said] if said else notes


def _numbers(line: Line) -> list[object]:
    scores = line.scores
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    change: tuple[float | None, ...] = (None, None, None)
    if line.against:
        mean, low, high = interval(line.against)
        change = (mean, low, high) if low < high else (mean, None, None)
    network = line.network
    return [
        *line.variant.cells,
        len(scores),
        statistics.mean(scores),
        deviation,
        *change,
        network["gflops_per_view"],
        network["parameters"],
        line.milliseconds,
        " ".join(network.get("uncounted", ())),
        sum(run.get("num_unread", 0) for run in line.runs.values()),
    ]


def _points(lines: Sequence[Line]) -> Iterator[Point]:
    """A curve for each combination of settings other than alpha."""
    for line in lines:
        rest = [
            f"{key.rpartition('.')[2]} {v}"
            for key, v in line.variant.values
            if key != "OCTCONV.ALPHA"
        ]
        if line.variant.row:
            rest.insert(0, line.variant.row)
        network = line.network
        family = ", ".join([curve_name(network), *rest])
        yield Point.of_runs(family, network["alpha"], network["gflops_per_view"], line.scores)
