"""Rows about videos in a file that grows by a line at a time, so that a killed run resumes.

Every row holds the settings that made it (weights, views, ...) and a digest of its video's path,
size and modification time. So a file is continued by the run that began it and by no other, a row
is written once, and a video that was replaced since is read again. A row that holds a problem gives
way to a later one of its video. A line that a kill cut short is removed before the next one is
written.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from octvideo.errors import DataError, OctvideoError
from octvideo.files import appears_whole, csv_text, writing
from octvideo.lock import is_ours

Row = dict[str, Any]


class JsonLines:
    """An object per line."""

    def head(self) -> bytes:
        return b""

    def line(self, row: Row) -> bytes:
        return json.dumps(row).encode() + b"\n"

    def row(self, line: bytes) -> Row:
        """Raises ValueError for what is no object."""
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("no object")
        return row

    def shown(self, path: str) -> str:
        return path


class CsvLines:
    """path, problem, class_1, probability_1, class_2, ..., then what the row was made with."""

    def __init__(self, top_k: int, made_with: Sequence[str]) -> None:
        places = range(1, top_k + 1)
        self._names = [name for i in places for name in (f"class_{i}", f"probability_{i}")]
        self._last = [*made_with, "video"]

    def head(self) -> bytes:
        return _csv_line(["path", "problem", *self._names, *self._last])

    def line(self, row: Row) -> bytes:
        cells = [self.shown(row["path"]), csv_text(row["problem"])]
        for prediction in row["predictions"]:
            cells += [csv_text(prediction["name"]), f"{prediction['probability']:.4f}"]
        cells += [""] * (2 + len(self._names) - len(cells))
        return _csv_line(cells + [str(row[name]) for name in self._last])

    def row(self, line: bytes) -> Row:
        """Parse a line for `RowFile`. Raises ValueError for another number of columns."""
        (cells,) = csv.reader([line.decode()])
        first = 2 + len(self._names)
        last = dict(zip(self._last, cells[first:], strict=True))
        return {"path": cells[0], "problem": cells[1]} | last

    def shown(self, path: str) -> str:
        return csv_text(path)


Lines = JsonLines | CsvLines
"""The format of rows, one line each."""


def _csv_line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


class RowFile:
    """The rows of one file; only this process writes to it.

    made_with: columns that all rows have in common. videos: path -> digest of the videos of this
    run.
    begin: what an empty file begins with, asked once this process is its writer.
    overwrite: discard an existing file. Raises OctvideoError for a file of another run, or one in
    use.
    """

    def __init__(
        self,
        path: Path,
        lines: Lines,
        made_with: Mapping[str, str],
        videos: Mapping[str, str],
        *,
        begin: Callable[[], bytes] = bytes,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        self._lines, self._made_with = lines, made_with
        with writing(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = _locked(path)
            content = path.read_bytes()
        try:
            now, shown = set(videos.values()), set(map(lines.shown, videos))
            self._rows: dict[str, bytes] = {}
            self._replaced = False
            self._unread: set[str] = set()
            for row, line in self._read(b"" if overwrite else content or begin()):
                # Rows of a video that was replaced since are left out.
                if row["video"] in now or row["path"] not in shown:
                    self._keep(row["video"], line, is_unread=bool(row.get("problem")))
            if self._content() != content:
                self._write()
        except BaseException:
            if not content:  # perhaps created above: a refused run leaves none behind
                path.unlink(missing_ok=True)
            self.close()
            raise

    def has(self, video: str) -> bool:
        """Whether there is a row of the video with this digest."""
        return video in self._rows

    def is_unread(self, video: str) -> bool:
        """Whether the row of the video with this digest holds a problem."""
        return video in self._unread

    def rows(self) -> list[Row]:
        """All rows, as they stand in the file."""
        return [self._lines.row(line) for line in self._rows.values()]

    def add(self, row: Row) -> None:
        """Write a row. It has reached the operating system when this returns, and so outlives this
        process, but not a power cut.

        row: path, its other columns, and `video`, the digest. A row of that video which is there
        already counts no longer; `settle` removes it. Raises OutputError.
        """
        line = self._lines.line({**row, **self._made_with})
        if self._rows.get(row["video"]) == line:
            return
        left = memoryview(line)
        with writing(str(self.path)):
            while left:
                left = left[os.write(self._descriptor, left) :]
        self._keep(row["video"], line, is_unread=bool(row.get("problem")))

    def settle(self) -> None:
        """Remove the rows that others have replaced. Raises OutputError."""
        if self._replaced:
            self._write()

    def take(self, others: Sequence["RowFile"], order: Sequence[str]) -> None:
        """Add the rows of other files and bring all into this order of digests. Raises OutputError.

        Theirs replace those that hold a problem here. The file appears whole with them, so a kill
        leaves the others to be taken again.
        """
        for other in others:
            for video, line in other._rows.items():
                if video not in self._rows or video in self._unread:
                    self._keep(video, line, is_unread=video in other._unread)
        places = {digest: place for place, digest in enumerate(order)}
        videos = sorted(self._rows, key=lambda digest: places.get(digest, -1))
        self._rows = {digest: self._rows[digest] for digest in videos}
        self._write()

    def close(self) -> None:
        os.close(self._descriptor)

    def _keep(self, video: str, line: bytes, *, is_unread: bool) -> None:
        self._replaced |= video in self._rows
        self._rows[video] = line
        (self._unread.add if is_unread else self._unread.discard)(video)

    def _read(self, content: bytes) -> list[tuple[Row, bytes]]:
        """Rows and their lines; an incomplete line after the last line end is left out."""
        whole = [line + b"\n" for line in content.split(b"\n")[:-1]]
        head = self._lines.head()
        if head and whole and whole[0] != head:
            raise self._foreign("its columns are others")
        rows = []
        for number, line in enumerate(whole[1:] if head else whole, start=2 if head else 1):
            try:
                row = self._lines.row(line)
                old = {name: str(row[name]) for name in self._made_with}
                _ = row["path"], row["video"]
            except (ValueError, KeyError, csv.Error, RecursionError):
                raise self._foreign(f"line {number} is not a row of this command") from None
            for name, value in self._made_with.items():
                if old[name] != value:
                    raise self._foreign(f"its rows were made with {name} {old[name]}, not {value}")
            rows.append((row, line))
        return rows

    def _foreign(self, reason: str) -> DataError:
        return DataError(
            f"{self.path}: {reason}; write to another file, or begin this one anew (--overwrite)"
        )

    def _content(self) -> bytes:
        return self._lines.head() + b"".join(self._rows.values())

    def _write(self) -> None:
        before = self._descriptor
        try:
            with writing(str(self.path)), appears_whole(self.path) as unfinished:
                unfinished.write_bytes(self._content())
                self._descriptor = _locked(unfinished)  # a lock stays with a file that is renamed
        finally:
            # Not earlier: until the rename, the old file is the one that a second run would lock.
            if self._descriptor != before:
                os.close(before)
        self._replaced = False


def _locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise OctvideoError(
                f"{path}: another process is writing it; wait for it, or choose another file"
            ) from None
        except OSError:
            pass  # a file system without locks
        if is_ours(descriptor, str(path)):
            return descriptor
        os.close(descriptor)  # its writer replaced or removed it meanwhile: lock what is there now
