"""The index of a shard: the position and the metadata of each video, as columns of numbers.

The file has the layout of safetensors (https://github.com/huggingface/safetensors): a length, a
header in JSON, arrays. The columns that opening needs come first, so that one range request reads
them; keyframes and frame times follow.
"""

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.data.video.frame_table import MAX_TABLE_BYTES
from octvideo.data.video.info import VideoInfo
from octvideo.errors import DataError

SUFFIX = ".index.safetensors"
VERSION = "1"

# Column -> type. NUMBERS: one number per video. RAGGED, PER_FRAME: a text or a row of numbers per
# video, with the end of each in a column `<name>_ends`.
NUMBERS = {
    "offset": "I64",
    "size": "I64",
    "crc32": "I64",
    "num_frames": "I32",
    "width": "I32",
    "height": "I32",
    "rotation": "I32",
    "fps": "F64",
    "duration_seconds": "F64",
    "pixel_aspect": "F64",
    "flip": "U8",
    "decord": "U8",
}
RAGGED = {"paths": "U8", "problems": "U8", "labels": "I32"}
PER_FRAME = {"keyframes": "I32", "times": "F64"}
# The position of a video's packet table (video/frame_table.py) in the last column, `tables`.
# Indexes of earlier versions have none.
TABLES = {"table_offset": "I64", "table_size": "I32", "table_crc32": "I64"}
_TYPES = {"I64": "<i8", "I32": "<i4", "F64": "<f8", "U8": "<u1"}
COLUMN_TYPES = {name: _TYPES[kind] for name, kind in (NUMBERS | TABLES | RAGGED).items()} | {
    f"{name}_ends": _TYPES["I64"] for name in RAGGED
}
"""Columns that opening needs -> NumPy type."""
_SEAL = "columns_crc32"
_MAX_HEADER = 1 << 16
# The first read has all that opening needs where paths are of usual length.
_HEAD_BYTES, _BYTES_PER_VIDEO, _MOST_AT_FIRST = 8 + _MAX_HEADER, 192, 1 << 22

Column = NDArray[Any]
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A row of an index. path, labels: as in the list. info: None for a video that is probed when
    it is read, and for one with a problem.

    keyframes: numbers of the frames at which decoding can start, () if the packets do not show
    them. times: seconds of every frame. table: the packet table, encoded.
    """

    path: str
    labels: tuple[int, ...]
    offset: int = 0
    size: int = 0
    crc32: int = -1
    info: VideoInfo | None = None
    problem: str = ""
    keyframes: Sequence[int] | Column = ()
    times: Sequence[float] | Column = ()
    table: bytes = b""


def encode(videos: Sequence[StoredVideo], about: Mapping[str, str]) -> bytes:
    """The bytes of an index file. about: metadata of the shard, among them `bytes`, its size."""
    columns = {name: _numbers(videos, name) for name in NUMBERS}
    sizes = [len(video.table) for video in videos]
    columns["table_offset"] = np.cumsum([0, *sizes])[:-1].astype("<i8")
    columns["table_size"] = np.array(sizes, "<i4")
    columns["table_crc32"] = np.array([zlib.crc32(video.table) for video in videos], "<i8")
    paths = [video.path.encode(errors="surrogateescape") for video in videos]
    problems = [video.problem.encode(errors="surrogateescape") for video in videos]
    rows: dict[str, Sequence[Any]] = {
        "paths": [np.frombuffer(path, np.uint8) for path in paths],
        "problems": [np.frombuffer(problem, np.uint8) for problem in problems],
        "labels": [video.labels for video in videos],
        "keyframes": [video.keyframes for video in videos],
        "times": [video.times for video in videos],
    }
    for name, kind in (RAGGED | PER_FRAME).items():
        columns[f"{name}_ends"] = np.cumsum([0, *map(len, rows[name])]).astype("<i8")
        parts = [np.asarray(row, _TYPES[kind]) for row in rows[name]]
        columns[name] = np.concatenate([np.empty(0, _TYPES[kind]), *parts])
    columns["tables"] = np.frombuffer(b"".join(video.table for video in videos), np.uint8)
    seal = {_SEAL: str(_seal_of(columns))}
    header: dict[str, Any] = {"__metadata__": {"octvideo": VERSION, **seal, **about}}
    at = 0
    for name, column in columns.items():
        kind = next(key for key, code in _TYPES.items() if column.dtype == np.dtype(code))
        header[name] = {
            "dtype": kind,
            "shape": [len(column)],
            "data_offsets": [at, at + column.nbytes],
        }
        at += column.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(c.tobytes() for c in columns.values())])


def _numbers(videos: Sequence[StoredVideo], name: str) -> Column:
    values: list[float]
    if name in ("offset", "size", "crc32"):
        values = [getattr(video, name) for video in videos]
    elif name == "decord":
        values = [bool(video.info and video.info.backend == "decord") for video in videos]
    else:
        values = [getattr(video.info, name) if video.info else 0 for video in videos]
    return np.array(values, _TYPES[NUMBERS[name]])


def _seal_of(columns: Mapping[str, Column]) -> int:
    """The checksum of the columns that are read at opening."""
    ragged = [column for name in RAGGED for column in (f"{name}_ends", name)]
    seal = 0
    for name in (*NUMBERS, *TABLES, *ragged):
        seal = zlib.crc32(columns[name].data, seal)
    return seal


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The columns of one index, except those of the frames: read-only views of the bytes read.

    about: metadata of the shard. version: of the shard's file, where the videos have no checksums.
    """

    columns: dict[str, Column]
    about: dict[str, str]
    version: str = ""

    def __len__(self) -> int:
        return len(self.columns["offset"])


def read_index(read: Read, source: str, num_bytes: int, num_videos: int = 1000) -> ShardIndex:
    """Read the columns that opening needs. num_bytes: size of the shard. num_videos: how many it is
    expected to hold, so that one read has the right size. Raises DataError unless the file is the
    index of a shard of num_bytes."""
    expected = _HEAD_BYTES + _BYTES_PER_VIDEO * num_videos
    head = _Head(read, source, min(expected, _MOST_AT_FIRST))
    columns = {name: head.column(name, kind) for name, kind in NUMBERS.items()}
    for name, kind in RAGGED.items():
        columns[f"{name}_ends"] = head.column(f"{name}_ends", "I64")
        columns[name] = head.column(name, kind)
    for name, kind in TABLES.items():
        nothing = np.zeros(len(columns["offset"]), _TYPES[kind])
        columns[name] = head.column(name, kind) if head.has("tables") else nothing
    if _SEAL in head.about and head.about[_SEAL] != str(_seal_of(columns)):
        raise head.error("a column")
    _check(columns, num_bytes, source)
    columns["table_offset"] = columns["table_offset"] + head.start_of("tables")
    return ShardIndex(columns, head.about)


def read_frames_of(read: Read, source: str, row: int) -> tuple[Column, Column]:
    """(numbers of the keyframes, seconds of every frame) of one video. Raises DataError if
    damaged."""
    head = _Head(read, source, _HEAD_BYTES)
    found = []
    for name, kind in PER_FRAME.items():
        start, end = (int(head.column(f"{name}_ends", "I64", at, 1)[0]) for at in (row, row + 1))
        if not 0 <= start <= end:
            raise head.error(f"{name} of video {row}")
        found.append(head.column(name, kind, start, end - start))
    return found[0], found[1]


class _Head:
    """The header of an index, and the first bytes of the file, which one read returns with it."""

    def __init__(self, read: Read, source: str, first_read: int) -> None:
        self._read, self._source = read, source
        self._start = read(0, first_read)
        length = int.from_bytes(self._start[:8], "little")
        if not 2 <= length <= _MAX_HEADER or len(self._start) < 8 + length:
            raise self.error("the header")
        try:
            header = json.loads(self._start[8 : 8 + length])
            self.about: dict[str, str] = header.pop("__metadata__")
            self._places = {
                name: (str(c["dtype"]), int(c["shape"][0]), int(c["data_offsets"][0]))
                for name, c in header.items()
            }
            is_known = self.about["octvideo"] == VERSION
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise self.error("the header") from None
        if not is_known:
            raise self.error("its version")
        self._data = 8 + length

    def has(self, name: str) -> bool:
        return name in self._places

    def start_of(self, name: str) -> int:
        """The byte in the file at which a column starts."""
        return self._data + self._places[name][2] if self.has(name) else 0

    def column(self, name: str, kind: str, start: int = 0, count: int = -1) -> Column:
        """`count` values of a column from `start` on; by default all."""
        dtype, length, offset = self._places.get(name, ("", 0, 0))
        count = length if count < 0 else count
        if dtype != kind or not 0 <= start <= start + count <= length or offset < 0:
            raise self.error(f"the column {name}")
        width = np.dtype(_TYPES[kind]).itemsize
        first, size = self._data + offset + start * width, count * width
        if first + size <= len(self._start):
            return np.frombuffer(self._start, _TYPES[kind], count, first)
        data = self._read(first, size)
        if len(data) != size:
            raise self.error(f"the column {name}")
        return np.frombuffer(data, _TYPES[kind])

    def error(self, what: str) -> DataError:
        return DataError(
            f"{self._source}: {what} of this index is damaged or of another version; delete it, and"
            " it is made anew from its shard (or run `octvideo shard` again)."
        )


def _check(columns: dict[str, Column], num_bytes: int, source: str) -> None:
    """Raise DataError if columns contradict each other or the shard."""
    offset, size = columns["offset"], columns["size"]
    wrong = [name for name in (*NUMBERS, *TABLES) if len(columns[name]) != len(offset)]
    for name in RAGGED:
        ends = columns[f"{name}_ends"]
        is_whole = len(ends) == len(offset) + 1 and ends[0] == 0 and ends[-1] == len(columns[name])
        if not is_whole or (np.diff(ends) < 0).any():
            wrong.append(name)
    end = offset + size  # may overflow, so offset and size are checked first, below
    if (offset < 0).any() or (size < 0).any() or (end > num_bytes).any() or (end < offset).any():
        wrong.append("offset")
    stored = size > 0
    if (offset[stored][1:] < end[stored][:-1]).any():
        wrong.append("offset")
    tables, table_sizes = columns["table_offset"], columns["table_size"]
    if (
        (tables < 0).any()
        or (table_sizes < 0).any()
        or (table_sizes > MAX_TABLE_BYTES * (1 + size)).any()
    ):
        wrong.append("table_size")
    is_known = columns["num_frames"] > 0
    rates = np.concatenate([columns[name][is_known] for name in ("fps", "pixel_aspect")])
    sizes = np.concatenate([columns[name][is_known] for name in ("width", "height")])
    if not (np.isfinite(rates).all() and (rates > 0).all() and (sizes > 0).all()):
        wrong.append("fps")
    if (columns["labels"] < 0).any() or (columns["num_frames"] < 0).any():
        wrong.append("labels")
    if wrong:
        raise DataError(
            f"{source}: the columns {', '.join(dict.fromkeys(wrong))} do not fit a shard of"
            f" {num_bytes:,} bytes; delete this index, and it is made anew from its shard (or run"
            " `octvideo shard` again)."
        )
