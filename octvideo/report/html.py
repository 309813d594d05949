"""report.html: what an evaluation found, on one page that carries everything it shows.

The page is made from the files of a finished evaluation (results.json, predictions.csv, metrics.jsonl where a training
wrote one), so it can be made again at any time. It fetches nothing: its content policy forbids it.
"""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.files import write_atomically
from octvideo.report.curves import training_charts
from octvideo.report.environment import environment as here
from octvideo.report.figures import interval_bar, views_chart
from octvideo.report.pictures import film_frames, heat_map
from octvideo.report.style import MATRIX_SCRIPT, STYLE

# video's row in the list -> uint8 (T, H, W, 3), the frames of one of its views, None if they cannot be had
Film = Callable[[int], NDArray[np.uint8] | None]

NUM_FILMS = 6
TIMES = " \u00d7 "
SMALLEST_TABLE = 8  # classes up to which the confusion matrix leaves room beside it
LARGEST_TABLE = 30  # classes up to which the confusion matrix has a number in each cell
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(
    folder: str | Path,
    *,
    film: Film | None = None,
    config: str = "",
    environment: Mapping[str, object] | None = None,
    title: str = "Evaluation",
) -> Path:
    """Write folder/report.html from the results there. film decodes the videos that are shown, about a dozen.

    environment: what the results were computed with; None for this process's.
    """
    folder = Path(folder)
    summary = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        predictions = list(csv.DictReader(file))
    sections = [
        _headline(summary, title),
        _classes(summary),
        _confusion(summary),
        _films(summary, predictions, film) if film else "",
        _views(summary),
        _training(folder / "metrics.jsonl"),
        _details(summary, config, environment if environment is not None else here()),
    ]
    page = folder / "report.html"
    content = _page(title, "".join(sections)).encode(errors="backslashreplace")
    write_atomically(str(page), lambda file: file.write(content))
    return page


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _section(title: str, note: str, body: str) -> str:
    return f'<section><h2>{title}</h2><p class="note">{note}</p>{body}</section>'


def _headline(summary: Mapping[str, Any], title: str) -> str:
    numbers = _numbers(summary)
    cards = "".join(
        f'<div class="{"first" if not i else "more"}"><b>{value}</b><span>{name}</span></div>'
        for i, (name, value) in enumerate(numbers)
    )
    html = f'<header><h1>{escape(title)}</h1><div class="numbers">{cards}</div>'
    if "top1_acc" in summary:
        html += interval_bar(
            summary["top1_acc"], summary["top1_interval"], 100 / len(summary["class_names"])
        )
    return html + _unread(summary) + "</header>"


def _numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    videos = (f"videos of {len(summary['class_names'])} classes", f"{summary['num_videos']:,}")
    if "top1_acc" in summary:
        low, high = summary["top1_interval"]
        return [
            ("top-1", f"{summary['top1_acc']:.1f} %"),
            ("95 % interval", f"{low:.1f} to {high:.1f}"),
            (f"top-{min(5, len(summary['class_names']))}", f"{summary['top5_acc']:.1f} %"),
            ("mean over classes", f"{summary['mean_class_acc']:.1f} %"),
            videos,
        ]
    if "map" in summary:
        return [("mean average precision", f"{100 * summary['map']:.1f} %"), videos]
    return [("videos, without labels", f"{summary['num_videos']:,}")]


def _unread(summary: Mapping[str, Any]) -> str:
    if not summary["unread"]:
        return ""
    count = len(summary["unread"])
    files = [(video["path"], video["problem"]) for video in summary["unread"]]
    verb = "They count as wrong." if "views" in summary else "They have no prediction."
    return (
        f'<div class="warning"><b>{count} of {summary["num_videos"]:,} videos could not be read.</b> {verb}'
        f"<details><summary>Which and why</summary>"
        f"{_table(files, ('file', 'cause'))}</details></div>"
    )


def _films(summary: Mapping[str, Any], predictions: Sequence[Mapping[str, str]], film: Film) -> str:
    read = [i for i, row in enumerate(predictions) if row["class_1"]]
    read.sort(key=lambda i: -float(predictions[i]["score_1"]))
    if summary["task"] == "single_label":
        right = [i for i in read if _is_hit(predictions[i])]
        wrong = [i for i in read if not _is_hit(predictions[i])]
        groups = {
            "Most confident mistakes": wrong[:NUM_FILMS],
            "Least confident hits": right[::-1][:NUM_FILMS],
        }
    else:
        groups = {"Most confident": read[:NUM_FILMS], "Least confident": read[::-1][:NUM_FILMS]}
    body = "".join(
        f"<h3>{name}</h3>" + "".join(_film(predictions[i], film(i)) for i in chosen)
        for name, chosen in groups.items()
        if chosen
    )
    note = "The frames of one view of each video, in order of time."
    return _section("What the model saw", note, body) if body else ""


def _is_hit(row: Mapping[str, str]) -> bool:
    return row["class_1"] in row["label"].split()


def _film(row: Mapping[str, str], frames: NDArray[np.uint8] | None) -> str:
    if frames is None:
        return ""
    named, label, score = (
        escape(row["name_1"]),
        escape(row["label_name"]),
        100 * float(row["score_1"]),
    )
    if _is_hit(row):
        text = f'<b class="right">{named}</b><span>{score:.0f} % sure</span>'
    elif row["label"]:
        text = (
            f'<b class="wrong">{named}</b><span>{score:.0f} % sure; labelled</span><b>{label}</b>'
        )
    else:
        text = f"<b>{named}</b><span>{score:.0f} % sure</span>"
    alt = escape(Path(row["path"]).name)
    pictures = "".join(
        f'<img src="{uri}" alt="{alt}, frame {i}">' for i, uri in enumerate(film_frames(frames), 1)
    )
    caption = f"<figcaption>{text}<span>{alt}</span></figcaption>"
    return f'<figure class="film">{caption}<div class="frames">{pictures}</div></figure>'


def _classes(summary: Mapping[str, Any]) -> str:
    measured = [(_share(row), row) for row in summary.get("classes", []) if row["videos"]]
    measured.sort(key=lambda item: item[0])
    if not measured:
        return ""
    what = "average precision" if "map" in summary else "share of the videos that were named right"
    if len(measured) <= LARGEST_TABLE:
        return _section("Classes", f"Hardest first: {what}.", _bars(measured))
    columns = (("Hardest", measured[:12]), ("Easiest", measured[::-1][:12]))
    halves = "".join(f"<div><h3>{name}</h3>{_bars(rows)}</div>" for name, rows in columns)
    every = "".join(
        f"<div><span>{escape(row['name'])}</span><span>{100 * share:.0f} %</span></div>"
        for share, row in measured
    )
    body = (
        f'<div class="charts pair">{halves}</div><br><details><summary>All of them, hardest first</summary>'
        f'<div class="columns">{every}</div></details>'
    )
    return _section("Classes", f"The ends of {len(measured)} classes: {what}.", body)


def _share(row: Mapping[str, Any]) -> float:
    return row["ap"] if "ap" in row else row["correct"] / row["videos"] if row["videos"] else 0.0


def _bars(measured: Iterable[tuple[float, Mapping[str, Any]]]) -> str:
    lines = []
    for share, row in measured:
        count = (
            f"{row['correct']} of {row['videos']}"
            if "correct" in row
            else f"{row['videos']} videos"
        )
        bar = f'<div class="track"><i style="width:{100 * share:.1f}%"></i></div>'
        text = f'<div class="count">{100 * share:.0f} % · {count}</div>'
        lines.append(f"<div>{escape(row['name'])}</div>{bar}{text}")
    return f'<div class="bars">{"".join(lines)}</div>'


def _confusion(summary: Mapping[str, Any]) -> str:
    if "confusion" not in summary:
        return ""
    names, cells = summary["class_names"], summary["confusion"]
    if len(names) <= LARGEST_TABLE:
        body = _matrix_table(names, cells)
    else:
        data = json.dumps({"names": names, "cells": cells}, separators=(",", ":")).replace(
            "<", "\\u003c"
        )
        body = (
            f'<div class="wide"><img class="map" src="{heat_map(cells, len(names))}" alt="confusion matrix"></div>'
            f"<output>Point at the picture to read a cell.</output>"
            f'<script type="application/json" id="cells">{data}</script><script>{MATRIX_SCRIPT}</script>'
        )
    note = (
        "Row: the label. Column: what the model named. Blue cells are right, red ones are mistakes."
    )
    pairs = _confused_pairs(names, cells)
    if len(names) <= SMALLEST_TABLE:
        return _section(
            "Confusion", note, f'<div class="charts pair">{body}<div>{pairs}</div></div>'
        )
    return _section("Confusion", note, body + pairs)


def _matrix_table(names: Sequence[str], cells: Sequence[Sequence[int]]) -> str:
    counts = {(row, column): count for row, column, count in cells}
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in names)
    body = []
    for row, name in enumerate(names):
        total = sum(counts.get((row, column), 0) for column in range(len(names))) or 1
        line = [
            _cell(counts.get((row, column), 0), total, row == column)
            for column in range(len(names))
        ]
        body.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(line)}</tr>')
    return (
        f'<div class="wide"><table class="matrix"><thead><tr><td style="background:none"></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(count: int, total: int, right: bool) -> str:
    if not count:
        return f'<td class="{"hit" if right else "miss"}"></td>'
    share = 100 * count / total
    kind = ("hit" if right else "miss") + (" full" if share > 55 else "")
    return f'<td class="{kind}" style="--share:{12 + 0.88 * share:.0f}%">{count}</td>'


def _confused_pairs(names: Sequence[str], cells: Sequence[Sequence[int]], most: int = 8) -> str:
    mistakes = sorted(
        (cell for cell in cells if cell[0] != cell[1]), key=lambda cell: (-cell[2], cell)
    )
    if len(names) <= 2 or not mistakes:
        return ""
    rows = [(names[row], names[column], str(count)) for row, column, count in mistakes[:most]]
    return (
        f"<h3>Most frequent confusions</h3>{_table(rows, ('label', 'named', 'videos'), number=2)}"
    )


def _views(summary: Mapping[str, Any]) -> str:
    views = summary.get("views", {})
    if len(views) < 2:
        return ""
    values = []
    for name, numbers in views.items():
        clips, crops = map(int, name.split("x"))
        values.append((name, clips * crops, numbers.get("top1_acc", 100 * numbers.get("map", 0.0))))
    rows = [(name.replace("x", TIMES), str(count), f"{value:.2f}") for name, count, value in values]
    what = "mAP" if "map" in summary else "top-1"
    table = _table(rows, (f"clips{TIMES}crops", "views", f"{what} %"), number=2)
    note = (
        "From the same pass: what fewer clips along time and crops along space would have given, "
        "for less computation."
    )
    return _section(
        "Accuracy and views",
        note,
        f'<div class="charts">{views_chart(values, f"{what}, %")}<div>{table}</div></div>',
    )


def _training(metrics: Path) -> str:
    charts = training_charts(metrics)
    return (
        _section(
            "Training", "As the run logged it.", f'<div class="charts">{"".join(charts)}</div>'
        )
        if charts
        else ""
    )


def _details(summary: Mapping[str, Any], config: str, environment: Mapping[str, object]) -> str:
    tables = {"Protocol": summary["protocol"], "Environment": environment}
    parts = [
        (name, _table([(key, str(value)) for key, value in values.items()]))
        for name, values in tables.items()
        if values
    ]
    if config:
        parts.append(("Configuration", f"<pre>{escape(config)}</pre>"))
    body = "".join(
        f"<details><summary>{name}</summary>{content}</details>" for name, content in parts
    )
    return _section("How it was measured", "Enough to measure it again.", body)


def _table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), number: int = -1) -> str:
    """number: the column that is right-aligned."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i == number else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    top = f"<thead><tr>{line('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table class="plain">{top}<tbody>{body}</tbody></table></div>'
