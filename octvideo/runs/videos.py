"""The videos of a run: a folder of class folders becomes lists of the files that can be read."""

import csv
import json
import statistics
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octvideo.assembly.data import list_path, open_index, open_labeled_list, reads_shards
from octvideo.assembly.tasks import task_of, with_counted_classes
from octvideo.data.lists.video_list import VideoEntry, VideoList, read_list, write_list
from octvideo.data.prepare.check import check_list
from octvideo.data.prepare.make_lists import SPLITS, DatasetLists
from octvideo.data.prepare.splits import folder_lists
from octvideo.data.remote import absolute
from octvideo.data.video.index import VideoIndex, index_path, read_index
from octvideo.errors import DataError, logger
from octvideo.runs.new_lists import EVERYTHING, LISTS, PARTS, NewLists, put_back

SHOWN = 3  # of the files that cannot be read
# val.csv may repeat test.csv, or train.csv.
REPEATED_FIRST = ("val", "test", "train")


@dataclass(frozen=True, slots=True)
class Videos:
    """folder: holds the lists. seconds: the median length of the videos, 0 if not measured.
    new_lists: those that are to replace the ones in `folder` once the run begins, if it has some.
    """

    folder: str
    class_names: tuple[str, ...]
    num_train: int
    seconds: float = 0.0
    new_lists: NewLists | None = None


def prepare_videos(
    data: str, work: str, *, begin: str = "", check: bool = True, seed: int = 0
) -> Videos:
    """Lists of the class folders in `data`, for the folder `work`. Where that has none they are
    written; else they are `new_lists`, as earlier runs read those that are there.

    A video that was in a list of `work` stays in that list, also after it was away; only new ones
    are divided. So no test holds what an earlier run was trained on.
    begin: the folder of other lists of `data`, if there are any; new lists in `work` begin with
    their division.
    check: decode each file once and leave out those that cannot be read; what was found is
    remembered in `work`. Raises DataError for a folder that nothing can be learned from, and for
    lists in `work` that are of another folder.
    """
    path = Path(data)
    if path.is_file():
        raise DataError(
            f"{data}: a file; name the folder of class folders, or the folder {path.parent} if that"
            " holds train.csv, val.csv and class_names.txt"
        )
    before = _parts(Path(work))
    _refuse_another_folder(before, path, work)
    if not before and begin:
        common = _parts(Path(begin)).items()
        before = {video: split for video, split in common if _is_below(video, path)}
    lists = folder_lists(path, seed=seed, before=before)
    _refuse(lists, data)
    if check and (bad := _unreadable(lists, Path(work))):
        lists = folder_lists(path, seed=seed, leave_out=bad, before=before)
        _refuse(lists, data)
    parts = _parts_of(lists)
    new = NewLists(lists, before | parts, work)
    is_first = not any(Path(work, name).is_file() for name in LISTS)
    if is_first:
        with new.staged() as staged:
            staged.put()
    _say(lists, work)
    if before and (added := parts.keys() - before.keys()):
        logger.info("new are %s; the others stay in their lists",
                    _counts(Counter(parts[video] for video in added)))  # fmt: skip
    index = read_index(index_path(Path(work) / EVERYTHING)) if check else None
    num_train, seconds = len(lists.of("train")), _median_seconds(index)
    return Videos(work, tuple(lists.class_names), num_train, seconds, None if is_first else new)


def listed_videos(cfg: Any) -> Videos | None:
    """The lists in DATA.PATH_TO_DATA_DIR, read as training reads them; None for a folder without a
    train.csv. Raises DataError or ConfigError for lists that training would refuse."""
    path = list_path(cfg, "train")
    if not (reads_shards(cfg) or Path(path).is_file()):
        return None
    cfg = with_counted_classes(cfg)
    names, videos = task_of(cfg).class_names(), open_labeled_list(cfg, path)
    seconds = _median_seconds(open_index(path))
    return Videos(cfg.DATA.PATH_TO_DATA_DIR, tuple(names), len(videos), seconds)


def _refuse(lists: DatasetLists, data: str) -> None:
    if len(lists.class_names) < 2:
        raise DataError(
            f"{data}: one class only, {lists.class_names[0]!r}; put the videos of each class into a"
            f" folder of its own right below {data}"
        )


def _parts(work: Path) -> dict[str, str]:
    """Absolute path -> split, of every video that was ever in the lists of `work`."""
    put_back(work)
    noted = work / PARTS
    if noted.is_file():
        with suppress(ValueError, TypeError):
            parts = json.loads(noted.read_bytes())
            if isinstance(parts, dict) and set(parts.values()) <= set(SPLITS):
                return parts
        raise DataError(
            f"{noted}: is damaged; it says which list each video is in: delete it, and the lists"
            " beside it say so"
        )
    parts = {}
    for split in REPEATED_FIRST:  # lists of an earlier version
        path = work / f"{split}.csv"
        if path.is_file():
            parts |= dict.fromkeys((entry.path for entry in read_list(path)), split)
    return parts


def _parts_of(lists: DatasetLists) -> dict[str, str]:
    """Absolute path -> split, of the videos of these lists."""
    parts: dict[str, str] = {}
    for split in REPEATED_FIRST:
        paths = (absolute(str(clip.path)) for clip in lists.of(split))
        parts |= dict.fromkeys(paths, split)
    return parts


def _refuse_another_folder(parts: Mapping[str, str], folder: Path, work: str) -> None:
    """Two folders of one name would share their lists, and the runs below them."""
    if parts and not any(_is_below(video, folder) for video in parts):
        here = absolute(str(folder))
        raise DataError(
            f"{work}: holds lists of other videos, such as {next(iter(parts))}, and none of {here};"
            f" name another run with --out, or delete {work} if the videos have moved"
        )


def _is_below(video: str, folder: Path) -> bool:
    return Path(video).is_relative_to(absolute(str(folder)))


def _unreadable(lists: DatasetLists, work: Path) -> set[Path]:
    """Files that do not decode, each named with its cause."""
    work.mkdir(parents=True, exist_ok=True)
    everything = work / EVERYTHING
    found = {absolute(str(clip.path)): clip.path for clip in lists.clips}
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


def _say(lists: DatasetLists, work: str) -> None:
    counts = _counts(Counter(clip.split for clip in lists.clips))
    logger.info("%d classes, videos: %s (%s/report.txt)", len(lists.class_names), counts, work)
    for note in lists.notes:
        logger.warning("%s", note)


def _counts(by_split: Mapping[str, int]) -> str:
    return ", ".join(f"{by_split[split]} {split}" for split in SPLITS if by_split.get(split))


def _median_seconds(index: VideoIndex | None) -> float:
    return statistics.median(index.durations().tolist()) if index else 0.0
