"""The videos of a set of shards as a list, equal to the list that the shards were made from."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from octvideo.data.lists.class_names import names_beside
from octvideo.data.lists.video_list import VideoEntry, VideoList
from octvideo.data.shards.index import (
    COLUMN_TYPES,
    NUMBERS,
    RAGGED,
    TABLES,
    Column,
    ShardIndex,
    read_frames_of,
    read_index,
)
from octvideo.data.shards.scan import index_address, index_of_any_tar
from octvideo.data.shards.shard_set import FILE_NAME, Shard, ShardSet, find_set
from octvideo.data.storage.cache import RangeCache
from octvideo.data.storage.part import Part
from octvideo.data.storage.ranges import exists, read_range
from octvideo.data.video.info import VideoInfo
from octvideo.errors import DataError, ListError

_OPENED_AT_ONCE, _WAITING = 16, 32
_MOST_EXPECTED = 1 << 22  # videos, for what a hostile description says
_LEAST = 1 << 12  # values of a column


class Columns:
    """The rows of indexes, copied as each index comes, so that never all of them are in memory
    twice.

    numbers: column -> a value per video. ragged: column -> (values, where those of each video end,
    with a 0 before). shard_ends: where the videos of each index end, int64 (indexes,). versions: of
    the shards' files.
    """

    def __init__(self, indexes: Iterable[ShardIndex], num_videos: int = 0) -> None:
        """num_videos: about how many there are."""
        growing = {name: _Growing(kind, num_videos) for name, kind in COLUMN_TYPES.items()}
        ends, shard_ends = dict.fromkeys(RAGGED, 0), [0]
        self.versions: list[str] = []
        for name in RAGGED:
            growing[f"{name}_ends"] = _Growing("<i8", num_videos + 1)
            growing[f"{name}_ends"].add(np.zeros(1, np.int64))
        for index in indexes:
            for name in (*NUMBERS, *TABLES, *RAGGED):
                growing[name].add(index.columns[name])
            for name in RAGGED:
                growing[f"{name}_ends"].add(index.columns[f"{name}_ends"][1:] + ends[name])
                ends[name] += len(index.columns[name])
            shard_ends.append(shard_ends[-1] + len(index))
            self.versions.append(index.version)
        self.numbers = {name: growing.pop(name).tensor() for name in (*NUMBERS, *TABLES)}
        self.ragged = {
            name: (growing.pop(name).tensor(), growing.pop(f"{name}_ends").tensor())
            for name in RAGGED
        }
        self.shard_ends = np.array(shard_ends[1:], np.int64)

    def __len__(self) -> int:
        return int(self.shard_ends[-1]) if len(self.shard_ends) else 0


class _Growing:
    """An array to whose end values are added. Room that is not used yet takes no memory."""

    def __init__(self, kind: str, expected: int) -> None:
        self._values: NDArray[Any] = np.empty(expected or _LEAST, kind)
        self._count = 0

    def add(self, values: NDArray[Any]) -> None:
        end = self._count + len(values)
        if end > len(self._values):
            grown = np.empty(2 * end, self._values.dtype)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : end] = values
        self._count = end

    def tensor(self) -> torch.Tensor:
        # Workers would get the room that is not used, too. It is given back without a copy.
        self._values.resize(self._count, refcheck=False)
        return torch.from_numpy(self._values)


class ShardList(VideoList):
    """A VideoList whose videos are members of shards; one million take about 200 MB.

    The metadata of the videos are columns beside paths and labels, as tensors that workers share.
    """

    def __init__(
        self,
        found: ShardSet,
        columns: Columns,
        *,
        format: str = "",
        root: str = "",
        cache: RangeCache | None = None,
    ) -> None:
        """columns: of all shards of the set. format, root: override those of the set."""
        self.format, self.root = format or found.format, root or found.root
        self.name = found.address(FILE_NAME)
        self._frame_template, self._cache = "", cache
        self._shards = [found.address(shard.file) for shard in found.shards]
        self._versions = columns.versions
        self._shard_ends, self._columns = columns.shard_ends, columns.numbers
        self._text, self._text_ends = columns.ragged["paths"]
        self._labels, self._label_ends = columns.ragged["labels"]
        self._problems, self._problem_ends = columns.ragged["problems"]
        self._num_frames = torch.zeros(len(columns), dtype=torch.int32)

    def _entry(self, i: int) -> VideoEntry:
        return super()._entry(i)._replace(part=self._part(i))

    def frames_of(self, index: int) -> tuple[Column, Column]:
        """(numbers of the frames at which decoding can start, seconds of every frame) of a video,
        from its index."""
        shard, row = self._place(range(len(self))[index])
        address = index_address(self._shards[shard])
        return read_frames_of(partial(read_range, address), address, row)

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._shard_ends, index, side="right"))
        return shard, index - (int(self._shard_ends[shard - 1]) if shard else 0)

    def _part(self, index: int) -> Part:
        row = {name: column[index].item() for name, column in self._columns.items()}
        start, end = self._problem_ends[index : index + 2].tolist()
        problem = bytes(self._problems[start:end].numpy()).decode(errors="replace")
        shard = self._place(index)[0]
        tar = self._shards[shard]
        offset, size, crc32 = (int(row[name]) for name in TABLES)
        table = Part(index_address(tar), offset, size, crc32, cache=self._cache) if size else None
        return Part(
            tar,
            int(row["offset"]),
            int(row["size"]),
            int(row["crc32"]),
            _info(row),
            problem,
            self._cache,
            table,
            self._versions[shard],
        )


def open_shards(
    path: str,
    *,
    multi_label: bool = False,
    path_prefix: str = "",
    num_classes: int | None = None,
    cache: RangeCache | None = None,
) -> ShardList:
    """The videos of the shards in a folder (or of its shards.json), on this machine or elsewhere.

    path_prefix: prepended to relative paths in results, instead of the list's prefix. Raises
    DataError for shards that are missing, incomplete or damaged, and ListError for a label outside
    the classes.
    """
    found = find_set(path)
    if not found.is_complete:
        raise DataError(
            f"{found.address(FILE_NAME)}: {found.num_videos} videos are written, and the list has"
            " more; run the same `octvideo shard` again to finish."
        )
    expected = min(max(found.num_videos, 0), _MOST_EXPECTED)
    columns = Columns(_opened(found, classes_of(found)), expected)
    if not len(columns):
        raise DataError(f"{found.folder}: there is no video in the shards.")
    if not found.fingerprint:
        found = replace(found, format=_format_of(columns))
    videos = ShardList(
        found, columns, format="multilabel" if multi_label else "", root=path_prefix, cache=cache
    )
    _check_labels(videos, num_classes)
    return videos


def class_names_of(path: str) -> list[str] | None:
    """The names of the classes of a set of shards, in label order; None if it has none."""
    return classes_of(find_set(path)) or None


def classes_of(found: ShardSet) -> list[str]:
    """The class names of the set, else those of class_names.txt in its folder."""
    return found.class_names or names_beside(found.address(FILE_NAME)) or []


def _opened(found: ShardSet, names: Sequence[str]) -> Iterator[ShardIndex]:
    """The indexes of the shards in their order, few of them in memory at a time."""
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as threads:
        for first in range(0, len(found.shards), _WAITING):
            some = found.shards[first : first + _WAITING]
            yield from threads.map(lambda shard: _open(found, shard, names), some)


def _open(found: ShardSet, shard: Shard, class_names: Sequence[str]) -> ShardIndex:
    tar = found.address(shard.file)
    try:
        address = index_address(tar)
        if shard.num_videos < 0 or not exists(address):
            index, num_bytes = index_of_any_tar(tar, class_names)
        else:
            read = partial(read_range, address)
            index = read_index(read, address, shard.num_bytes, shard.num_videos)
            num_bytes = shard.num_bytes
    except OSError as error:
        raise DataError(f"{tar}: cannot be read ({error.strerror or error}).") from error
    if shard.num_videos >= 0 and (len(index), num_bytes) != (shard.num_videos, shard.num_bytes):
        raise DataError(
            f"{tar}: {len(index)} videos in {num_bytes:,} bytes; {FILE_NAME} says"
            f" {shard.num_videos} in {shard.num_bytes:,}. Copy the shards and their indexes again,"
            " or run `octvideo shard` again."
        )
    return index


def _format_of(columns: Columns) -> str:
    """The list format of shards that do not name one: multilabel if some video has several labels,
    else unlabeled if some has none."""
    counts = columns.ragged["labels"][1].diff()
    if (counts > 1).any():
        return "multilabel"
    return "unlabeled" if (counts == 0).any() else "video"


def _check_labels(videos: ShardList, num_classes: int | None) -> None:
    labels = videos._labels
    if num_classes is None or not len(labels) or int(labels.max()) < num_classes:
        return
    place = int(labels.argmax())
    video = int(torch.searchsorted(videos._label_ends, place, right=True)) - 1
    raise ListError(
        f"{videos.name}: {videos[video].path}: label {int(labels[place])} is outside"
        f" 0..{num_classes - 1} (MODEL.NUM_CLASSES: {num_classes}). Labels start at 0."
    )


def _info(row: dict[str, float]) -> VideoInfo | None:
    if not row["num_frames"]:
        return None
    reason = "" if row["decord"] else "says the index"
    return VideoInfo.remembered(row | {"num_bytes": row["size"]}, reason)
