"""report.html: the results of an evaluation, on one self-contained page.

The page is made from the files of a finished evaluation (results.json, predictions.csv,
metrics.jsonl if a training wrote one), so it can be made again at any time. Its content policy
forbids it to fetch anything.
"""

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from octvideo.complexity import without
from octvideo.files import is_local, is_there, write_atomically
from octvideo.report.classes import classes_section, confusion_section
from octvideo.report.environment import environment as here
from octvideo.report.figures import interval_bar, training_charts, views_chart
from octvideo.report.parts import bar, section, table
from octvideo.report.pictures import film_frames
from octvideo.report.style import STYLE

# video's row in the list -> uint8 (T, H, W, 3), the frames of one of its views, None if they cannot
# be had
Film = Callable[[int], NDArray[np.uint8] | None]

NUM_FILMS = 6
TIMES = " \u00d7 "
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(
    folder: str | Path,
    *,
    film: Film | None = None,
    config: str = "",
    environment: Mapping[str, object] | None = None,
    title: str = "Evaluation",
    training: bool = True,
) -> Path:
    """Write folder/report.html from the results there. film decodes the videos that are shown,
    about a dozen.

    environment: what the results were computed with; None for this process's. training: with the
    curves of the run in the folder; False for weights of another one.
    """
    folder = Path(folder)
    summary = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        predictions = list(csv.DictReader(file))
    sections = [
        _headline(summary, title),
        classes_section(summary),
        confusion_section(summary),
        order_section(summary),
        _films(summary, predictions, film, folder) if film else "",
        _views(summary),
        _training(folder / "metrics.jsonl") if training else "",
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
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon"'
        ' href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _headline(summary: Mapping[str, Any], title: str) -> str:
    numbers = _numbers(summary)
    cards = "".join(
        f'<div class="{"first" if not i else "more"}"><b>{value}</b><span>{name}</span></div>'
        for i, (name, value) in enumerate(numbers)
    )
    html = f'<header><h1>{escape(title)}</h1>{_network(summary)}<div class="numbers">{cards}</div>'
    if "top1_acc" in summary:
        html += interval_bar(
            summary["top1_acc"], summary["top1_interval"], 100 / len(summary["class_names"])
        )
    return html + _unread(summary) + "</header>"


def _network(summary: Mapping[str, Any]) -> str:
    network = summary["protocol"].get("network")
    if not network:
        return ""
    parts = [
        network["name"],
        f"alpha {network['alpha']:g}" if network.get("alpha") else "vanilla",
        f"{network['parameters'] / 1e6:.1f} M parameters",
        f"{network['gflops_per_view']:.2f} GFLOPs per view (multiply-adds"
        f"{without(network.get('uncounted', ()))})",
        f"{summary['protocol']['views'].replace('x', TIMES)} views",
    ]
    return f'<p class="network">{escape(", ".join(parts))}</p>'


def _numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    videos = (f"videos of {len(summary['class_names'])} classes", f"{summary['num_videos']:,}")
    if "top1_acc" in summary:
        low, high = summary["top1_interval"]
        return [
            ("top-1", f"{summary['top1_acc']:.1f} %"),
            ("95 % interval", f"{low:.1f} to {high:.1f}"),
            (f"top-{min(5, len(summary['class_names']))}", f"{summary['top5_acc']:.1f} %"),
            ("mean over classes", f"{summary['mean_class_acc']:.1f} %"),
            ("loss", "-" if summary.get("log_loss") is None else f"{summary['log_loss']:.2f}"),
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
        f'<div class="warning"><b>{count} of {summary["num_videos"]:,} videos could not be'
        f" read.</b> {verb}"
        f"<details><summary>Which and why</summary>"
        f"{table(files, ('file', 'cause'))}</details></div>"
    )


def _films(
    summary: Mapping[str, Any],
    predictions: Sequence[Mapping[str, str]],
    film: Film,
    folder: Path,
) -> str:
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
    body = ""
    for name, chosen in groups.items():
        if chosen:
            films = (_film(predictions[i], film(i), folder) for i in chosen)
            body += f"<h3>{name}</h3>" + "".join(films)
    note = "The frames of one view of each video, in order of time."
    return section("What the model saw", note, body) if body else ""


def _is_hit(row: Mapping[str, str]) -> bool:
    return row["class_1"] in row["label"].split()


def _film(row: Mapping[str, str], frames: NDArray[np.uint8] | None, folder: Path) -> str:
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
        text = f'<b class="wrong">{named}</b><span>{score:.0f} % sure; labeled</span><b>{label}</b>'
    else:
        text = f"<b>{named}</b><span>{score:.0f} % sure</span>"
    alt = escape(Path(row["path"]).name)
    pictures = "".join(
        f'<img src="{uri}" alt="{alt}, frame {i}">' for i, uri in enumerate(film_frames(frames), 1)
    )
    caption = f"<figcaption>{text}<span>{_link(row['path'], folder)}</span></figcaption>"
    return f'<figure class="film">{caption}<div class="frames">{pictures}</div></figure>'


def _link(path: str, folder: Path) -> str:
    """The file's name, which opens the file where it lies on this machine: relative to the page."""
    name = escape(Path(path).name)
    if not (is_local(path) and is_there(path)):
        return name
    relative = os.path.relpath(path, folder)
    return f'<a href="{quote(relative.encode(errors="surrogateescape"))}">{name}</a>'


def order_section(summary: Mapping[str, Any]) -> str:
    """Top-1 with the frames in order and in other orders; empty if that was not measured."""
    orders = summary.get("frame_order")
    if not orders:
        return ""
    lines = []
    for name, found in orders["orders"].items():
        text = f"{found['top1_acc']:.1f} %"
        if "lost" in found:
            low, high = found["lost_interval"]
            text += f" · {found['lost']:.1f} points lost ({low:.1f} to {high:.1f})"
        lines.append(bar(name, found["top1_acc"], text))
    note = (
        f"{escape(orders['verdict'])} Top-1 over one center view of each video; points lost against"
        " the true order, with the 95 % interval over the same videos."
    )
    return section("Does time matter?", note, f'<div class="bars orders">{"".join(lines)}</div>')


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
    numbers = table(rows, (f"clips{TIMES}crops", "views", f"{what} %"), numbers=(2,))
    note = (
        "From the same pass: what fewer clips along time and crops along space would have given, "
        "for less computation."
    )
    return section(
        "Accuracy and views",
        note,
        f'<div class="charts">{views_chart(values, f"{what}, %")}<div>{numbers}</div></div>',
    )


def _training(metrics: Path) -> str:
    charts = training_charts(metrics)
    return (
        section("Training", "As the run logged it.", f'<div class="charts">{"".join(charts)}</div>')
        if charts
        else ""
    )


def _details(summary: Mapping[str, Any], config: str, environment: Mapping[str, object]) -> str:
    tables = {"Protocol": summary["protocol"], "Environment": environment}
    parts = []
    for name, values in tables.items():
        if values:
            rows = [(key, str(value)) for key, value in values.items()]
            parts.append((name, table(rows)))
    if config:
        parts.append(("Configuration", f"<pre>{escape(config)}</pre>"))
    body = "".join(
        f"<details><summary>{name}</summary>{content}</details>" for name, content in parts
    )
    return section("How it was measured", "Enough to measure it again.", body)
