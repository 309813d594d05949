"""Class names in label order, and the translation of a list's labels for a model that was trained
with another order.

Two orders of Kinetics-600 are in use: public PySlowFast weights score 54 % on lists of the other
one. So labels are compared by name if both sides have names: beside a list as `class_names.txt`, in
a checkpoint's meta.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from octvideo.data.lists.text import text_of
from octvideo.data.remote import join, parent
from octvideo.data.storage.ranges import exists, read_file
from octvideo.errors import DataError

FILE_NAME = "class_names.txt"
_MAX_BYTES = 1 << 24


def read_class_names(path: str | Path) -> list[str]:
    """One name per line, in label order; in a file .json PySlowFast's object of names and labels,
    `{"kick": 0, "wave": 1}`. At an address the file is read anew each time. Raises DataError for a
    missing or empty file or one that is not UTF-8, for a repeated name, and for labels that do not
    count from 0."""
    try:
        text = text_of(read_file(str(path), _MAX_BYTES), path)
    except OSError as error:
        raise DataError(
            f"{path}: there is no such file, or it cannot be read ({error.strerror or error}); it"
            " holds one class name per line, in label order."
        ) from error
    is_json = str(path).lower().endswith(".json")
    names = _of_json(text, str(path)) if is_json else _of_lines(text)
    if not names:
        raise DataError(f"{path}: no class names; it holds one per line, in label order.")
    _refuse_repeated(names, str(path))
    return names


def _of_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _of_json(text: str, path: str) -> list[str]:
    """Labels may be texts, as Something-Something's are; names may stand in quotes once more."""
    try:
        labels = {name.strip(' "'): int(label) for name, label in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        labels = {"": -1}
    names = sorted(labels, key=labels.__getitem__)
    if [labels[name] for name in names] != list(range(len(names))):
        raise DataError(
            f'{path}: is not {{"name": label, ...}} with labels 0, 1, 2, ..., each once; names in'
            " label order, one a line in a file .txt, do as well."
        )
    return names


def names_beside(list_path: str | Path) -> list[str] | None:
    """The class names in the folder of a list, if it has any. Raises DataError where the storage
    does not answer."""
    path = join(parent(list_path), FILE_NAME)
    return read_class_names(path) if exists(path) else None


def match_classes(
    model_names: Sequence[str], list_names: Sequence[str], *, source: str = FILE_NAME
) -> list[int]:
    """For each label of the list the model's class of that name; [0, 1, 2, ...] if both agree.

    A list may hold some of the model's classes, in any order. Names are compared as `plain_name`
    writes them: folders spell "riding a bike" as "riding_a_bike". Raises DataError for a name that
    the model does not have, so that a list of other classes is never scored.
    """
    _refuse_repeated(list_names, source)
    _refuse_repeated(model_names, "the network")
    classes = {plain_name(name): index for index, name in enumerate(model_names)}
    if unknown := [name for name in list_names if plain_name(name) not in classes]:
        examples = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        raise DataError(
            f"{source}: {len(unknown)} of {len(list_names)} classes are not among the"
            f" {len(model_names)} of the network ({examples}). Use a list of its classes, name them"
            " as they are named there, or fine-tune it on these."
        )
    return [classes[plain_name(name)] for name in list_names]


def renumbered(
    labels: Sequence[int], classes: Sequence[int] | None, source: str
) -> tuple[int, ...]:
    """The model's class of each label, by the numbers of `match_classes`; None leaves them. Raises
    DataError for a label beyond the names."""
    if classes is None:
        return tuple(labels)
    if max(labels, default=0) >= len(classes):
        raise DataError(
            f"{source}: label {max(labels)} has no name; its class_names.txt holds {len(classes)}."
        )
    return tuple(classes[label] for label in labels)


def plain_name(name: str) -> str:
    """The form in which class names are compared."""
    return " ".join(name.replace("_", " ").casefold().split())


def _refuse_repeated(names: Sequence[str], source: str) -> None:
    name, count = Counter(map(plain_name, names)).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(
            f"{source}: the class name {name!r} stands there {count} times; labels need one name"
            " each."
        )
