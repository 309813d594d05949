"""Lists for a tree of class folders, and for the split files of UCF101 and HMDB51."""

import hashlib
import os
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from octvideo.data.lists.text import text_of
from octvideo.data.prepare.make_lists import (
    SPLITS,
    Clip,
    DatasetLists,
    by_stem,
    source_of,
    split_of,
)
from octvideo.data.prepare.video_files import FoundFiles, find_videos, look_for_videos
from octvideo.data.remote import absolute
from octvideo.errors import ConfigError, DataError, ListError


def folder_lists(
    folder: str | Path,
    *,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    leave_out: Collection[Path] = (),
    before: Mapping[str, str] | None = None,
    found: FoundFiles | None = None,
) -> DatasetLists:
    """A folder per class; classes are numbered by their sorted names.

    Folders train (training), val (valid, validate, validation) and test (testing) with the class
    folders below decide the splits, also as videos_train or train_256. Otherwise each class is
    divided by `shares` at random, reproducibly for a seed: clips of one source and equal files
    together. Where that leaves no video at all for val, it repeats another list, and a note says
    so.
    leave_out: files that are in no list, since they cannot be read.
    before: absolute path -> split of an earlier division. These videos, and clips of their sources,
    stay there; the shares say how many of the new ones join each split.
    found: what is in `folder`, where that is known already.
    Raises ConfigError for shares below 0 or that do not add up to 1, DataError for folders of
    splits beside others.
    """
    _check_shares(shares)
    folder, found = Path(folder), found or look_for_videos(folder)
    videos = [path for path in found.videos if path not in leave_out]
    copies = _copies(videos, found.sizes)
    is_split = _is_split(folder, videos)
    files: dict[str, list[Clip]] = defaultdict(list)
    spellings: dict[str, set[str]] = defaultdict(set)
    for path in videos:
        *folders, name = path.relative_to(folder).parts
        split = split_of(folders.pop(0)) if is_split else ""
        if not folders:
            raise DataError(
                f"{path}: this video is in no class folder; expected {folder}/<class name>/{name}."
            )
        original, name = copies.get(path, path), folders[0].strip()
        spellings[name].add(folders[0])
        files[name].append(Clip(path, -1, split, source_of(original.stem, default=str(original))))
    lists = DatasetLists(sorted(files), notes=found.notes())
    lists.notes += [
        f"{' and '.join(map(repr, sorted(folders)))} are one class, {name!r}"
        for name, folders in sorted(spellings.items())
        if len(folders) > 1
    ]
    lists.notes += [
        f"class folder {name!r} holds no {'readable ' if leave_out else ''}video and is no class"
        for name in _class_folders(folder, is_split)
        if name not in files
    ]
    for label, name in enumerate(lists.class_names):
        lists.clips += [replace(clip, label=label) for clip in files[name]]
    if not is_split:
        kept = _kept(lists.clips, before or {})
        lists.clips = _divide_classes(lists, shares, f"{seed} ", kept)
    lists.notes += _small_classes(lists, shares)
    if len(lists.class_names) == 1:
        lists.notes.append(
            f"one class only, {lists.class_names[0]!r}: the folders right below {folder} are the"
            " classes"
        )
    _fill_val(lists)
    lists.duplicates = [
        f"{path} (the same bytes as {original})" for path, original in copies.items()
    ]
    return lists


def _is_split(folder: Path, videos: Sequence[Path]) -> bool:
    """Whether the first folders are those of splits."""
    places = [path.relative_to(folder).parts for path in videos]
    splits = {split_of(first) for first, *_ in places}
    has_classes = any(len(place) > 2 and split_of(place[0]) for place in places)
    if "" in splits and len(splits) > 2 and has_classes:
        odd = sorted({place[0] for place in places if not split_of(place[0])})
        raise DataError(
            f"{folder}: {', '.join(map(repr, odd))} beside folders of"
            f" {', '.join(sorted(splits - {''}))}; move it away, or rename it to train, val or test"
        )
    return "" not in splits


def _check_shares(shares: Sequence[float]) -> None:
    if not (min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6):
        given = " ".join(f"{share:g}" for share in shares)
        raise ConfigError(
            f"shares {given} of train, val and test; give numbers from 0 to 1 that add up to 1, as"
            " in .8 .1 .1"
        )


def _small_classes(lists: DatasetLists, shares: Sequence[float]) -> Iterator[str]:
    """A note on each class that is missing in a split which others are in."""
    wanted = [
        split for split, share in zip(SPLITS, shares, strict=True) if share and lists.of(split)
    ]
    counts = Counter((clip.label, clip.split) for clip in lists.clips)
    for label, name in enumerate(lists.class_names):
        if lacking := [split for split in wanted if not counts[label, split]]:
            number = sum(counts[label, split] for split in SPLITS)
            yield f"{name!r} has {number} video(s): none in {' and '.join(lacking)}"


def _class_folders(folder: Path, is_split: bool) -> list[str]:
    """Names of all folders where classes are expected, with or without videos."""
    parents = [folder]
    if is_split:
        parents = [at for at in folder.iterdir() if at.is_dir() and os.access(at, os.R_OK)]
    names = {at.name.strip() for parent in parents for at in parent.iterdir() if at.is_dir()}
    return sorted(name for name in names if not name.startswith("."))


def _fill_val(lists: DatasetLists) -> None:
    """Training wants a val, and tests on it where there is no test: an empty one repeats test, or
    at worst train."""
    if lists.of("val"):
        return
    source = "test" if lists.of("test") else "train"
    lists.clips += [replace(clip, split="val") for clip in lists.of(source)]
    lists.notes.append(f"no video is left for val: val.csv repeats {source}.csv")
    if source == "train":
        lists.notes.append(
            "THE ACCURACY WILL BE THAT OF TRAINING VIDEOS, which says nothing: add videos"
        )


def _copies(videos: Iterable[Path], sizes: Mapping[Path, int]) -> dict[Path, Path]:
    """Files with the bytes of an earlier one -> that one. Only files of equal size are read."""
    of_size = defaultdict(list)
    for path in videos:
        of_size[sizes[path]].append(path)
    firsts: dict[bytes, Path] = {}
    copies = {}
    for path in (path for same in of_size.values() if len(same) > 1 for path in same):
        with path.open("rb") as file:
            first = firsts.setdefault(hashlib.file_digest(file, "sha256").digest(), path)
        if first is not path:
            copies[path] = first
    return copies


def _kept(clips: Iterable[Clip], before: Mapping[str, str]) -> dict[str, str]:
    """Source -> its split in an earlier division, whose clips may be gone; train if its clips were
    divided then."""
    known = [(source_of(Path(path).stem, path), split) for path, split in before.items()]
    known += [
        (clip.source, split) for clip in clips if (split := before.get(absolute(str(clip.path))))
    ]
    splits: dict[str, str] = {}
    for source, split in known:
        splits[source] = min(splits.get(source, split), split, key=SPLITS.index)
    return splits


def _divide_classes(
    lists: DatasetLists, shares: Sequence[float], seed: str, kept: Mapping[str, str]
) -> list[Clip]:
    """Assign the clips to splits, class by class. A source that one class has divided stays on its
    side in the next, and a note names it."""
    splits, divided = dict(kept), list[Clip]()
    of_label: dict[int, list[Clip]] = defaultdict(list)
    classes: dict[str, set[str]] = defaultdict(set)
    for clip in lists.clips:
        of_label[clip.label].append(clip)
    for label, name in enumerate(lists.class_names):
        clips = of_label[label]
        held = {clip.source: splits[clip.source] for clip in clips if clip.source in splits}
        clips = _divide(clips, shares, f"{seed}{name}", held)
        splits |= {clip.source: clip.split for clip in clips}
        divided += clips
        for clip in clips:
            classes[clip.source].add(name)
    shared = sorted(source for source, names in classes.items() if len(names) > 1)
    if shared:
        names = " and ".join(map(repr, sorted(classes[shared[0]])))
        lists.notes.append(
            f"{len(shared)} source(s) are in several classes, such as {shared[0]} ({names}): each"
            " is on one side"
        )
    return divided


def _divide(
    clips: Sequence[Clip], shares: Sequence[float], seed: str, kept: Mapping[str, str]
) -> list[Clip]:
    """Assign clips to splits. Sources that are not in `kept` are drawn for val and test, at least
    one for each, but train comes first."""
    sources = sorted({clip.source for clip in clips} - kept.keys())
    random.Random(seed).shuffle(sources)
    splits = {**kept, **dict.fromkeys(sources, "train")}
    held = Counter(kept.values())
    for_train = 0 if held["train"] else 1
    for split, share in list(zip(SPLITS, shares, strict=True))[1:]:
        wanted = max(round(share * len(splits)), 1) - held[split] if share else 0
        count = max(min(wanted, len(sources) - for_train), 0)
        splits |= dict.fromkeys(sources[:count], split)
        del sources[:count]
    return [replace(clip, split=splits[clip.source]) for clip in clips]


def ucf101_lists(
    videos: str | Path, splits: str | Path, *, fold: int = 1, val_share: float = 0.0
) -> DatasetLists:
    """splits: the folder with classInd.txt, trainlist01.txt and testlist01.txt."""
    splits = Path(splits)
    names = [line.split()[-1] for line in _lines(splits / "classInd.txt")]
    assigned = []
    for split in ("train", "test"):
        for line in _lines(splits / f"{split}list{fold:02d}.txt"):
            name, _, clip = line.split()[0].partition("/")
            assigned.append((Path(clip).stem, name, split))
    return _assigned_lists(videos, names, assigned, val_share)


def hmdb51_lists(
    videos: str | Path, splits: str | Path, *, fold: int = 1, val_share: float = 0.0
) -> DatasetLists:
    """splits: the folder of `<class>_test_split<fold>.txt`: 1 is train, 2 is test, 0 neither."""
    ending = f"_test_split{fold}.txt"
    files = sorted(Path(splits).glob(f"*{ending}"))
    if not files:
        raise DataError(
            f"{splits}: no files <class>{ending}; name the folder of HMDB51's split files, and fold"
            " 1 to 3."
        )
    names = [file.name.removesuffix(ending) for file in files]
    assigned = []
    for name, file in zip(names, files, strict=True):
        for number, line in enumerate(_lines(file), start=1):
            clip, _, part = line.rpartition(" ")
            if part not in ("0", "1", "2"):
                raise ListError(f"{file}:{number}: {line!r} is not `<clip> 0|1|2`.")
            if part != "0":
                assigned.append((Path(clip).stem, name, "train" if part == "1" else "test"))
    return _assigned_lists(videos, names, assigned, val_share)


def _assigned_lists(
    videos: str | Path, names: list[str], assigned: Sequence[tuple[str, str, str]], val_share: float
) -> DatasetLists:
    """assigned: (stem, class name, split) of every clip, split being train or test."""
    lists = DatasetLists(names)
    files = by_stem(find_videos(videos, lists.notes))
    for stem, name, split in assigned:
        if name not in names:
            raise DataError(f"the split files name a class {name!r} that classInd.txt does not.")
        found = sorted(files.get(stem, ()), key=lambda path: (name not in path.parts, path))
        lists.add(stem, names.index(name), split, found, source=source_of(stem))
    if not lists.clips:
        raise DataError(f"{videos}: none of the {len(assigned)} clips of the split files is here.")
    return _with_val(lists, val_share)


def _with_val(lists: DatasetLists, val_share: float) -> DatasetLists:
    """val is a share of each class's sources in train, or else repeats test."""
    if not 0 <= val_share < 1:
        raise ConfigError(f"val share {val_share:g}; give 0 or more and less than 1, as in .1")
    if not val_share:
        lists.clips += [replace(clip, split="val") for clip in lists.of("test")]
        lists.notes.append("val.csv repeats test.csv; --val-share 0.1 takes it from train instead")
        return lists
    test, lists.clips = lists.of("test"), lists.of("train")
    lists.clips = test + _divide_classes(lists, (1 - val_share, val_share, 0), "", {})
    return lists


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: there is no such split file.")
    lines = text_of(path.read_bytes(), path).splitlines()
    return [line for line in map(str.strip, lines) if line]
