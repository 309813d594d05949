"""Video files below a folder, and a count of the other files."""

import os
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from octvideo.data.video.container import VIDEO_SUFFIXES
from octvideo.errors import DataError


@dataclass
class FoundFiles:
    """videos: sorted. left_out: suffix (or kind) -> how many files; unread: unlistable folders."""

    videos: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unread: list[Path] = field(default_factory=list)

    @cached_property
    def sizes(self) -> dict[Path, int]:
        """Bytes of each video; each is asked once."""
        return {path: path.stat().st_size for path in self.videos}

    def notes(self) -> list[str]:
        """A line about the files left out, and one for each folder that cannot be read."""
        counts = ", ".join(f"{count} {kind}" for kind, count in self.left_out.most_common())
        lines = [f"files that are no videos by their suffix: {counts}"] if counts else []
        return lines + [f"{folder}: this folder cannot be read" for folder in self.unread]


def look_below(folder: str | Path) -> FoundFiles:
    """All files below a folder. Links are followed, but each folder is visited once, by its own
    name where it has one below `folder`. Hidden files and folders are passed over. Raises DataError
    where there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError(f"{folder}: there is no such folder of videos.")
    found, visited = FoundFiles(), set()
    folders, links = deque([Path(folder)]), deque[Path]()
    while folders or links:
        here = folders.popleft() if folders else links.popleft()
        try:
            status = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            found.unread.append(here)
            continue
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(Path(entry.path))
            elif (kind := _kind_of(entry)) in VIDEO_SUFFIXES:
                found.videos.append(Path(entry.path))
            else:
                found.left_out[kind] += 1
    found.videos.sort()
    return found


def _kind_of(entry: "os.DirEntry[str]") -> str:
    if not entry.is_file():
        return "links that lead nowhere" if entry.is_symlink() else "pipes, sockets or devices"
    return Path(entry.name).suffix.lower() or "without suffix"


def find_videos(folder: str | Path, notes: list[str] | None = None) -> list[Path]:
    """All video files below a folder, by suffix, sorted; links are followed. Raises DataError if
    there are none.

    notes: lines about the other files are added to it.
    """
    found = look_for_videos(folder)
    if notes is not None:
        notes += found.notes()
    return found.videos


def look_for_videos(folder: str | Path) -> FoundFiles:
    """As `look_below`. Raises DataError also where there is no video."""
    found = look_below(folder)
    if not found.videos:
        besides = "; ".join(["", *found.notes()])
        raise DataError(
            f"{folder}: no video in it or below it (looked for"
            f" {' '.join(VIDEO_SUFFIXES)}){besides}."
        )
    return found
