"""The list that each video of a folder was put into, also after it got another name or place."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.make_lists import SPLITS, DatasetLists
from octvideo.data.remote import absolute
from octvideo.errors import DataError
from octvideo.files import is_there

PARTS = "parts.json"  # absolute path -> split and bytes of every video that was ever in the lists
# val.csv may repeat test.csv, or train.csv.
REPEATED_FIRST = ("val", "test", "train")
_NAMES = 3  # of a path, from its end, by which videos of one size are told apart


class Place(NamedTuple):
    """The list of a video. num_bytes: of its file, -1 where it is not known."""

    split: str
    num_bytes: int = -1


Division = Mapping[str, Place]
"""Absolute path -> its list."""


def read_division(work: Path) -> dict[str, Place]:
    """The list of every video that was ever in the lists of `work`; {} where there are none. Raises
    DataError for a damaged parts.json."""
    noted = work / PARTS
    if noted.is_file():
        with suppress(ValueError, TypeError, AttributeError):
            return {path: _place(said) for path, said in json.loads(noted.read_bytes()).items()}
        raise DataError(
            f"{noted}: is damaged; it says which list each video is in: delete it, and the lists"
            " beside it say so"
        )
    found: dict[str, Place] = {}
    for split in REPEATED_FIRST:  # lists of an earlier version
        path = work / f"{split}.csv"
        if path.is_file():
            found |= dict.fromkeys((entry.path for entry in read_list(path)), Place(split))
    return found


def _place(said: object) -> Place:
    """Raises ValueError or TypeError for what is none. An earlier version noted the split alone."""
    place = Place(said) if isinstance(said, str) else Place(*said)  # type: ignore[misc]
    if place.split not in SPLITS or not isinstance(place.num_bytes, int):
        raise ValueError(f"{said!r} is no split of {SPLITS} and a number of bytes")
    return place


def division_of(lists: DatasetLists, sizes: Mapping[str, int]) -> dict[str, Place]:
    """That of these lists. sizes: absolute path -> bytes."""
    found: dict[str, Place] = {}
    for split in REPEATED_FIRST:
        for path in (absolute(str(clip.path)) for clip in lists.of(split)):
            found[path] = Place(split, sizes[path])
    return found


def follow(before: Division, sizes: Mapping[str, int]) -> dict[str, Place]:
    """`before` and the videos that have another name or place now, so that each is in no other list
    than it was: a video of no known path is taken for one that is gone and had its size in bytes.
    Of several that are gone, the one of the same last names counts (class and file, or the file
    alone); where these do not tell which, and one of them was in train, so is the video.

    A known path stays in its list. Where its file has another size, it was changed, or else it is
    another video that got this name: it goes to train where one was there that had its size.

    Those that are gone are remembered: they may come back, and equal sizes may be chance.
    sizes: absolute path -> bytes of each video that is there.
    """
    gone: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for path, place in before.items():
        if sizes[path] != place.num_bytes if path in sizes else not is_there(path):
            for key in _keys(path, place.num_bytes):
                gone[key].append(path)
    found = dict(before)
    for path, num_bytes in sizes.items():
        own = before.get(path)
        if own and own.num_bytes in (num_bytes, -1):
            continue
        if same := next((gone[key] for key in _keys(path, num_bytes) if key in gone), []):
            splits = [before[old].split for old in same] + ([own.split] if own else [])
            found[path] = Place(min(splits, key=SPLITS.index), num_bytes)
    return found


def has_moved(before: Division, sizes: Mapping[str, int]) -> bool:
    """Whether a video of `before` is gone, and one of `sizes` has its size and the name of its
    file."""
    here = {(num_bytes, Path(path).name) for path, num_bytes in sizes.items()}
    return any(
        (place.num_bytes, Path(path).name) in here and not is_there(path)
        for path, place in before.items()
    )


def _keys(path: str, num_bytes: int) -> Iterator[tuple[object, ...]]:
    """The size and the last names, and ever fewer of them."""
    names = Path(path).parts
    for number in range(_NAMES, -1, -1):
        yield (num_bytes, *names[len(names) - number :])


def counts(splits: Iterable[str]) -> str:
    """ "8 train, 1 val", of the splits of some videos."""
    by_split = Counter(splits)
    return ", ".join(f"{by_split[split]} {split}" for split in SPLITS if by_split[split])
