"""Train, val and test lists from the clips that a dataset names and the files on a disk."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from octvideo.data.lists import class_names
from octvideo.data.lists.video_list import VideoEntry, write_list
from octvideo.errors import DataError
from octvideo.files import make_output_folder

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# mmaction2's videos_train, video-nonlocal-net's train_256, kinetics_val, testset. A number is that
# of pixels: test1 and test2 are classes.
_NAMES_SPLIT = re.compile(
    r"(?:(?:kinetics|k|(?:raw)?videos?|clips|frames)[\d-]*[_ -])?"
    rf"({'|'.join(SPLIT_NAMES)})(?:[_ -]?(?:set|split|list|videos|\d{{3,}}p?))*"
)
_EXAMPLES = 3


def split_of(name: str) -> str:
    """The split that the name of a folder or a list says, "" for none."""
    match = _NAMES_SPLIT.fullmatch(name.lower())
    return SPLIT_NAMES[match[1]] if match else ""


@dataclass(frozen=True, slots=True)
class Clip:
    """A file of a split. label: -1 where none is published. One `source` is one scene."""

    path: Path
    label: int
    split: str
    source: str


@dataclass(slots=True)
class DatasetLists:
    """The lists and their problems. duplicates: clips that are named or present twice or more."""

    class_names: list[str]
    clips: list[Clip] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _named: set[tuple[str, str]] = field(default_factory=set)

    def add(self, stem: str, label: int, split: str, files: Sequence[Path], *, source: str) -> None:
        """A clip that the dataset names, and the files of that name, the best first."""
        if (stem, split) in self._named:
            self.duplicates.append(f"{stem} (named twice in {split})")
            return
        self._named.add((stem, split))
        if files:
            self.clips.append(Clip(files[0], label, split, source))
        else:
            self.missing.setdefault(split, []).append(stem)
        if len(files) > 1:
            self.duplicates.append(f"{files[0]} (also {', '.join(map(str, files[1:]))})")

    def of(self, split: str) -> list[Clip]:
        """The clips of one split."""
        return [clip for clip in self.clips if clip.split == split]

    def empty_classes(self) -> list[str]:
        """Names of classes that no clip belongs to."""
        present = {clip.label for clip in self.clips}
        return [name for label, name in enumerate(self.class_names) if label not in present]

    def leaks(self) -> list[str]:
        """Sources with clips both in train and in val or test."""
        trained = {clip.source for clip in self.of("train")}
        return sorted(trained & {clip.source for clip in self.clips if clip.split != "train"})

    def report(self, *, examples: int | None = _EXAMPLES) -> str:
        """Found, missing, duplicates, leaks, counts per class; `examples` names of each (None:
        all)."""
        lines = [f"{len(self.class_names)} classes", *map("note: {}".format, self.notes)]
        for split in SPLITS:
            missing = self.missing.get(split, [])
            lines += _with_names(
                f"{split}: {len(self.of(split))} found, {len(missing)} missing", missing, examples
            )
        lines += _with_names(f"{len(self.duplicates)} duplicates", self.duplicates, examples)
        if empty := self.empty_classes():
            lines += _with_names(f"{len(empty)} classes without a video", empty, examples)
        leaks = self.leaks()
        lines += _with_names(
            f"{len(leaks)} leaks (sources with clips in train and in val or test)", leaks, examples
        )
        return "\n".join(lines + self._class_counts(examples))

    def _class_counts(self, examples: int | None) -> list[str]:
        labels = range(len(self.class_names))
        columns = []
        for split in SPLITS:
            counts = Counter(clip.label for clip in self.of(split))
            columns.append([counts[label] for label in labels])
        rows = list(zip(*columns, strict=True))
        order: Iterable[int] = range(len(rows))
        title = "clips per class (train, val, test)"
        if examples is not None:
            order = sorted(order, key=lambda label: rows[label])[:examples]
            title = f"fewest {title}"
        return [
            title,
            *(
                f"  {', '.join(map(str, rows[label]))}  {self.class_names[label]}"
                for label in order
            ),
        ]


def _with_names(title: str, names: Sequence[str], examples: int | None) -> list[str]:
    """A line, and the names (or some) below it."""
    shown = names[:examples]
    more = [f"  ... and {len(names) - len(shown)} more"] if len(shown) < len(names) else []
    return [title, *(f"  {name}" for name in shown), *more]


def write_lists(
    lists: DatasetLists, folder: str | Path, *, relative_to: str | Path | None = None
) -> list[Path]:
    """Write the list of every split that has clips, class_names.txt and report.txt; the paths of
    the lists.

    A list of another split that lies there is of an earlier division or the user's: it gets another
    name, which a note says, since it would be tested by the new class names on videos of the new
    train.csv. A split without published labels becomes an unlabeled list. relative_to: cut this
    folder off (DATA.PATH_PREFIX).
    """
    folder = Path(folder)
    make_output_folder(str(folder))
    written = []
    for split in SPLITS:
        entries = [
            VideoEntry(_written(clip.path, relative_to), (clip.label,) if clip.label >= 0 else ())
            for clip in lists.of(split)
        ]
        if entries:
            written.append(folder / f"{split}.csv")
            write_list(written[-1], entries)
        elif (path := folder / f"{split}.csv").is_file():
            lists.notes.append(
                f"no video is in {split}: {path.name} of before is now {_set_aside(path)}"
            )
    names = "".join(f"{name}\n" for name in lists.class_names)
    (folder / class_names.FILE_NAME).write_text(names, encoding="utf-8")
    (folder / "report.txt").write_text(lists.report(examples=None) + "\n", encoding="utf-8")
    return written


def _set_aside(path: Path) -> str:
    """The new name of a file: the first of NAME.old, NAME.old2, ... that is free."""
    numbers = chain(("",), count(2))
    names = (path.with_name(f"{path.name}.old{number}") for number in numbers)
    aside = next(name for name in names if not name.exists())
    path.rename(aside)
    return aside.name


def _written(path: Path, relative_to: str | Path | None) -> str:
    # Path.resolve follows links, and data sets are often links.
    path = Path(os.path.abspath(path))  # noqa: PTH100
    if relative_to is None:
        return str(path)
    base = Path(os.path.abspath(relative_to))  # noqa: PTH100
    if not path.is_relative_to(base):
        raise DataError(
            f"{path} is not inside {base}; leave --relative-to away, or name a folder above the"
            " videos."
        )
    return str(path.relative_to(base))


def by_stem(videos: Iterable[Path]) -> dict[str, list[Path]]:
    """Stem of a file name -> its files. Re-encoded copies keep the stem, not the suffix."""
    stems = defaultdict(list)
    for video in videos:
        stems[video.stem].append(video)
    return stems


_SOURCES = (
    re.compile(r"(?P<source>v_.+_g\d+)_c\d+"),  # UCF101: clips of a group are cut from one video
    re.compile(r"(?P<source>.{11})_\d{6}_\d{6}"),  # Kinetics: youtube id, start, end
)


def source_of(stem: str, default: str = "") -> str:
    """The video of a clip, if its file name tells; else the default, or the name itself."""
    matches = (pattern.fullmatch(stem) for pattern in _SOURCES)
    return next((match["source"] for match in matches if match), default or stem)
