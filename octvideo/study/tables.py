"""A table as Markdown, csv and LaTeX."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from octvideo.files import csv_text

Cells = Iterable[Sequence[str]]
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def markdown(columns: str, rows: Cells) -> str:
    """columns: the head, "network | top-1"."""
    lines = [f"| {columns} |", "|" + "---|" * (columns.count("|") + 1)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def latex(columns: Sequence[str], rows: Cells) -> str:
    """A tabular with the rules of booktabs."""
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (columns, *rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def comma_separated(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """csv text. None is an empty cell; text that a spreadsheet would run is quoted."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        cells = (csv_text(cell) if isinstance(cell, str) else cell for cell in row)
        table.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue()


def write_runs(path: Path, head: Mapping[str, Any], runs: Iterable[Mapping[str, Any]]) -> None:
    """JSON with a line per run, so that a diff of two files can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    path.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "runs": [\n{lines}\n ]\n}}\n')


def _escaped(text: str) -> str:
    return "".join(LATEX.get(c, c) for c in text)
