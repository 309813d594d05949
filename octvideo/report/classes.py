"""The sections of the report about classes: the accuracy of each, and their confusions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from octvideo.report.parts import bar, section, table, wide
from octvideo.report.pictures import heat_map
from octvideo.report.style import MATRIX_SCRIPT

SMALLEST_TABLE = 8  # classes up to which the confusion matrix leaves room beside it
SMALLEST_PHONE, PAGE = 340, 1000  # pixels; no page is wider
LARGEST_TABLE = 30  # classes up to which the confusion matrix has a number in each cell


def classes_section(summary: Mapping[str, Any]) -> str:
    measured = [(_share(row), row) for row in summary.get("classes", []) if row["videos"]]
    measured.sort(key=lambda item: item[0])
    if not measured:
        return ""
    what = "average precision" if "map" in summary else "share of the videos that were named right"
    every = _every_class(measured)
    if len(measured) <= LARGEST_TABLE:
        return section("Classes", f"Hardest first: {what}.", _bars(measured) + every)
    columns = (("Hardest", measured[:12]), ("Easiest", measured[::-1][:12]))
    halves = "".join(f"<div><h3>{name}</h3>{_bars(rows)}</div>" for name, rows in columns)
    body = f'<div class="charts pair">{halves}</div>{every}'
    return section("Classes", f"The ends of {len(measured)} classes: {what}.", body)


def _every_class(measured: Iterable[tuple[float, Mapping[str, Any]]]) -> str:
    """Precision, recall and F1, or of several labels the average precision, hardest first."""
    head, rows = ["class", "videos", "average precision"], []
    for share, row in measured:
        cells = [row["name"], str(row["videos"])]
        if "f1" in row:
            head = ["class", "videos", "precision", "recall", "F1"]
            rows.append(cells + [f"{row[name]:.1f} %" for name in ("precision", "recall", "f1")])
        else:
            rows.append([*cells, f"{100 * share:.1f} %"])
    title = f"{', '.join(head[2:-1])}{' and ' if head[3:] else ''}{head[-1]} of each class"
    content = table(rows, head, numbers=range(1, 5))
    return f"<br><details><summary>{title[0].upper()}{title[1:]}</summary>{content}</details>"


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
        lines.append(bar(row["name"], 100 * share, f"{100 * share:.0f} % · {count}"))
    return f'<div class="bars">{"".join(lines)}</div>'


def confusion_section(summary: Mapping[str, Any]) -> str:
    if "confusion" not in summary:
        return ""
    names, cells = summary["class_names"], summary["confusion"]
    if len(names) <= LARGEST_TABLE:
        body = _matrix_table(names, cells)
    else:
        data = json.dumps({"names": names, "cells": cells}, separators=(",", ":")).replace(
            "<", "\\u003c"
        )
        picture = f'<img class="map" src="{heat_map(cells, len(names))}" alt="confusion matrix">'
        body = (
            f"{wide(picture, 'confusion matrix')}<output>Point at the picture to read a"
            " cell.</output>"
            '<script type="application/json"'
            f' id="cells">{data}</script><script>{MATRIX_SCRIPT}</script>'
        )
    note = (
        "Row: the label. Column: what the model named. Blue cells are right, red ones are mistakes."
    )
    needed = _width(names)
    if needed > SMALLEST_PHONE:
        screens = "all" if needed > PAGE else f"(max-width: {needed}px)"
        note += (
            '<span class="hint"> It is wider than this screen: move it sideways.</span>'
            f"<style>@media {screens} {{ .hint {{ display: inline; }} }}</style>"
        )
    pairs = _confused_pairs(names, cells)
    if len(names) <= SMALLEST_TABLE:
        return section(
            "Confusion", note, f'<div class="charts pair">{body}<div>{pairs}</div></div>'
        )
    return section("Confusion", note, body + pairs)


def _width(names: Sequence[str]) -> int:
    """About how many pixels the matrix and the page's margins take."""
    if len(names) > LARGEST_TABLE:
        return 632  # of the picture, which shrinks no further
    return 42 * len(names) + min(8 * max(map(len, names)), 160) + 42


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
    corner = '<td class="corner"></td>'
    rows = f"<thead><tr>{corner}{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return wide(f'<table class="matrix">{rows}</table>', "confusion matrix")


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
        "<h3>Most frequent"
        f" confusions</h3>{table(rows, ('label', 'named', 'videos'), numbers=(2,))}"
    )
