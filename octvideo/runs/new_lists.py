"""Lists that were divided anew wait beside those that are there, which other runs read."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from octvideo.data.lists import class_names
from octvideo.data.prepare.make_lists import SPLITS, DatasetLists, write_lists
from octvideo.data.video.index import index_path
from octvideo.errors import DataError
from octvideo.files import alone_in, folder_beside, fsync, fsync_folder, writing
from octvideo.runs.division import PARTS, Division

EVERYTHING = "all.csv"  # what the check of the files reads and remembers, beside the lists
LISTS = tuple(f"{split}.csv" for split in SPLITS)
OF_LISTS = (*LISTS, class_names.FILE_NAME)
WRITTEN = (*OF_LISTS, *(index_path(name).name for name in LISTS), PARTS, "report.txt")


@dataclass(frozen=True, slots=True)
class Staged:
    """Lists that wait.

    folder: holds them, with whatever else is in `place`, where runs read.
    changed: names of the files that differ from those in `place` as it was then, `seen`.
    notes: what `put` does to lists that have no video now.
    """

    folder: Path
    place: Path
    seen: Mapping[str, bytes]
    changed: frozenset[str]
    notes: Sequence[str]

    @property
    def divides_anew(self) -> bool:
        """Whether the lists are others, and not only what is known of their videos."""
        return not self.changed.isdisjoint(OF_LISTS)

    def put(self) -> None:
        """Replace `place` as a whole: a reader finds the lists of before or these, never both. A
        kill on the way leaves those of before, which `put_back` finds. Raises DataError where
        another command has replaced them since."""
        with writing(str(self.place)), alone_in(self.place.parent):
            there, aside = _digests(self.place), _aside(self.place)
            if there == _digests(
                self.folder
            ):  # of a command beside this one, or one that was killed
                shutil.rmtree(aside, ignore_errors=True)
                return
            if there != self.seen:
                raise DataError(
                    f"{self.place}: another command has written these lists meanwhile; repeat the"
                    " command, which then divides what they do not hold"
                )
            for name in _digests(self.folder):
                fsync(self.folder / name)
            if aside.exists():
                shutil.rmtree(aside)
            self.place.rename(aside)
            try:
                self.folder.rename(self.place)
            except OSError:
                aside.rename(self.place)
                raise
            fsync_folder(str(self.place.parent))
            shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class NewLists:
    """A division of the videos that is not in `work` yet. parts: the content of parts.json."""

    lists: DatasetLists
    parts: Division
    work: str

    @contextmanager
    def staged(self) -> Iterator[Staged]:
        """The lists, written beside `work`; what was not `put` is removed again."""
        place = Path(self.work).resolve()
        with writing(self.work):
            place.mkdir(parents=True, exist_ok=True)
        with folder_beside(place) as parent:
            folder = parent / place.name
            with writing(self.work):
                seen = _digests(place)
                shutil.copytree(place, folder, symlinks=True)
                number = len(self.lists.notes)
                self._write(folder)
                now = _digests(folder)
            changed = (name for name in WRITTEN if seen.get(name) != now.get(name))
            yield Staged(folder, place, seen, frozenset(changed), self.lists.notes[number:])

    def _write(self, folder: Path) -> None:
        (folder / PARTS).write_text(json.dumps(self.parts, indent=0), encoding="utf-8")
        known = index_path(folder / EVERYTHING)
        for path in write_lists(self.lists, folder):
            if known.is_file():
                shutil.copyfile(known, index_path(path))


def put_back(work: Path) -> None:
    """Finish what a kill in the middle of `Staged.put` left: lists that were moved aside come back
    where they were not yet replaced. Else they go, or they would come back where someone deletes
    those that replaced them."""
    place = work.resolve()
    if _aside(place).is_dir():
        with writing(str(place)), alone_in(place.parent):
            if place.exists():
                shutil.rmtree(_aside(place), ignore_errors=True)
                return
            with suppress(FileNotFoundError):  # another command has done it
                _aside(place).rename(place)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.replaced")


def _digests(folder: Path) -> dict[str, bytes]:
    """Name -> SHA-256 of what `NewLists` writes, where it is there."""
    found = {}
    for name in WRITTEN:
        with suppress(FileNotFoundError), (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").digest()
    return found
