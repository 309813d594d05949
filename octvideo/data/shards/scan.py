"""Build the index of a tar that has none when it is first opened: a tar by WebDataset's writer, by
`tar`, or by this package if its index was lost.

A sample is a run of consecutive files with one key, the name up to its first dot: `key.mp4` and its
label, `key.cls` (a number) or `key.json` (`label` or `labels`: numbers, or class names). Without a
label file, the name of a video's folder may be its class. Files whose names begin with a dot are
passed over: tar on a Mac puts a `._a.mp4` of attributes beside each `a.mp4`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from octvideo.data.lists.class_names import plain_name
from octvideo.data.lists.video_list import MAX_NUMBER
from octvideo.data.shards.index import SUFFIX, ShardIndex, StoredVideo, encode, read_index
from octvideo.data.shards.shard_set import TAR
from octvideo.data.shards.tar import Member, Read, members
from octvideo.data.storage.ranges import read_range, state_of
from octvideo.data.video.container import VIDEO_SUFFIXES
from octvideo.download import cache_folder
from octvideo.errors import DataError, logger
from octvideo.files import is_local, write_atomically

_WINDOW = 1 << 14  # bytes to read at once while searching for headers
_MAX_LABEL = 1 << 20  # bytes of a .json or .cls
_RULES = 3  # by which `scan` finds videos and labels; indexes by others are made anew


def index_address(tar: str) -> str:
    """The address of a shard's index: train-000000.tar -> train-000000.index.safetensors."""
    return tar.removesuffix(TAR) + SUFFIX


def index_of_any_tar(tar: str, class_names: Sequence[str]) -> tuple[ShardIndex, int]:
    """The index of a tar, and the tar's size in bytes. The index is kept beside the tar, or in the
    user's cache if the tar is elsewhere or that place cannot be written; nowhere if the storage
    does not tell versions of a file apart: tar pads, so that corrected labels change no size.

    Raises OSError, and DataError for a tar that cannot be read.
    """
    num_bytes, tar_version = state_of(tar)
    names = hashlib.sha256("\n".join(class_names).encode()).hexdigest()[:16] if class_names else ""
    # Changes if the tar is replaced, or the names that number its labels.
    version = f"{_RULES} {num_bytes} {tar_version} {names}".rstrip()
    places = _places(tar) if tar_version else []
    for place in places:
        with suppress(OSError, DataError):
            found = read_index(partial(read_range, place), place, num_bytes)
            if found.about.get("version") == version:
                return replace(found, version=tar_version), num_bytes
    logger.info("%s: no index yet; looking through the tar", tar)
    data = encode(
        list(scan(_window(tar, num_bytes), num_bytes, tar, class_names)), {"version": version}
    )
    for place in places:
        with suppress(OSError, DataError):
            if place == places[-1]:
                Path(place).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, lambda file: file.write(data))
            break
    made = read_index(lambda offset, size: data[offset : offset + size], tar, num_bytes)
    return replace(made, version=tar_version), num_bytes


def _places(tar: str) -> list[str]:
    """Where the index of a tar may be kept on this machine, the best place first."""
    is_remote = not is_local(tar)
    name = (tar if is_remote else str(Path(tar).absolute())).encode(errors="surrogateescape")
    kept = cache_folder() / "shards" / f"{hashlib.sha256(name).hexdigest()[:32]}{SUFFIX}"
    return [str(kept)] if is_remote else [index_address(tar), str(kept)]


def scan(read: Read, num_bytes: int, tar: str, class_names: Sequence[str]) -> Iterator[StoredVideo]:
    """The videos of a tar with their labels. Raises DataError for an invalid label."""
    numbers = {plain_name(name): number for number, name in enumerate(class_names)}
    shown = (m for m in members(read, num_bytes, tar) if not _is_hidden(m.name))
    for _, group in groupby(shown, key=lambda member: _key(member.name)[0]):
        sample = list(group)
        about = _about(read, sample, tar)
        for member in sample:
            if member.size and PurePosixPath(member.name).suffix.lower() in VIDEO_SUFFIXES:
                path = about.get("path")
                yield StoredVideo(
                    path if isinstance(path, str) else f"{PurePosixPath(tar).name}/{member.name}",
                    _labels(about, member, numbers, tar),
                    offset=member.offset,
                    size=member.size,
                )


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".")


def _key(name: str) -> tuple[str, str]:
    """(key, extension): folder/a.seg.mp4 -> (folder/a, seg.mp4)."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _about(read: Read, sample: Sequence[Member], tar: str) -> dict[str, Any]:
    """The metadata beside a video: the content of its .json, the number of its .cls as `label`."""
    about: dict[str, Any] = {}
    for member in sample:
        extension = _key(member.name)[1]
        if extension not in ("json", "cls"):
            continue
        if member.size > _MAX_LABEL:
            raise DataError(f"{tar}: {member.name[:200]}: {member.size:,} bytes are no label.")
        try:
            said = json.loads(read(member.offset, member.size))
        except (ValueError, RecursionError):
            raise DataError(
                f"{tar}: {member.name[:200]}: this is no {extension} of a label."
            ) from None
        about |= said if isinstance(said, dict) else {"label": said}
    return about


def _labels(
    about: Mapping[str, Any], member: Member, numbers: Mapping[str, int], tar: str
) -> tuple[int, ...]:
    said = about.get("labels", about.get("label"))
    if said is None:
        folder = plain_name(PurePosixPath(member.name).parent.name)
        return (numbers[folder],) if folder in numbers else ()
    labels = []
    for label in said if isinstance(said, list) else [said]:
        number = numbers.get(plain_name(label)) if isinstance(label, str) else label
        if type(number) is not int or not 0 <= number < MAX_NUMBER:
            raise DataError(
                f"{tar}: {member.name[:200]}: the label {str(label)[:80]!r} is neither a number"
                " from 0 on nor a name of class_names.txt beside the shards."
            )
        labels.append(number)
    return tuple(labels)


def _window(address: str, num_bytes: int) -> Read:
    """A `Read` that serves reads that are near one another from one range: a label is followed by
    the next header."""
    start, held = 0, b""

    def read(offset: int, size: int) -> bytes:
        nonlocal start, held
        if not start <= offset <= offset + size <= start + len(held):
            start, held = (
                offset,
                read_range(address, offset, max(size, min(_WINDOW, num_bytes - offset))),
            )
        return held[offset - start : offset - start + size]

    return read
