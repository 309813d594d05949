"""Write a set of shards, one after another. A shard that shards.json names is complete and is never
written again."""

import json
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from octvideo.data.shards.index import Column, StoredVideo, encode, read_index
from octvideo.data.shards.scan import index_address
from octvideo.data.shards.shard_set import FILE_NAME, TAR, Shard, ShardSet
from octvideo.data.shards.tar import BLOCK, MAX_FILE, header, padded
from octvideo.data.storage.output import new_file, replace_file, write_file
from octvideo.data.storage.ranges import read_range
from octvideo.data.video.frame_table import FrameTable
from octvideo.data.video.info import VideoInfo

_END = bytes(2 * BLOCK)
_CHUNK = 1 << 20


class ReadyVideo(NamedTuple):
    """A video to store: `file` is a local file with its bytes, info and table are its metadata.

    cause: the reason if there is no file.
    """

    file: str = ""
    info: VideoInfo | None = None
    table: FrameTable | None = None
    cause: str = ""


class ShardWriter:
    """Append videos to a set. The end of the context completes the open shard; an error discards
    it.

    shards.json says that the set is incomplete before the first shard is begun: a part of it, where
    the storage keeps one, would else be taken for shards of others, which need no shards.json.

    name: prefix of the shards' names, before `-000000.tar`. max_bytes: size of a shard, unless a
    single video is larger.
    """

    def __init__(self, shards: ShardSet, name: str, max_bytes: int) -> None:
        self.shards, self._name, self._max_bytes = shards, name, max_bytes
        self._rows: list[StoredVideo] = []
        self._file: IO[bytes] | None = None
        self._position = 0
        self._stack = ExitStack()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:  # A shard that cannot be completed is discarded as well.
            self.finish_shard()

    def add(self, path: str, labels: tuple[int, ...], video: ReadyVideo) -> None:
        """Store a video, unless it is too large; path, labels: as in the list. Raises
        OutputError."""
        if cause := video.cause or _too_large(video.file):
            self._open()
            self._rows.append(StoredVideo(path, labels, problem=cause))
            return
        with open(video.file, "rb") as file:  # noqa: PTH123
            size = file.seek(0, 2)
            about = self._about(path, labels)
            needed = 2 * BLOCK + padded(size) + padded(len(about)) + len(_END)
            if self._position and self._position + needed > self._max_bytes:
                self.finish_shard()
            tar, key = self._open(), f"{self.shards.num_videos + len(self._rows):09d}"
            tar.write(header(f"{key}.mp4", size))
            offset, crc32 = self._position + BLOCK, 0
            file.seek(0)
            while chunk := file.read(_CHUNK):
                crc32 = zlib.crc32(chunk, crc32)
                tar.write(chunk)
        tar.write(bytes(padded(size) - size) + header(f"{key}.json", len(about)))
        tar.write(about + bytes(padded(len(about)) - len(about)))
        self._position += needed - len(_END)
        stored = StoredVideo(path, labels, offset, size, crc32, video.info)
        if table := video.table:
            stored = replace(
                stored, keyframes=table.keyframes(), times=table.times, table=table.encode()
            )
        self._rows.append(stored)

    def finish_shard(self) -> None:
        """Complete the open shard, if there is one, and name it in shards.json."""
        if self._file is None:
            return
        self._file.write(_END)
        file = self._file_name()
        self._stack.close()
        write_file(index_address(self.shards.address(file)), encode(self._rows, {"shard": file}))
        self.shards.shards.append(Shard(file, self._position + len(_END), len(self._rows)))
        self._describe()
        self._rows, self._file, self._position = [], None, 0

    def _describe(self) -> None:
        replace_file(self.shards.address(FILE_NAME), self.shards.as_json())

    def _open(self) -> IO[bytes]:
        if self._file is None:
            if not self.shards.shards:
                self._describe()
            self._file = self._stack.enter_context(new_file(self.shards.address(self._file_name())))
        return self._file

    def _file_name(self) -> str:
        return f"{self._name}-{len(self.shards.shards):06d}{TAR}"

    def _about(self, path: str, labels: tuple[int, ...]) -> bytes:
        """The content of the .json beside a video."""
        names = self.shards.class_names
        about: dict[str, Any] = (
            {"label": labels[0]} if len(labels) == 1 else {"labels": list(labels)}
        )
        if not labels:
            about = {}
        about["classes"] = [names[label] for label in labels if label < len(names)]
        return json.dumps(about | {"path": path}).encode()


def _too_large(file: str) -> str:
    """Why a file is not stored: of 8 GiB it would have a header of its own kind, and beyond
    `MAX_FILE` `members` refuses it, so that a lost index could not be made anew. "" for others."""
    size = Path(file).stat().st_size
    if size <= MAX_FILE:
        return ""
    return (
        f"{size:,} bytes; a shard holds videos of at most {MAX_FILE / 2**30:g} GiB: cut it, or"
        " re-encode it (--short-side)"
    )


def paths_of(shards: ShardSet) -> Iterator[str]:
    """The paths of a set's videos, including those that could not be stored."""
    return (path for path, _ in _rows_of(shards))


def problems_of(shards: ShardSet) -> Iterator[tuple[str, str]]:
    """(path, cause) of every video of the list that could not be stored."""
    return ((path, cause) for path, cause in _rows_of(shards) if cause)


def _rows_of(shards: ShardSet) -> Iterator[tuple[str, str]]:
    for shard in shards.shards:
        address = index_address(shards.address(shard.file))
        columns = read_index(partial(read_range, address), address, shard.num_bytes).columns
        for row in range(shard.num_videos):
            yield _text(columns, "paths", row), _text(columns, "problems", row)


def _text(columns: dict[str, Column], name: str, row: int) -> str:
    start, end = columns[f"{name}_ends"][row : row + 2]
    return columns[name][start:end].tobytes().decode(errors="surrogateescape")
