"""Charts of a training from its metrics.jsonl: loss and error."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from octvideo.files import read_json_lines
from octvideo.report.figures import Point, Series, line_chart

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
