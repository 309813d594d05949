"""Lists of videos: one line per video, held compactly. data_lists/README.md describes the formats
to users."""

import csv
import hashlib
import io
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO, overload

import torch
from torch import Tensor

from octvideo.data.lists.rows import Rows, csv_rows, quoted, read_header, split_lines
from octvideo.data.remote import join, parent
from octvideo.data.storage.part import Part
from octvideo.data.storage.ranges import read_file
from octvideo.errors import DataError, ListError
from octvideo.files import appears_whole, is_local, what_is_missing

# The columns of each format, in the order in which they stand in a line without a header.
FORMATS: dict[str, tuple[str, ...]] = {
    "video": ("path", "label"),
    "frames": ("path", "num_frames", "label"),
    "unlabeled": ("path",),
    "multilabel": ("path", "labels"),
}
_MAX_BYTES = 1 << 28  # of a list at an address
MAX_NUMBER = 2**31  # of labels and frames, which are kept as int32
# Names of files need not be UTF-8.
_ANY_NAME = "surrogateescape"
_COLUMNS = {"path", "num_frames", "label", "labels"}


def format_name(word: str) -> str:
    """The format as FORMATS names it; `unlabelled` is its name of version 0.1.0."""
    return "unlabeled" if word == "unlabelled" else word


class VideoEntry(NamedTuple):
    """One line: the file (or the folder of frames), its labels (none, one, or several), its number
    of frames if listed.

    template: which files of a folder are its frames (DATA.FRAME_TEMPLATE); "" if there is one
    series. part: the location of a video that is a part of a larger file.
    """

    path: str
    labels: tuple[int, ...] = ()
    num_frames: int = 0
    template: str = ""
    part: Part | None = None

    @property
    def label(self) -> int:
        """The (first) label; -1 in an unlabeled list."""
        return self.labels[0] if self.labels else -1

    @property
    def read_as(self) -> str:
        """What beside the path decides which pictures these are: the frames of a folder, or the
        place and bytes of a part. "" for a file."""
        if self.part:
            return f"{self.part.offset} {self.part.size} {self.part.crc32} {self.part.version}"
        return f"{self.num_frames} {self.template}" if self.num_frames else ""


class VideoList:
    """A sequence of VideoEntry in four flat tensors: 650,000 videos take about 50 MB.

    Python objects per video would be copied into every worker as their reference counts are
    touched. Tensors are not: forked workers share their pages, spawned ones receive them through
    shared memory. `root` is joined to relative paths on access; `name` is the list's file for
    messages.
    """

    def __init__(
        self,
        entries: Iterable[VideoEntry],
        *,
        format: str = "video",
        root: str | Path = "",
        name: str = "list",
        frame_template: str = "",
    ) -> None:
        text, labels, num_frames = bytearray(), array("q"), array("q")
        text_ends, label_ends = array("q", [0]), array("q", [0])
        for path, entry_labels, entry_frames, *_ in entries:
            text += path.encode(errors=_ANY_NAME)
            text_ends.append(len(text))
            labels.extend(entry_labels)
            label_ends.append(len(labels))
            num_frames.append(entry_frames)
        self.format, self.root, self.name = format, str(root), name
        self._frame_template = frame_template
        self._text = torch.frombuffer(text or bytearray(1), dtype=torch.uint8)
        self._text_ends = torch.tensor(text_ends, dtype=torch.int64)
        self._labels = torch.tensor(labels, dtype=torch.int32)
        self._label_ends = torch.tensor(label_ends, dtype=torch.int64)
        self._num_frames = torch.tensor(num_frames, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self._num_frames)

    @property
    def has_labels(self) -> bool:
        """Whether any video has a label."""
        return len(self._labels) > 0

    @property
    def highest_label(self) -> int:
        """-1 in an unlabeled list."""
        return int(self._labels.max()) if self.has_labels else -1

    def label_counts(self) -> Tensor:
        """int64 (N,): how many labels each video has."""
        return self._label_ends.diff()

    def without_one_label(self) -> str:
        """`a.mp4 has 2 labels` (or no label), of the first such video of a labeled list; "" where
        each has one, and for an unlabeled list."""
        others = (self.label_counts() != 1).nonzero()
        if not self.has_labels or not len(others):
            return ""
        entry = self[int(others[0])]
        count = len(entry.labels)
        return f"{entry.path} has {f'{count} labels' if count else 'no label'}"

    def fingerprint(self) -> str:
        """16 hex digits of paths as listed, labels and numbers of frames; the root may move."""
        columns = (self._text, self._text_ends, self._labels, self._label_ends, self._num_frames)
        digest = hashlib.sha256()
        for column in columns:
            digest.update(column.numpy().tobytes())
        return digest.hexdigest()[:16]

    def listed(self, index: int) -> str:
        """The path as written in the list, without the root."""
        return bytes(_between(self._text, self._text_ends, index).numpy()).decode(errors=_ANY_NAME)

    @overload
    def __getitem__(self, index: int) -> VideoEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[VideoEntry]: ...
    def __getitem__(self, index: int | slice) -> VideoEntry | list[VideoEntry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._entry(range(len(self))[index])

    def _entry(self, i: int) -> VideoEntry:
        path = self.listed(i)
        labels = tuple(_between(self._labels, self._label_ends, i).tolist())
        num_frames = int(self._num_frames[i])
        return VideoEntry(join(self.root, path), labels, num_frames, self._frame_template)

    def __iter__(self) -> Iterator[VideoEntry]:
        return (self[i] for i in range(len(self)))


def _between(values: Tensor, ends: Tensor, index: int) -> Tensor:
    return values[int(ends[index]) : int(ends[index + 1])]


def read_list(
    path: str | Path,
    *,
    format: str = "video",
    path_prefix: str | Path = "",
    separator: str | None = None,
    num_classes: int | None = None,
    frame_template: str = "",
) -> VideoList:
    """The videos of a list file, in its order.

    A line is `path label` (or as FORMATS says): the label is what follows the last separator, so
    that paths may hold spaces and commas. separator None: spaces, tabs or a comma. A field may
    stand in double quotes; labels of `""` are none, which a multilabel list may have. A first line
    of column names decides instead of `format`, and makes the file an ordinary csv. Relative paths
    begin at path_prefix, else at the list's folder. At an address the list is read anew each time.
    Raises DataError for a missing or empty list, ListError (`file:line: ...`) for a line that
    cannot be used.
    """
    path, format = str(path), format_name(format)
    if format not in FORMATS:
        raise DataError(
            f"DATA.LIST_FORMAT: {format!r} is not a list format; choose one of"
            f" {', '.join(FORMATS)}."
        )
    with _opened(path) as file:
        columns, delimiter = read_header(file.readline().strip())
        if not columns:
            file.seek(0)
            columns = FORMATS[format]
        if delimiter in (",", "\t"):
            rows = csv_rows(path, file, columns, delimiter)
        else:
            rows = split_lines(path, file, columns, separator, first_line=2 if delimiter else 1)
        format = _format_of(path, columns)
        videos = VideoList(
            _to_entries(path, columns, rows, num_classes),
            format=format,
            root=path_prefix or parent(path),
            name=path,
            frame_template=frame_template,
        )
    if not len(videos):
        raise DataError(
            f"{path}: the list is empty; every line names one video ({' '.join(FORMATS[format])})."
        )
    return videos


def _opened(path: str) -> TextIO:
    """The text of a list, here or at an address. Raises DataError if there is none."""
    cause = what_is_missing(path, "list")
    try:
        if not is_local(path):
            data = io.BytesIO(read_file(path, _MAX_BYTES))
            return io.TextIOWrapper(data, encoding="utf-8-sig", errors=_ANY_NAME, newline="")
        if Path(path).is_file():
            return Path(path).open(encoding="utf-8-sig", errors=_ANY_NAME, newline="")
    except FileNotFoundError:
        pass
    except OSError as error:
        cause = f"it cannot be read ({error.strerror or error})"
    raise DataError(f"{path}: {cause}. Make it with `octvideo lists` (data_lists/README.md).")


def write_list(path: str | Path, entries: Iterable[VideoEntry], *, header: str = "") -> None:
    """Write lines that `read_list` reads: `path label` (`path num_frames label`, `path
    label,label`, `path ""`).

    header: a format of FORMATS, whose columns stand in the first line of a csv then: `read_list`
    recognizes them whatever its arguments are. Where no entry has a label, `path` comes first.
    """
    entries = list(entries)
    for entry in entries:
        check_name(entry.path)
    has_labels = any(entry.labels for entry in entries)
    text = io.StringIO()
    if header and has_labels:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(FORMATS[header])
        table.writerows(_fields(entry) for entry in entries)
    else:
        lines = [] if has_labels else ["path"]
        for entry in entries:
            name, *frames, labels = _fields(entry)
            fields = [quoted(name), *frames, *([labels or '""'] if has_labels else [])]
            lines.append(" ".join(fields))
        text.write("\n".join(lines) + "\n")
    with appears_whole(Path(path)) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def _fields(entry: VideoEntry) -> list[str]:
    frames = [str(entry.num_frames)] if entry.num_frames else []
    return [entry.path, *frames, ",".join(map(str, entry.labels))]


def check_name(name: str) -> None:
    """Raise DataError for the name of a file that no list can hold."""
    if "\n" in name or "\r" in name:
        raise DataError(
            f"{name!r}: the name holds a line break, which no list can; rename the file."
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{name!r}: the name is not UTF-8, which lists are; rename the file."
        ) from None


def _format_of(path: str, columns: tuple[str, ...]) -> str:
    known = _COLUMNS.intersection(columns)
    for name, wanted in FORMATS.items():
        if known == set(wanted):
            return name
    choices = "; ".join(",".join(wanted) for wanted in FORMATS.values())
    raise ListError(
        f"{path}:1: a header of {','.join(columns)} is no list format. It names the columns"
        f" {choices}."
    )


def _to_entries(
    path: str, columns: tuple[str, ...], rows: Rows, num_classes: int | None
) -> Iterator[VideoEntry]:
    where = {column: columns.index(column) for column in _COLUMNS.intersection(columns)}
    at_path, at_frames = where["path"], where.get("num_frames")
    at_labels = where.get("label", where.get("labels"))
    several = "labels" in where
    top = MAX_NUMBER if num_classes is None else min(num_classes, MAX_NUMBER)
    for line, fields in rows:
        try:
            labels: tuple[int, ...] = ()
            if at_labels is not None:
                labels = _read_labels(fields[at_labels].strip(), several)
            num_frames = 0 if at_frames is None else int(fields[at_frames])
            name = fields[at_path].strip()
            name.encode()
        except UnicodeEncodeError:
            raise ListError(
                f"{path}:{line}: the line is not UTF-8; save the list in that encoding."
            ) from None
        except ValueError as error:
            raise ListError(
                f"{path}:{line}: {error}; {' '.join(columns)} are expected, numbers last."
            ) from None
        for label in labels:
            if not 0 <= label < top:
                raise ListError(_outside(path, line, label, num_classes))
        if at_frames is not None and not 1 <= num_frames < MAX_NUMBER:
            raise ListError(
                f"{path}:{line}: {num_frames} frames; a folder holds at least one frame, and fewer"
                " than 2 ** 31."
            )
        yield VideoEntry(name, labels, num_frames)


def _read_labels(text: str, several: bool) -> tuple[int, ...]:
    if several:
        return tuple(map(int, text.split(","))) if text else ()
    if not text:
        raise ValueError("there is no label")
    return (int(text),)


def _outside(path: str, line: int, label: int, num_classes: int | None) -> str:
    if label < 0 and num_classes is None:
        return f"{path}:{line}: label {label} is negative. Labels start at 0."
    if num_classes is None:
        return f"{path}:{line}: label {label} is not below 2 ** 31. Labels count classes."
    return (
        f"{path}:{line}: label {label} is outside 0..{num_classes - 1} "
        f"(MODEL.NUM_CLASSES: {num_classes}). Labels start at 0."
    )
