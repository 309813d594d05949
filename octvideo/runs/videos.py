"""The videos of a run: a folder of class folders becomes lists of the files that can be read."""

import csv
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octvideo.assembly.data import list_path, open_index, open_labeled_list, reads_shards
from octvideo.assembly.tasks import task_of, with_counted_classes
from octvideo.data.lists.video_list import VideoEntry, VideoList, read_list, write_list
from octvideo.data.prepare.check import Finding, check_list, findings_of
from octvideo.data.prepare.make_lists import DatasetLists
from octvideo.data.prepare.splits import folder_lists
from octvideo.data.prepare.video_files import look_for_videos
from octvideo.data.remote import absolute
from octvideo.data.video.index import VideoIndex, index_path, read_index
from octvideo.errors import DataError, logger
from octvideo.files import make_output_folder
from octvideo.runs.division import (
    Division,
    Place,
    counts,
    division_of,
    follow,
    has_moved,
    read_division,
)
from octvideo.runs.new_lists import EVERYTHING, LISTS, NewLists, put_back

SHOWN = 3  # of the files that cannot be read


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


def prepare_videos(data: str, work: str, *, begin: str = "", check: bool = True) -> Videos:
    """Lists of the class folders in `data`, for the folder `work`. Where that has none they are
    written; else they are `new_lists`, as earlier runs read those that are there.

    A video that was in a list of `work` stays in that list, also after it was away; only new ones
    are divided. So no test holds what an earlier run was trained on.
    begin: the folder of other lists of `data`, if there are any; new lists in `work` begin with
    their division.
    check: decode each file once and leave out those that cannot be read; what was found is
    remembered in `work`. Without it, those stay out that an earlier check could not read.
    Raises DataError for a folder that nothing can be learned from, and for lists in `work` that are
    of another folder.
    """
    path = Path(data)
    if path.is_file():
        raise DataError(
            f"{data}: a file; name the folder of class folders, or the folder {path.parent} if that"
            " holds train.csv, val.csv and class_names.txt"
        )
    own = _division(work)
    known = own or (_division(begin) if begin else {})
    videos = look_for_videos(path)
    sizes = {absolute(str(video)): num_bytes for video, num_bytes in videos.sizes.items()}
    _refuse_another_folder(own, sizes, path, work)
    before = follow(known, sizes)
    if not own:
        before = {video: place for video, place in before.items() if _is_below(video, path)}
    splits = {video: place.split for video, place in before.items()}
    lists = folder_lists(path, before=splits, found=videos)
    _refuse(lists, data)
    works = [Path(folder) for folder in (begin, work) if folder]
    if bad := _unreadable(lists, Path(work)) if check else _unreadable_before(lists, works):
        lists = folder_lists(path, leave_out=bad, before=splits, found=videos)
        _refuse(lists, data)
    parts = division_of(lists, sizes)
    new = NewLists(lists, before | parts, work)
    is_first = not any(Path(work, name).is_file() for name in LISTS)
    if is_first:
        with new.staged() as staged:
            staged.put()
    _say(lists, work)
    _say_what_stayed(known, before, parts, sizes)
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


def _division(work: str) -> dict[str, Place]:
    try:
        put_back(Path(work))
        return read_division(Path(work))
    except OSError as error:
        raise DataError(
            f"{work}: cannot be read ({error.strerror}); name another run with --out"
        ) from error


def _refuse_another_folder(
    before: Division, sizes: Mapping[str, int], folder: Path, work: str
) -> None:
    """Two folders of one name would share their lists, and the runs below them."""
    is_of = any(_is_below(video, folder) for video in before) or has_moved(before, sizes)
    if before and not is_of:
        here = absolute(str(folder))
        raise DataError(
            f"{work}: holds lists of other videos, such as {next(iter(before))}, and none of"
            f" {here}; name another run with --out, or delete {work} and the runs that read it"
        )


def _is_below(video: str, folder: Path) -> bool:
    return Path(video).is_relative_to(absolute(str(folder)))


def _unreadable(lists: DatasetLists, work: Path) -> set[Path]:
    """Files that do not decode, each named with its cause."""
    make_output_folder(str(work), "name another run with --out")
    found, videos = _everything(lists, work)
    write_list(videos.name, videos)
    result = check_list(videos)
    if not result.bad:
        return set()
    with result.bad_list.open(encoding="utf-8", newline="") as file:
        causes = [(row["path"], row["reason"]) for row in csv.DictReader(file)]
    shown = _shown(causes, len(found), f"; all in {result.bad_list}")
    logger.warning("%d of %d files cannot be read and are left out: %s",
                   result.bad, len(found), shown)  # fmt: skip
    good = {entry.path for entry in read_list(result.good_list)}
    return {original for path, original in found.items() if path not in good}


def _unreadable_before(lists: DatasetLists, works: Sequence[Path]) -> set[Path]:
    """Files that earlier checks for these folders could not read, the last being asked last, and
    that have not changed since."""
    findings: dict[str, Finding] = {}
    for work in works:
        found, videos = _everything(lists, work)
        findings |= findings_of(videos)
    causes = {path: known.cause for path, known in findings.items() if known.cause}
    if causes:
        logger.warning(
            "%d of %d files are left out, since an earlier check could not read them (a check looks"
            " at them again): %s", len(causes), len(found), _shown(causes.items(), len(found)),
        )  # fmt: skip
    return {found[path] for path in causes}


def _everything(lists: DatasetLists, work: Path) -> tuple[dict[str, Path], VideoList]:
    """Absolute path -> the path of each video, and all as a list in `work`."""
    found = {absolute(str(clip.path)): clip.path for clip in lists.clips}
    entries = [VideoEntry(path, (0,)) for path in sorted(found)]
    return found, VideoList(entries, name=str(work / EVERYTHING))


def _shown(causes: Collection[tuple[str, str]], number: int, more: str = "; ...") -> str:
    """The first of the files that cannot be read. Raises DataError if these are all."""
    some = [f"{path} ({cause})" for path, cause in [*causes][:SHOWN]]
    text = "; ".join(some) + (more if len(causes) > SHOWN else "")
    if len(causes) == number:
        raise DataError(f"none of the {number} videos can be read: {text}")
    return text


def _say(lists: DatasetLists, work: str) -> None:
    logger.info("%d classes, videos: %s (%s/report.txt)", len(lists.class_names),
                counts(clip.split for clip in lists.clips), work)  # fmt: skip
    for note in lists.notes:
        logger.warning("%s", note)


def _say_what_stayed(
    known: Division, before: Division, now: Division, sizes: Mapping[str, int]
) -> None:
    """known: the division that was remembered. before: with what has another name or place now."""
    if moved := [video for video, place in before.items() if known.get(video) != place]:
        logger.info("%d videos have another name or place than before, by their sizes: each stays"
                    " in its list, or in train where that is unsure", len(moved))  # fmt: skip
    if before and (added := now.keys() - before.keys()):
        here = set(sizes.values())
        gone = sum(old not in sizes and place.num_bytes not in here
                   for old, place in before.items())  # fmt: skip
        hint = f"; {gone} of before are gone: one both renamed and changed counts as new"
        logger.info("new are %s; the others stay in their lists%s",
                    counts(now[video].split for video in added), hint if gone else "")  # fmt: skip


def _median_seconds(index: VideoIndex | None) -> float:
    return statistics.median(index.durations().tolist()) if index else 0.0
