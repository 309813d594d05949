"""The lines of a list, divided into fields."""

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

from octvideo.errors import ListError

Rows = Iterator[tuple[int, tuple[str, ...]]]  # line number, fields
_LABELS_IN_PATH = re.compile(r"\d,$|\.\w+[ \t]+\d+$")  # `a.mp4 3,` and `a.mp4 3`
_NUMBER_BEHIND_FILE = re.compile(r"\.(?:mp4|avi|mkv|mov|webm)(?:[ \t]+\d+)+$", re.I)


def _unquoted(field: str) -> str:
    """The field without the quotes of a csv writer around it."""
    inner = field[1:-1]
    if len(field) < 2 or field != f'"{inner}"' or '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"')


def quoted(name: str) -> str:
    """The name so that `split_lines` gives it back."""
    return name if _unquoted(name) == name else '"' + name.replace('"', '""') + '"'


def read_header(line: str) -> tuple[tuple[str, ...], str]:
    """The columns and their delimiter, if the line contains `path` among words that cannot be
    labels; else nothing."""
    for delimiter in (",", "\t", " "):
        columns = tuple(field.strip(' "') for field in line.split(delimiter))
        if "path" in columns and all(column.isidentifier() for column in columns):
            return columns, delimiter if len(columns) > 1 else " "
    return (), ""


def csv_rows(path: str, lines: Iterable[str], columns: tuple[str, ...], delimiter: str) -> Rows:
    """The rows of a csv whose header has been read. Raises ListError."""
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for fields in _rows_of(reader, path):
        line = reader.line_num + 1
        if fields and len(fields) != len(columns):
            raise ListError(
                f"{path}:{line}: {len(fields)} fields under a header of {len(columns)} "
                f"({delimiter.join(columns)}). Quote a path that holds the separator."
            )
        if fields:
            yield line, tuple(fields)


def _rows_of(reader: Any, path: str) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ListError(
            f"{path}:{reader.line_num + 1}: {error}; a quote that is not closed swallows the lines"
            " behind it."
        ) from None


def split_lines(
    path: str,
    lines: Iterable[str],
    columns: tuple[str, ...],
    separator: str | None,
    first_line: int,
) -> Rows:
    """The rows of a list without a header: the path may hold separators. Raises ListError."""
    pattern = _line_pattern(len(columns) - 1, separator, " \t" if "labels" in columns else " \t,")
    for number, line in enumerate(lines, start=first_line):
        line = line.strip()
        if not line:
            continue
        match = pattern.fullmatch(line)
        if match is None:
            raise ListError(
                f"{path}:{number}: {line[:80]!r} is not `{' '.join(columns)}`. DATA.LIST_FORMAT and"
                " DATA.PATH_LABEL_SEPARATOR say how lines are read (data_lists/README.md)."
            )
        if "labels" in columns and _LABELS_IN_PATH.search(match[1]):
            raise ListError(
                f"{path}:{number}: {line[:80]!r}: labels of a video are joined by commas without"
                " spaces, as in `clip.mp4 3,17`."
            )
        if columns == ("path", "label") and _NUMBER_BEHIND_FILE.search(match[1]):
            raise ListError(
                f"{path}:{number}: {line[:80]!r} has two numbers behind the file; several labels"
                " are joined by commas (DATA.MULTI_LABEL, `clip.mp4 3,17`), and the number of"
                " frames of a file is left out."
            )
        yield number, tuple(map(_unquoted, match.groups()))


def _line_pattern(num_labels: int, separator: str | None, any_of: str) -> re.Pattern[str]:
    if num_labels == 0:
        return re.compile("(.+)")
    if separator is None:
        return re.compile(f"(.*[^{any_of}])" + f"[{any_of}]+([^{any_of}]+)" * num_labels)
    return re.compile("(.+)" + (re.escape(separator) + "(.+?)") * num_labels)
