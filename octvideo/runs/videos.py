"""The videos of a run: a folder of class folders becomes lists of the files that can be read."""

import csv
import os
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path

from octvideo.data.lists.class_names import names_beside
from octvideo.data.lists.video_list import VideoEntry, VideoList, read_list, write_list
from octvideo.data.prepare.check import check_list
from octvideo.data.prepare.make_lists import SPLITS, DatasetLists, write_lists
from octvideo.data.prepare.splits import folder_lists
from octvideo.data.video.index import index_path
from octvideo.errors import DataError, logger

SHOWN = 3  # of the files that cannot be read


@dataclass(frozen=True, slots=True)
class Videos:
    """folder: holds the lists. seconds: the median length of the videos, 0 if not measured."""

    folder: str
    class_names: tuple[str, ...]
    num_train: int
    seconds: float = 0.0


def prepare_videos(data: str, work: str, *, check: bool = True, seed: int = 0) -> Videos:
    """The lists in the folder `data`, or lists that are made of its class folders, in the folder
    `work`.

    check: decode each file once and leave out those that cannot be read; what was found is
    remembered in `work`. Raises DataError for a folder that nothing can be learned from.
    """
    path = Path(data)
    if path.is_file():
        raise DataError(
            f"{data}: a file; name the folder of class folders, or the folder {path.parent} if that"
            " holds train.csv, val.csv and class_names.txt"
        )
    if (path / "train.csv").is_file():
        return _listed(data)
    lists = folder_lists(path, seed=seed)
    _refuse(lists, data)
    if check and (bad := _unreadable(lists, Path(work))):
        lists = folder_lists(path, seed=seed, leave_out=bad)
        _refuse(lists, data)
    written = write_lists(lists, work)
    _write_indexes(Path(work), written)
    _say(lists, work)
    found = index_path(Path(work) / "all.csv")
    seconds = _median_seconds(found) if check else 0.0
    return Videos(work, tuple(lists.class_names), len(lists.of("train")), seconds)


def _listed(data: str) -> Videos:
    train = Path(data) / "train.csv"
    videos = read_list(train)
    names = names_beside(train)
    if names is None:
        raise DataError(
            f"{data}: train.csv and no class_names.txt; write one with a class name a line, in"
            " label order"
        )
    index = index_path(train)
    seconds = _median_seconds(index) if index.is_file() else 0.0
    return Videos(data, tuple(names), len(videos), seconds)


def _refuse(lists: DatasetLists, data: str) -> None:
    if len(lists.class_names) < 2:
        raise DataError(
            f"{data}: one class only, {lists.class_names[0]!r}; put the videos of each class into a"
            f" folder of its own right below {data}"
        )


def _unreadable(lists: DatasetLists, work: Path) -> set[Path]:
    """Files that do not decode, each named with its cause."""
    work.mkdir(parents=True, exist_ok=True)
    everything = work / "all.csv"
    found = {os.path.abspath(clip.path): clip.path for clip in lists.clips}  # noqa: PTH100
    paths = sorted(found.items())
    write_list(everything, [VideoEntry(path, (0,)) for path, _ in paths])
    result = check_list(
        VideoList([VideoEntry(path, (0,)) for path, _ in paths], name=str(everything))
    )
    if not result.bad:
        return set()
    with result.bad_list.open(encoding="utf-8", newline="") as file:
        causes = list(csv.DictReader(file))
    shown = "; ".join(f"{row['path']} ({row['reason']})" for row in causes[:SHOWN])
    more = f"; all in {result.bad_list}" if len(causes) > SHOWN else ""
    if not result.good:
        raise DataError(f"none of the {result.bad} videos can be read: {shown}{more}")
    logger.warning("%d of %d files cannot be read and are left out: %s%s",
                   result.bad, result.bad + result.good, shown, more)  # fmt: skip
    good = {entry.path for entry in read_list(result.good_list)}
    return {original for path, original in paths if path not in good}


def _write_indexes(work: Path, written: list[Path]) -> None:
    """Write the metadata of all files beside each list, and delete lists no longer written."""
    known = index_path(work / "all.csv")
    for split in SPLITS:
        path = work / f"{split}.csv"
        if path not in written:
            path.unlink(missing_ok=True)
        elif known.is_file():
            shutil.copyfile(known, index_path(path))


def _say(lists: DatasetLists, work: str) -> None:
    counts = ", ".join(f"{len(lists.of(split))} {split}" for split in SPLITS if lists.of(split))
    logger.info("%d classes, videos: %s (%s/report.txt)", len(lists.class_names), counts, work)
    for note in lists.notes:
        logger.warning("%s", note)


def _median_seconds(index: Path) -> float:
    with index.open(encoding="utf-8", newline="", errors="surrogateescape") as file:
        lengths = [float(row["duration_seconds"]) for row in csv.DictReader(file)]
    return statistics.median(lengths) if lengths else 0.0
