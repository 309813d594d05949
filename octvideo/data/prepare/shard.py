"""A list of videos as shards: tar files in WebDataset's layout, in the list's order, and
indexes."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from octvideo.data.lists.class_names import names_beside
from octvideo.data.lists.video_list import VideoList
from octvideo.data.prepare.parallel import for_each
from octvideo.data.prepare.resize import check_encoding, resize_video
from octvideo.data.reading import DecodeError, reading
from octvideo.data.remote import join, local_path
from octvideo.data.shards.shard_set import FILE_NAME, ShardSet, read_set
from octvideo.data.shards.writer import ReadyVideo, ShardWriter, problems_of
from octvideo.data.storage.output import make_folder, replace_file, write_file
from octvideo.data.storage.ranges import exists
from octvideo.data.video.examine import frame_table, know
from octvideo.data.video.index import VideoIndex
from octvideo.data.video.info import VideoInfo
from octvideo.errors import ConfigError, DataError
from octvideo.files import bad_csv, is_local, is_there
from octvideo.lock import only_writer

BAD_FILE = "bad.csv"
_SCRATCH = ".unfinished-"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Encoding(NamedTuple):
    """The encoding of stored videos (`octvideo resize`); short_side 0: they are not re-encoded."""

    short_side: int = 0
    gop: int = 12
    crf: int = 20

    def check(self) -> None:
        """Raises ConfigError as `check_encoding`, where videos are re-encoded."""
        if self.short_side:
            check_encoding(*self)


@dataclass(slots=True)
class ShardResult:
    """The result of a run. bad: path -> the reason why it is not in the shards. kept: the number of
    videos that an earlier run had written."""

    shards: ShardSet
    kept: int = 0
    bad: dict[str, str] = field(default_factory=dict)


def write_shards(
    videos: VideoList,
    folder: str,
    *,
    name: str,
    max_bytes: int = 10**9,
    encoding: Encoding | None = None,
    index: VideoIndex | None = None,
    num_workers: int | None = None,
    timeout_seconds: float = 600.0,
) -> ShardResult:
    """Write folder/name-000000.tar, ... of about max_bytes each, an index of each, and shards.json.

    A video that cannot be read is an entry of the index without bytes, and named in bad.csv: the
    set holds the list's videos in the list's order. After an interruption the same call begins
    behind the last complete shard.
    index: what is known of the list's files. Raises DataError for a folder that holds other shards,
    ConfigError for an encoding that cannot be, and OutputError.
    """
    if videos.format == "frames":
        raise DataError(
            f"{videos.name}: a list of frame folders; shards hold video files, so make videos of"
            " the folders first."
        )
    encoding = encoding or Encoding()
    encoding.check()
    settings = {"max_bytes": max_bytes, **encoding._asdict()}
    with only_writer_here(folder), scratch_folder(folder) as scratch:
        shards = _begun(videos, folder, settings)
        todo = range(shards.num_videos, len(videos))
        ready = for_each(
            partial(_ready, videos, index, scratch, encoding),
            [(i,) for i in todo],
            title="shard",
            num_workers=num_workers,
            timeout_seconds=timeout_seconds,
        )
        with ShardWriter(shards, name, max_bytes) as writer:
            for i, video in zip(todo, ready, strict=True):
                writer.add(videos.listed(i), videos[i].labels, video)
                if video.file.startswith(scratch):
                    Path(video.file).unlink()
        shards.is_complete = True
        replace_file(shards.address(FILE_NAME), shards.as_json())
        return ShardResult(shards, todo.start, write_bad(shards))


@contextmanager
def only_writer_here(folder: str) -> Iterator[None]:
    """Make the folder, and be its only writer where the storage locks. Raises OctvideoError."""
    make_folder(folder)
    with only_writer(folder) if is_local(folder) else nullcontext():
        yield


@contextmanager
def scratch_folder(folder: str) -> Iterator[str]:
    """A folder for videos on their way, beside the shards or else in the system's; those of killed
    runs are removed."""
    base = folder if is_local(folder) else None
    for left in Path(folder).glob(f"{_SCRATCH}*") if base else ():
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(dir=base, prefix=_SCRATCH, ignore_cleanup_errors=True) as scratch:
        yield scratch


def make_ready(
    path: str, target: str, encoding: Encoding, known: VideoInfo | None = None
) -> ReadyVideo:
    """Look at one video, and re-encode it to `target` where that is asked for."""
    try:
        if encoding.short_side:
            if cause := resize_video(path, target, *encoding):
                return ReadyVideo(cause=cause)
            known = None
        file = target if encoding.short_side else local_path(path)
        with reading(path):
            info = know(file, known)
            return ReadyVideo(file, info, frame_table(file, info))
    except DecodeError as error:
        return ReadyVideo(cause=error.cause)


def _ready(
    videos: VideoList, index: VideoIndex | None, scratch: str, encoding: Encoding, number: int
) -> ReadyVideo:
    path = videos[number].path
    known = index.get(path) if index else None
    return make_ready(path, str(Path(scratch, f"{number}.mp4")), encoding, known)


def write_bad(shards: ShardSet) -> dict[str, str]:
    """Path -> cause of what the set lacks; bad.csv in its folder says it, where there is any."""
    bad = dict(problems_of(shards))
    if bad:
        write_file(join(shards.folder, BAD_FILE), bad_csv(bad.items()))
    return bad


def _begun(videos: VideoList, folder: str, settings: dict[str, int]) -> ShardSet:
    return continued(
        ShardSet(
            folder,
            format=videos.format,
            root=videos.root,
            class_names=names_beside(videos.name) or [],
            fingerprint=videos.fingerprint(),
            settings=dict(settings),
            is_complete=False,
        ),
        listed=videos.listed(0),
    )


def continued(fresh: ShardSet, listed: str = "") -> ShardSet:
    """What an interrupted run has written, or this empty set. Raises DataError for other shards.

    listed: a path as it stands in the list, whose fingerprint says nothing of its root. The videos
    may have moved since; where they are in the earlier root still, the shards hold other files.
    """
    if not exists(fresh.address(FILE_NAME)):
        return fresh
    there = read_set(fresh.folder)
    if not there.shards:  # a run that was interrupted before its first
        return fresh
    if (there.fingerprint, there.settings) != (fresh.fingerprint, fresh.settings):
        raise DataError(
            f"{fresh.folder}: it holds shards of another list or with other settings"
            f" ({there.fingerprint}, {there.settings});"
            " choose another --out, or delete them."
        )
    before, now = Path(there.root, listed), Path(fresh.root, listed)
    if is_there(before) and not (is_there(now) and before.samefile(now)):
        raise DataError(
            f"{fresh.folder}: it holds shards of the videos below {there.root}, not below"
            f" {fresh.root}; choose another --out, or delete them."
        )
    return replace(fresh, shards=there.shards)


def bytes_of(text: str) -> int:
    """500MB, 1.5 GB, 10000 -> bytes. Raises ConfigError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ConfigError(f"{text!r} is no size; write it as 500MB or 1GB")
    return size
