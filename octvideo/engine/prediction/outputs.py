"""The files of predictions and features, by their suffix.

.csv and .jsonl grow by a row at a time. An .npz or a .parquet cannot: its rows are in NAME.part
until all are there, and the finished file becomes NAME.part again when the command that wrote it
finds more videos.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from glob import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from octvideo.engine.prediction.columns import check_suffix, read_columns, write_columns
from octvideo.engine.prediction.named import NamedVideo
from octvideo.engine.prediction.rows import CsvLines, JsonLines, Lines, Row, RowFile
from octvideo.engine.prediction.windows import WindowFeatures
from octvideo.errors import DataError
from octvideo.files import writing

PREDICTIONS, FEATURES = (".csv", ".jsonl", ".parquet"), (".npz", ".parquet")


class Output:
    """A file of predictions or features; `with` ends the writing, `finish` the file.

    Of several ranks each but the first writes a file of its own beside it, NAME.rank_00001. Rank 0
    takes over their rows: those of this run in `finish`, those of an interrupted one here.
    """

    def __init__(
        self,
        path: Path,
        open_rows: Callable[[Path, bool], RowFile],
        *,
        packed: bool,
        overwrite: bool,
        order: Sequence[str],
        rank: int,
    ) -> None:
        self.path, self._open_rows, self._order = path, open_rows, order
        self._part = path.with_name(f"{path.name}.part") if packed else None
        self._rows = open_rows(self.of_rank(rank), overwrite)
        if rank == 0:
            with ExitStack() as stack:
                stack.callback(self._rows.close)
                self._take(overwrite)
                stack.pop_all()

    def of_rank(self, rank: int) -> Path:
        """The file that this rank writes."""
        whole = self._part or self.path
        return whole.with_name(f"{whole.name}.rank_{rank:05d}") if rank else whole

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def wants(self, video: str) -> bool:
        """Whether a result of the video is new here: it is lacking, or could not be read before."""
        return not self._rows.has(video) or self._rows.is_unread(video)

    def add(self, row: Row) -> None:
        """Write a row. It outlives this process when this returns."""
        self._rows.add(row)

    def finish(self) -> None:
        """Take over the rows of other ranks, then write the file whose rows stand in a .part.

        Raises DataError for features of which there are none.
        """
        self._take(overwrite=False)
        self._rows.settle()
        if self._part:
            rows = self._rows.rows()
            write_columns(self.path, _columns(rows, self.path))
            with writing(str(self._part)):
                self._part.unlink()

    def _take(self, overwrite: bool) -> None:
        whole = self.of_rank(0)
        paths = sorted(whole.parent.glob(f"{escape(whole.name)}.rank_*"))
        with ExitStack() as stack:
            others = [stack.enter_context(closing(self._open_rows(p, overwrite))) for p in paths]
            if others:
                self._rows.take(others, self._order)
            with writing(str(self.path)):
                for path in paths:
                    path.unlink()


def open_output(
    path: Path,
    kinds: Sequence[str],
    made_with: Mapping[str, str],
    videos: Mapping[str, str],
    *,
    top_k: int = 0,
    overwrite: bool = False,
    rank: int = 0,
) -> Output:
    """The file and the rows that it holds already; that of a rank begins when rank 0 has opened its
    own. Raises ConfigError for another suffix than `kinds`."""
    suffix = check_suffix(path, kinds)
    packed = suffix in (".npz", ".parquet")
    lines: Lines = CsvLines(top_k, list(made_with)) if suffix == ".csv" else JsonLines()

    part = path.with_name(f"{path.name}.part")

    def finished() -> bytes:
        return b"".join(map(lines.line, _rows(path))) if path.exists() else b""

    def open_rows(where: Path, overwrite: bool) -> RowFile:
        begin = finished if packed and where == part else bytes
        return RowFile(where, lines, made_with, videos, begin=begin, overwrite=overwrite)

    order = list(videos.values())
    return Output(path, open_rows, packed=packed, overwrite=overwrite, order=order, rank=rank)


def prediction_row(video: NamedVideo, digest: str) -> Row:
    return video.as_dict() | {"video": digest}


def feature_row(video: NamedVideo, digest: str) -> Row:
    row: Row = {"path": video.path, "problem": video.problem, "video": digest}
    return row if video.features is None else row | {"features": _text(video.features)}


class FoundWindows(NamedTuple):
    """The features of a video over time, or the problem of one that could not be read."""

    path: str
    windows: WindowFeatures | str


def window_row(found: FoundWindows, digest: str) -> Row:
    path, windows = found
    if isinstance(windows, str):
        return {"path": path, "problem": windows, "video": digest}
    row: Row = {"path": path, "problem": "", "video": digest, "features": _text(windows.features)}
    return row | {name: values.tolist() for name, values in windows.ranges().items()}


def _text(features: NDArray[np.float32]) -> str:
    return base64.b64encode(features.astype("<f4").tobytes()).decode()


def _columns(rows: list[Row], path: Path) -> dict[str, list[object]]:
    """A row per video of predictions, per vector of features; an npz names it `paths`."""
    if not (rows and "predictions" in rows[0]):
        flat = [vector for row in rows for vector in _vectors(row)]
        if not flat:
            first = f"; the first: {rows[0]['path']}: {rows[0]['problem']}" if rows else ""
            raise DataError(f"{path}: none of the {len(rows)} videos could be read{first}")
        rows = flat
    rest = [name for name in rows[0] if name != "path"]
    named = "paths" if path.suffix.lower() == ".npz" else "path"

    def column(name: str) -> list[Any]:
        return [row[name] for row in rows]

    return {named: column("path")} | {name: column(name) for name in rest}


def _vectors(row: Row) -> Iterator[Row]:
    """A row per vector: that of a video with windows holds several."""
    if "features" not in row:
        return
    ranges = [name for name in WindowFeatures.RANGES if name in row]
    values = np.frombuffer(base64.b64decode(row["features"]), "<f4")
    vectors = values.reshape(len(row[ranges[0]]) if ranges else 1, -1)
    rest = {name: value for name, value in row.items() if name != "problem"}
    for i, vector in enumerate(vectors):
        yield rest | {name: row[name][i] for name in ranges} | {"features": vector}


def _rows(path: Path) -> list[Row]:
    """The rows of a finished file, the inverse of `_columns`. Raises DataError for others."""
    columns = read_columns(path)
    if "paths" in columns:
        columns["path"] = columns.pop("paths")
    if not {"path", "video"} <= columns.keys():
        raise DataError(
            f"{path}: it was not written by this command; write to another file, or begin this one"
            " anew (--overwrite)"
        )
    rows: list[Row] = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    if "features" not in columns:
        return rows
    ranges = [name for name in WindowFeatures.RANGES if name in columns]
    return [_joined(list(group), ranges) for _, group in groupby(rows, lambda row: row["video"])]


def _joined(vectors: list[Row], ranges: Sequence[str]) -> Row:
    features = np.stack([np.asarray(row["features"], np.float32) for row in vectors])
    lists = {name: list(map(itemgetter(name), vectors)) for name in ranges}
    return vectors[0] | lists | {"problem": "", "features": _text(features)}
