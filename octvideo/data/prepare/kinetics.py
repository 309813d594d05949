"""The official Kinetics annotations, in all published forms, matched with a folder of videos."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from octvideo.data.lists.class_names import plain_name
from octvideo.data.lists.text import text_of
from octvideo.data.prepare.make_lists import SPLITS, DatasetLists, by_stem, split_of
from octvideo.data.prepare.video_files import find_videos
from octvideo.errors import DataError, ListError


class Annotation(NamedTuple):
    """One clip: ten seconds of a video. label: class name, "" where none is published."""

    youtube_id: str
    start_seconds: int
    end_seconds: int
    label: str
    split: str

    @property
    def stem(self) -> str:
        """The clip's file name without suffix: `---QUuC4vJs_000084_000094`."""
        return f"{self.youtube_id}_{self.start_seconds:06d}_{self.end_seconds:06d}"


def read_annotations(path: str | Path) -> list[Annotation]:
    """A csv with the columns youtube_id, time_start, time_end and perhaps label, split, is_cc, in
    any order.

    Where the split column is missing or empty the file's name tells (`validate.csv`). Raises
    DataError or ListError.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such annotation file; Kinetics publishes train.csv,"
            " val(idate).csv, ..."
        )
    text = io.StringIO(text_of(path.read_bytes(), path), newline="")
    reader = csv.DictReader(text, skipinitialspace=True)
    if lacking := {"youtube_id", "time_start", "time_end"}.difference(reader.fieldnames or ()):
        raise DataError(
            f"{path}: no column {', '.join(sorted(lacking))}; is this the official annotation csv?"
        )
    return [_annotation(path, reader.line_num, row) for row in reader]


def _annotation(path: Path, line: int, row: Mapping[str, str | None]) -> Annotation:
    youtube_id, label, split = (
        (row.get(key) or "").strip() for key in ("youtube_id", "label", "split")
    )
    try:
        start, end = (int(float(row[key] or "")) for key in ("time_start", "time_end"))
    except ValueError:
        raise ListError(
            f"{path}:{line}: time_start and time_end are seconds, as in 84 or 84.0."
        ) from None
    split = split_of(split or path.stem)
    if not youtube_id or not split:
        raise ListError(
            f"{path}:{line}: no youtube_id, or no split (train, val, test) in the line or the"
            " file's name."
        )
    return Annotation(youtube_id, start, end, label, split)


def kinetics_lists(
    annotations: Iterable[Annotation],
    videos: str | Path,
    *,
    replacements: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
) -> DatasetLists:
    """Find each annotated clip below `videos`, in whatever folders (class names with spaces or `_`,
    or flat).

    replacements: a folder whose files win over those of the same name, as do files below `videos`
    in a folder whose name begins with "replacement". class_names: in label order; None: the first
    of the `known` sets that holds all labels, else the labels that occur, sorted. Raises DataError
    for a label outside them, or when nothing is found.
    """
    annotations = list(annotations)
    labels = sorted({annotation.label for annotation in annotations} - {""})
    lists = DatasetLists(list(class_names or ()))
    if not lists.class_names:
        name, found_names = choose_classes(labels, known or {})
        lists.class_names = list(found_names)
        lists.notes.append(f"class order: {name}")
    label_of = class_numbers(labels, lists.class_names)
    files = by_stem(find_videos(videos, lists.notes))
    for stem, paths in by_stem(find_videos(replacements) if replacements else ()).items():
        files[stem] = paths
    for annotation in annotations:
        found = sorted(files.get(annotation.stem, ()), key=partial(_rank, annotation.split))
        label, source = label_of[annotation.label], annotation.youtube_id
        lists.add(annotation.stem, label, annotation.split, found, source=source)
    if not lists.clips:
        missing = next(lists.missing[split][0] for split in SPLITS if split in lists.missing)
        raise DataError(
            f"{videos}: none of the {len(annotations)} annotated clips is here, as in"
            f" {missing}.mp4."
        )
    return lists


def _rank(split: str, path: Path) -> tuple[bool, bool, Path]:
    """Replacements come first, then files in a folder of their split."""
    folders = path.parent.parts
    replaces = any(folder.startswith("replacement") for folder in folders)
    return not replaces, split not in map(split_of, folders), path


def choose_classes(
    labels: Sequence[str], known: Mapping[str, Sequence[str]]
) -> tuple[str, Sequence[str]]:
    # A val.csv of a few classes must get the numbers that the whole data set has.
    for name, names in known.items():
        if set(map(plain_name, labels)) <= set(map(plain_name, names)):
            return name, names
    return "the labels that occur, sorted", labels


def class_numbers(labels: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """Class name as annotated -> label; "" -> -1."""
    numbers = {plain_name(name): number for number, name in enumerate(class_names)}
    if unknown := [label for label in labels if plain_name(label) not in numbers]:
        raise DataError(
            f"{len(unknown)} annotated labels are not among the class names, as {unknown[0]!r}."
        )
    return {"": -1} | {label: numbers[plain_name(label)] for label in labels}
