"""A folder of shards: described by its shards.json, or tar files that another program wrote."""

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from octvideo.data.lists.video_list import FORMATS
from octvideo.data.remote import join, parent
from octvideo.data.storage.ranges import exists, list_folder, read_file
from octvideo.errors import DataError

FILE_NAME = "shards.json"
TAR = ".tar"
_VERSION = 1
_MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file: its name, its bytes, its number of videos (including those that could not be
    stored); -1: unknown."""

    file: str
    num_bytes: int = -1
    num_videos: int = -1


@dataclass(slots=True)
class ShardSet:
    """The content of a folder of shards, in the order of the list that it was made from.

    root: prepended to relative paths, as in the list. fingerprint: of the list. settings: how the
    videos were written. is_complete: False while some of the list's videos are missing.
    """

    folder: str
    shards: list[Shard] = field(default_factory=list)
    format: str = "video"
    root: str = ""
    class_names: list[str] = field(default_factory=list)
    fingerprint: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    is_complete: bool = True

    def address(self, file: str) -> str:
        return join(self.folder, file)

    @property
    def num_videos(self) -> int:
        return sum(shard.num_videos for shard in self.shards)

    def as_json(self) -> bytes:
        described = {
            "version": _VERSION,
            "format": self.format,
            "complete": self.is_complete,
            "fingerprint": self.fingerprint,
            "root": self.root,
            "settings": self.settings,
            "class_names": self.class_names,
            "shards": [
                {"file": shard.file, "bytes": shard.num_bytes, "videos": shard.num_videos}
                for shard in self.shards
            ],
        }
        return json.dumps(described, indent=1).encode()


def set_folder(path: str) -> str:
    """The folder of a set, given the folder or its shards.json."""
    return parent(path) if path.endswith(f"/{FILE_NAME}") else path.rstrip("/")


def find_set(path: str) -> ShardSet:
    """The set at a folder (or its shards.json). Raises DataError if there is none."""
    folder = set_folder(path)
    described = join(folder, FILE_NAME)
    try:
        return read_set(folder) if exists(described) else _undescribed(folder)
    except OSError as error:
        raise DataError(
            f"{folder}: there are no shards ({error.strerror or error}); make them with `octvideo"
            " shard`."
        ) from None


def has_shards(path: str) -> bool:
    """Whether there is a set in a folder (or at its shards.json). Raises DataError if the storage
    does not answer."""
    folder = set_folder(path)
    if exists(join(folder, FILE_NAME)):
        return True
    try:
        return any(name.endswith(TAR) for name in list_folder(folder))
    except (OSError, DataError):
        return False


def read_set(folder: str) -> ShardSet:
    """What shards.json describes. Raises OSError, DataError for a damaged or hostile file."""
    path = join(folder, FILE_NAME)
    try:
        said = json.loads(read_file(path, _MAX_BYTES))
        if said["version"] != _VERSION or said["format"] not in FORMATS:
            raise ValueError(f"version {said['version']!r}, format {said['format']!r}")
        shards = [
            Shard(_file_name(s["file"]), int(s["bytes"]), int(s["videos"])) for s in said["shards"]
        ]
        if any(min(shard.num_bytes, shard.num_videos) < 0 for shard in shards):
            raise ValueError("a negative size")
        names = said["class_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("class names are text")
        return ShardSet(
            folder,
            shards,
            format=said["format"],
            root=str(said["root"]),
            class_names=names,
            fingerprint=str(said["fingerprint"]),
            settings=dict(said["settings"]),
            is_complete=bool(said["complete"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise DataError(
            f"{path}: this describes no set of shards ({type(error).__name__}: {error}); make it"
            " with `octvideo shard`."
        ) from None


def _undescribed(folder: str) -> ShardSet:
    files = [name for name in list_folder(folder) if name.endswith(TAR)]
    if not files:
        raise DataError(
            f"{folder}: there is neither a {FILE_NAME} nor a tar file; make shards with `octvideo"
            " shard`."
        )
    return ShardSet(folder, [Shard(name) for name in files])


def _file_name(name: Any) -> str:
    """A file name from an untrusted source, checked to be within its own folder."""
    if not isinstance(name, str) or PurePosixPath(name).name != name or not name.endswith(TAR):
        raise ValueError(f"{name!r} is no name of a tar file")
    return name
