"""Charts as inline SVG in the page's colors, 380 units wide: readable on a phone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from octvideo.files import read_json_lines

Point = tuple[float, float]

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 38


@dataclass(frozen=True, slots=True)
class Series:
    """name: for the legend. color: a CSS class of the page (train, val). points: in order of x."""

    name: str
    color: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Axes:
    """A linear map from values to the drawing; x may be logarithmic."""

    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False

    def place(self, point: Point) -> Point:
        x, low, high = (math.log(value) if self.log_x else value for value in (point[0], *self.x))
        across = (x - low) / (high - low or 1)
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0] or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (
            HEIGHT - TOP - BOTTOM
        )


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers around low..high: steps of 1, 2, 5 times a power of ten."""
    raw = (high - low or abs(high) or 1) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def line_chart(series: Sequence[Series], title: str, x_label: str, unit: str = "") -> str:
    """Lines over a common x; the last value of each stands in the legend."""
    points = [point for one in series for point in one.points]
    x_ticks = nice_ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = nice_ticks(min(y for _, y in points), max(y for _, y in points))
    axes = Axes((x_ticks[0], max(x for x, _ in points)), (y_ticks[0], y_ticks[-1]))
    inside = [tick for tick in x_ticks if tick <= axes.x[1]]
    drawn = [_grid(axes, [(tick, short(tick)) for tick in inside], y_ticks, x_label, unit)]
    for one in series:
        places = [axes.place(point) for point in _thinned(one.points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn.append(f'<path class="line {one.color}" d="{path}"/>')
        if len(places) <= 30:
            drawn += [
                f'<circle class="dot {one.color}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
                for x, y in places
            ]
    legend = "".join(
        f'<span class="key {one.color}">{escape(one.name)}'
        f" <b>{short(one.points[-1][1])}{unit}</b></span>"
        for one in series
    )
    return _figure(title, legend, "".join(drawn))


def views_chart(values: Sequence[tuple[str, int, float]], title: str) -> str:
    """Accuracy (percent) against the number of views, each point named: ("10x3", 30, 73.2)."""
    low, high = min(value for *_, value in values), max(value for *_, value in values)
    y_ticks = nice_ticks(max(low - 1, 0), min(high + 1, 100), 4)
    counts = sorted({count for _, count, _ in values})
    axes = Axes((counts[0] * 0.8, counts[-1] * 1.35), (y_ticks[0], y_ticks[-1]), log_x=True)
    drawn = [
        _grid(
            axes,
            [(count, str(count)) for count in _apart(counts)],
            y_ticks,
            "views per video",
            " %",
        )
    ]
    for name, count, value in values:
        x, y = axes.place((count, value))
        below = y < TOP + 16 or name.endswith("x3")
        drawn.append(f'<circle class="dot val" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        text = name.replace("x", " &times; ")
        drawn.append(
            f'<text class="name" x="{x:.1f}" y="{y + (16 if below else -8):.1f}">{text}</text>'
        )
    return _figure(title, "", "".join(drawn))


def interval_bar(value: float, interval: Sequence[float], chance: float) -> str:
    """The headline on a line from 0 to 100 %: the interval as a band, the value as a mark, chance
    as a tick."""
    low, high = interval

    def at(percent: float) -> float:
        return 10 + 3.6 * percent

    return (
        '<svg class="interval" viewBox="0 0 380 34" role="img" aria-label="interval"><rect'
        ' class="rail" x="10" y="8" width="360" height="6" rx="3"/><rect class="band"'
        f' x="{at(low):.1f}" y="8" width="{max(at(high) - at(low), 1):.1f}" height="6"'
        f' rx="3"/><circle class="dot val" cx="{at(value):.1f}" cy="11" r="5"/><path class="tick"'
        f' d="M{at(chance):.1f} 5v12"/><text class="chance" x="{at(chance) - 3:.1f}" y="30">chance'
        f" {short(chance)} %</text></svg>"
    )


def short(value: float) -> str:
    """Three significant digits, or all of a whole number; "2e-5" of a tiny one."""
    if value == round(value) or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}".replace("e-0", "e-")


def _grid(
    axes: Axes,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[float],
    x_label: str,
    unit: str,
) -> str:
    marks = []
    for value in y_ticks:
        _, y = axes.place((axes.x[0], value))
        marks.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        marks.append(
            f'<text class="y" x="{LEFT - 7}" y="{y + 3.5:.1f}">{short(value)}{unit}</text>'
        )
    for value, text in x_ticks:
        x, _ = axes.place((value, axes.y[0]))
        marks.append(f'<text class="x" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}">{text}</text>')
    marks.append(
        f'<text class="x" x="{(LEFT + WIDTH - RIGHT) / 2}"'
        f' y="{HEIGHT - 6}">{escape(x_label)}</text>'
    )
    return "".join(marks)


def _figure(title: str, legend: str, drawn: str) -> str:
    return (
        f'<figure class="chart"><figcaption><b>{escape(title)}</b>{legend}</figcaption><svg'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">{drawn}</svg></figure>'
    )


def _thinned(points: Sequence[Point], most: int = 300) -> list[Point]:
    """Means over equal runs of points where there are more than a screen can show."""
    run = math.ceil(len(points) / most)
    thinned = []
    for i in range(0, len(points), run):
        group = points[i : i + run]
        thinned.append((group[-1][0], fmean(y for _, y in group)))
    return thinned


def _apart(counts: Sequence[int]) -> list[int]:
    """The counts whose labels do not overlap on a logarithmic axis."""
    kept: list[int] = []
    for count in counts:
        if not kept or count >= 1.25 * kept[-1]:
            kept.append(count)
    return kept


Records = list[dict[str, Any]]


def training_charts(path: Path) -> list[str]:
    """SVG figures; none without a file, and none from lines that cannot be read."""
    records = _read(path)
    # A short run has too few epochs for a line.
    epochs = [record for record in records if record["_type"] == "train_epoch"]
    train = (
        epochs
        if len(epochs) >= 10
        else [record for record in records if record["_type"] == "train_iter"]
    )
    val = [record for record in records if record["_type"] == "val_epoch"]
    steps = epochs[0]["step"] / epochs[0]["epoch"] if epochs else 1
    x_label = "epoch" if epochs else "step"
    charts = []
    for key, title, unit in (
        ("loss", "Loss", ""),
        ("top1_err", "Top-1 error", " %"),
        ("map_err", "100 % - mAP", " %"),  # of several labels per video
        ("lr", "Learning rate", ""),
    ):
        series = [
            Series("training", "train", _points(train, key, steps)),
            Series("validation", "val", _points(val, key, steps)),
        ]
        shown = [one for one in series if one.points]
        if shown:
            charts.append(line_chart(shown, title, x_label, unit))
    return charts


def _read(path: Path) -> Records:
    keys = {"_type", "epoch", "step"}
    return [record for record in read_json_lines(path) if keys <= record.keys()]


def _points(records: Iterable[Mapping[str, Any]], key: str, steps: float) -> list[Point]:
    return [
        (record["step"] / steps, record[key])
        for record in records
        if isinstance(record.get(key), int | float)
    ]
