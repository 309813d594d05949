"""Kinetics from the archives of the CVDF (github.com/cvdfoundation/kinetics-dataset) to shards,
archive by archive.

An archive is downloaded, unpacked as a stream, its videos are checked and resized, and stored in
shards; then it is deleted, while the next ones are on their way. A shard ends with its archive.
What shards.json and fetched.jsonl name is done, so that a run that was killed at any moment
continues there; an archive that was broken is fetched again by the next one.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from octvideo.data.loading.pool import ReaderPool
from octvideo.data.prepare import archives
from octvideo.data.prepare.kinetics import (
    Annotation,
    choose_classes,
    class_numbers,
    read_annotations,
)
from octvideo.data.prepare.parallel import processes_of
from octvideo.data.prepare.shard import (
    Encoding,
    continued,
    make_ready,
    only_writer_here,
    scratch_folder,
    write_bad,
)
from octvideo.data.shards.shard_set import FILE_NAME, ShardSet
from octvideo.data.shards.writer import ShardWriter, paths_of
from octvideo.data.storage.output import replace_file, write_file
from octvideo.data.storage.ranges import exists, read_file, size_of
from octvideo.data.video.container import VIDEO_SUFFIXES
from octvideo.errors import ConfigError, DataError, logger
from octvideo.files import append_json_line, make_output_folder, read_json_lines

CVDF = "https://s3.amazonaws.com/kinetics"
_BATCH = 64  # videos that are unpacked at a time
_MAX_LIST, _MAX_ANNOTATIONS = 1 << 24, 1 << 28  # bytes

T = TypeVar("T")


class Dataset(NamedTuple):
    """The paths of a data set's files, relative to a mirror's address."""

    folder: str
    archives: str
    annotations: tuple[str, ...]
    replacements: str = ""


DATASETS = {
    "kinetics400": Dataset(
        "400",
        "{split}/k400_{split}_path.txt",
        ("annotations/{split}.csv",),
        "replacement_for_corrupted_k400.tgz",
    ),
    "kinetics600": Dataset(
        "600",
        "{split}/k600_{split}_path.txt",
        ("annotations/{split}.csv", "annotations/{split}.txt"),
    ),
}


@dataclass(slots=True)
class Plan:
    """The archives of one split that are to be fetched. num_bytes: their size."""

    split: str
    archives: list[str]
    annotations: dict[str, Annotation]
    num_bytes: int = 0


@dataclass(slots=True)
class Report:
    """The result of one split, compared with its annotations. broken: path -> cause;
    broken_archives: archive -> cause."""

    split: str
    num_stored: int = 0
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    broken_archives: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.split}: {self.num_stored} videos stored, {len(self.replaced)} of them"
            f" replacements; {len(self.broken)} broken, {len(self.missing)} missing,"
            f" {len(self.broken_archives)} archives broken"
        ]
        lines += [
            f"broken archive: {name}: {cause}" for name, cause in self.broken_archives.items()
        ]
        lines += [f"broken: {path}: {cause}" for path, cause in self.broken.items()]
        lines += [f"replaced: {stem}" for stem in self.replaced]
        lines += [f"missing: {stem}" for stem in self.missing]
        return "\n".join(lines)


class Fetch:
    """One data set on its way into `folder`: train/, val/, ... each a set of shards, and work/
    until all is done."""

    def __init__(
        self,
        dataset: str,
        folder: Path,
        *,
        class_lists: Mapping[str, Sequence[str]],
        mirror: str = CVDF,
        encoding: Encoding | None = None,
        max_bytes: int = 10**9,
        num_archives: int = 2,
        num_workers: int | None = None,
        timeout_seconds: float = 600.0,
        after_archive: Callable[[Plan, ShardSet, int], object] = lambda *_: None,
    ) -> None:
        """num_archives: that are downloaded ahead. class_lists: class names of data sets, in label
        order. after_archive: is called with the shards so far and the number of archives done.

        Raises ConfigError for no archive ahead, fewer than no workers, and a false encoding.
        """
        if num_archives < 1:
            raise ConfigError(f"{num_archives} archives to download ahead; give 1 or more")
        self._places, self._folder, self._name = DATASETS[dataset], folder, dataset
        self._base = f"{mirror.rstrip('/')}/{self._places.folder}"
        self._class_lists, self._encoding = class_lists, encoding or Encoding(256)
        self._encoding.check()
        self._max_bytes, self._num_archives = max_bytes, num_archives
        self._num_workers = processes_of(num_workers)
        self._timeout, self._after_archive = timeout_seconds, after_archive
        # Files of other data sets and mirrors have the same names.
        self._work = folder / "work" / self._base.replace("/", "_")

    def plan(self, splits: Sequence[str]) -> list[Plan]:
        """The archives to fetch, with their sizes. Raises OctvideoError and OSError."""
        make_output_folder(str(self._work))
        plans = []
        for split in splits:
            listed = _asked(read_file, self._address(self._places.archives, split), _MAX_LIST)
            addresses = [line.strip() for line in listed.decode().splitlines() if line.strip()]
            plans.append(Plan(split, addresses, self._annotations(split)))
        with ThreadPoolExecutor(16) as threads:
            for plan in plans:
                plan.num_bytes = sum(threads.map(partial(_asked, size_of), plan.archives))
        return plans

    def run(self, plans: Sequence[Plan]) -> list[Report]:
        """Fetch, and write report.txt per split, as the only one that writes below the folder.

        Raises OutputError for a full disk, DataError, and OctvideoError where another run is at
        work: the splits have replacements and work/ in common.
        """
        labels = sorted({a.label for plan in plans for a in plan.annotations.values()} - {""})
        _, names = choose_classes(labels, self._class_lists)
        with only_writer_here(str(self._folder)):
            self._work.mkdir(parents=True, exist_ok=True)  # a run that has ended removed it
            replacements, broken = self._replacements()
            reports = [self._fetch_split(plan, list(names), replacements, broken) for plan in plans]
            shutil.rmtree(self._work.parent, ignore_errors=True)
            return reports

    def _address(self, template: str, split: str = "") -> str:
        return f"{self._base}/{template.format(split=split)}"

    def _annotations(self, split: str) -> dict[str, Annotation]:
        """By the names of the files."""
        places = [self._address(template, split) for template in self._places.annotations]
        address = next(filter(exists, places), places[0])
        target = self._work / f"{split}.csv"
        if not target.exists():
            write_file(str(target), _asked(read_file, address, _MAX_ANNOTATIONS))
        return {annotation.stem: annotation for annotation in read_annotations(target)}

    def _replacements(self) -> tuple[dict[str, Path], dict[str, str]]:
        """The files that the CVDF gives for corrupted ones, by their stems; and their archive, with
        the cause, where it is broken."""
        address = self._address(self._places.replacements)
        if not self._places.replacements or not exists(address):
            return {}, {}
        folder, broken = self._work / "replacements", {}
        if not folder.exists():
            archive = self._work / "replacements.tgz"
            unfinished = self._work / "replacements.unfinished"
            unfinished.mkdir(exist_ok=True)
            unpack = partial(archives.unpack_all, wanted=partial(_place_of, folder=unfinished))
            cause = archives.download_and_use(address, archive, unpack)
            archive.unlink()
            if cause:
                folder, broken = unfinished, {address: cause}
            else:
                unfinished.replace(folder)
        return {path.stem: path for path in folder.iterdir()}, broken

    def _fetch_split(
        self, plan: Plan, names: list[str], replacements: dict[str, Path], broken: dict[str, str]
    ) -> Report:
        folder = self._folder / plan.split
        with only_writer_here(str(folder)), scratch_folder(str(folder)) as scratch:
            shards = self._begun(plan, folder, names)
            notes = folder / "fetched.jsonl"
            noted = {str(n.get("archive")): str(n.get("cause", "")) for n in read_json_lines(notes)}
            done: dict[str, str] = {address: "" for address, cause in noted.items() if not cause}
            todo = [address for address in plan.archives if address not in done]
            if again := [address for address in todo if address in noted]:
                logger.warning(
                    "%s: %d archives are whole; those that were broken are fetched again: %s",
                    *(plan.split, len(done), ", ".join(map(archives.name_of, again))),
                )
            pool = ReaderPool(
                make_ready, num_workers=self._num_workers, timeout_seconds=self._timeout
            )
            stored = {PurePosixPath(path).stem for path in paths_of(shards)}
            labels = {annotation.label for annotation in plan.annotations.values()} - {""}
            numbers = class_numbers(sorted(labels), names)
            split = _Split(plan, stored, replacements, numbers, Path(scratch), self._encoding)
            downloaded = archives.download_ahead(todo, self._work / plan.split, self._num_archives)
            try:
                for address, archive in downloaded:
                    with ShardWriter(shards, plan.split, self._max_bytes) as writer:
                        store = partial(split.store, writer=writer, pool=pool)
                        done[address] = archives.download_and_use(address, archive, store)
                    append_json_line(notes, {"archive": address, "cause": done[address]})
                    archive.unlink()
                    self._after_archive(plan, shards, len(done))
            finally:
                pool.close()
            shards.is_complete = True
            replace_file(shards.address(FILE_NAME), shards.as_json())
            report = _report(plan, shards, stored, replacements, broken | done)
            write_file(str(folder / "report.txt"), f"{report}\n".encode())
            return report

    def _begun(self, plan: Plan, folder: Path, names: list[str]) -> ShardSet:
        labeled = any(annotation.label for annotation in plan.annotations.values())
        settings = {"max_bytes": self._max_bytes, **self._encoding._asdict()}
        return continued(
            ShardSet(
                str(folder),
                format="video" if labeled else "unlabeled",
                class_names=names,
                fingerprint=f"{self._name} {plan.split}",
                settings=settings,
                is_complete=False,
            )
        )


@dataclass(slots=True)
class _Split:
    """The videos of one split between archives and shards. stored: stems that the shards have."""

    plan: Plan
    stored: set[str]
    replacements: dict[str, Path]
    numbers: dict[str, int]
    scratch: Path
    encoding: Encoding
    num_annotated: int = 0  # of the archive that is read

    def store(self, archive: Path, writer: ShardWriter, pool: ReaderPool) -> str:
        """Store what the archive has; why it broke off or is another one, "" for neither."""
        self.num_annotated = 0
        files = archives.unpack(archive, self._wanted)
        cause = ""
        while True:
            batch: list[Path] = []
            try:
                for file in islice(files, _BATCH):
                    batch.append(file)  # noqa: PERF402 (those before the break are kept)
            except archives.BrokenArchiveError as error:
                cause = str(error)
            self._store(batch, writer, pool)
            if not cause and len(batch) < _BATCH and not self.num_annotated:
                cause = f"{archive.name}: none of its files is a video of {self.plan.split}"
            if cause or len(batch) < _BATCH:
                return cause

    def _wanted(self, name: str) -> Path | None:
        """The path to which a file of an archive is unpacked; None for a video that is not
        annotated or is stored already."""
        place = _place_of(name, self.scratch)
        if place is None or place.stem not in self.plan.annotations:
            return None
        self.num_annotated += 1
        return None if place.stem in self.stored else place

    def _store(self, batch: Sequence[Path], writer: ShardWriter, pool: ReaderPool) -> None:
        """Raises DataError where an unpacked file is gone: that is no fault of the video."""
        sources = [self.replacements.get(file.stem, file) for file in batch]
        tasks = [
            (str(source), str(self.scratch / f"{file.stem}.small"), self.encoding)
            for file, source in zip(batch, sources, strict=True)
        ]
        # Closed before the pool is, also after an error, whose traceback would keep it running.
        with closing(pool.run(tasks, ahead=_BATCH)) as ready:
            for file, source, video in zip(batch, sources, ready, strict=True):
                if video.cause and not source.exists():
                    raise DataError(
                        f"{source}: it was unpacked and is gone; delete {source.parent} and repeat"
                        " the command, which unpacks it again"
                    )
                annotation = self.plan.annotations[file.stem]
                number = self.numbers[annotation.label]
                writer.add(f"{file.stem}.mp4", () if number < 0 else (number,), video)
                self.stored.add(file.stem)
                for used in (file, self.scratch / f"{file.stem}.small"):
                    used.unlink(missing_ok=True)


def _asked(ask: Callable[..., T], address: str, *limits: int) -> T:
    """ask(address, *limits) of the mirror."""
    try:
        return ask(address, *limits)
    except OSError as error:
        raise DataError(f"{address}: {error.strerror or error}; is the mirror complete?") from error


def _place_of(name: str, folder: Path) -> Path | None:
    """A video of an archive by its bare name in `folder`: whatever path the archive gives it."""
    base = PurePosixPath(name).name
    return folder / base if Path(base).suffix.lower() in VIDEO_SUFFIXES else None


def _report(
    plan: Plan,
    shards: ShardSet,
    stored: set[str],
    replacements: Mapping[str, Path],
    causes: Mapping[str, str],
) -> Report:
    broken = write_bad(shards)
    whole = stored.difference(PurePosixPath(path).stem for path in broken)
    replaced = sorted(whole.intersection(replacements))
    missing = [stem for stem in plan.annotations if stem not in stored]
    causes = {address: cause for address, cause in causes.items() if cause}
    return Report(plan.split, len(stored) - len(broken), missing, broken, replaced, causes)
