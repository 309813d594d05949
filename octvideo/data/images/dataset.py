"""Labeled images as a dataset of the engine: ImageNet's folders and CIFAR-10's batches."""

import hashlib
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image
from torch import Tensor

from octvideo.data.images import cifar10
from octvideo.data.images.transforms import Transform
from octvideo.data.lists.class_names import match_classes, plain_name
from octvideo.data.lists.video_list import VideoEntry, VideoList
from octvideo.data.loading.batch import Sample, sample_or_another
from octvideo.data.pictures import is_picture, read_picture
from octvideo.data.reading import reading
from octvideo.data.video.frame_source import refuse_extreme
from octvideo.errors import DataError

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "test")}


class ImageFolder:
    """root/class name/.../picture: classes in the order of their names, as ImageNet's.

    model_names: the classes of a network, whose numbers the folders of these names get; folders may
    lack some. Where no folder has such a name, they are the network's in their order: all of them,
    or those of `train_names`, the folders that it was trained on, which may be more. Raises
    DataError for folders of which only some are among the network's, which are fewer without
    their names, or which are numbers that their names as text bring into another order.
    """

    def __init__(
        self, root: str | Path, model_names: Sequence[str] = (), train_names: Sequence[str] = ()
    ) -> None:
        self.root = Path(root)
        self.class_names = _folder_names(self.root)
        labels = _labels(self.class_names, model_names, train_names, str(root))
        self._images = VideoList(
            (
                VideoEntry(str(path.relative_to(self.root)), (label,))
                for label, name in zip(labels, self.class_names, strict=True)
                for path in sorted((self.root / name).rglob("*"))
                if is_picture(path)
            ),
            root=self.root,
            name=str(self.root),
        )
        if not len(self._images):
            raise DataError(
                f"{root}: no pictures; the layout is {self.root.name}/<class>/<picture>.jpg"
            )

    def __len__(self) -> int:
        return len(self._images)

    def fingerprint(self) -> str:
        """A digest of names and labels; the files may move."""
        return self._images.fingerprint()

    def entry(self, index: int) -> tuple[str, int]:
        entry = self._images[index]
        return entry.path, entry.label

    def read(self, index: int) -> Image.Image:
        """The picture in RGB; raises DecodeError."""
        path, _ = self.entry(index)
        with reading(path):
            picture = read_picture(path)
            refuse_extreme(picture, path)
            return Image.fromarray(picture)


class Cifar10:
    """The python batches of one split, all in memory (150 MB for training). model_names: as of
    `ImageFolder`."""

    class_names = cifar10.CLASS_NAMES

    def __init__(self, folder: str | Path, split: str, model_names: Sequence[str] = ()) -> None:
        self.folder, self.split = Path(folder), split
        self._images, labels = cifar10.read_split(self.folder, split)
        classes = _labels(self.class_names, model_names, (), str(folder))
        self._labels = [classes[label] for label in labels]

    def __len__(self) -> int:
        return len(self._labels)

    def fingerprint(self) -> str:
        """A digest of the labels."""
        text = f"{self.split} {list(self._labels)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def entry(self, index: int) -> tuple[str, int]:
        return f"{self.folder}/{self.split}[{index}]", self._labels[index]

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self._images[index])


ImageSource = ImageFolder | Cifar10
"""Pictures by position, with the names of their classes in label order."""


def open_images(
    folder: str | Path, split: str, num_classes: int, model_names: Sequence[str] = ()
) -> ImageSource:
    """The "train" or "val" pictures under a folder: CIFAR-10's batches, or train/ and val/ (or
    test/) of classes. model_names: as of `ImageFolder`.

    Raises DataError when there is neither, or when there are more classes than the network has.
    """
    folder = Path(folder)
    batches = cifar10.find_batches(folder)
    names = SPLIT_FOLDERS[split]
    found = next((folder / name for name in names if (folder / name).is_dir()), None)
    if batches is None and found is None:
        raise DataError(
            f"{folder}: neither {' nor '.join(f'{name}/' for name in names)} of class folders nor"
            " CIFAR-10's batches; set DATA.PATH_TO_DATA_DIR to the folder that holds them"
        )
    source: ImageSource
    if batches:
        source = Cifar10(batches, split, model_names)
    else:
        source = ImageFolder(found or folder, model_names, image_class_names(folder))
    if len(source.class_names) > num_classes:
        raise DataError(
            f"{folder}: {len(source.class_names)} classes, but MODEL.NUM_CLASSES is {num_classes};"
            " make them equal"
        )
    return source


def _labels(
    names: Sequence[str], model_names: Sequence[str], train_names: Sequence[str], root: str
) -> Sequence[int]:
    """By order where no name is the network's: ImageNet's folders have other names than its
    classes. As many folders as it has classes tell the order, no others."""
    if not model_names:
        return range(len(names))
    if {*map(plain_name, names)} & {*map(plain_name, model_names)}:
        return match_classes(model_names, names, source=root)
    order = train_names if len(train_names) == len(model_names) else names
    if len(order) != len(model_names):
        raise DataError(
            f"{root}: {len(names)} classes, none of which is called as one of the network's"
            f" {len(model_names)}; name the folders so, or add those of the other classes, which"
            " may be empty, so that their order tells which is which"
        )
    if larger_first := _numbers_out_of_order(order):
        raise DataError(
            f"{root}: the order of the folders' names tells which class is which, and there"
            f" {larger_first[0]} stands before {larger_first[1]}; give all numbers as many digits,"
            " as in 002 and 010, or the folders the names of the network's classes"
        )
    if unknown := [name for name in names if name not in order]:
        raise DataError(
            f"{root}: {unknown[0]} is not among the {len(order)} folders of train/, whose order"
            " tells which class is which; give both the same folders"
        )
    return [order.index(name) for name in names]


def _numbers_out_of_order(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two neighbors of which the larger stands before the smaller, if all are numbers."""
    if not all(name.isdecimal() for name in names):
        return None
    return next((pair for pair in pairwise(names) if int(pair[0]) > int(pair[1])), None)


def image_class_names(folder: str | Path) -> tuple[str, ...]:
    """The classes of the "train" pictures under a folder, in label order; () if there are none."""
    folder = Path(folder)
    if cifar10.find_batches(folder):
        return cifar10.CLASS_NAMES
    return _folder_names(folder / "train") if (folder / "train").is_dir() else ()


def _folder_names(root: Path) -> tuple[str, ...]:
    """Hidden folders (.ipynb_checkpoints) are no classes."""
    folders = (at.name for at in root.iterdir() if at.is_dir() and not at.name.startswith("."))
    return tuple(sorted(folders))


class ImageDataset:
    """Transformed pictures; a sample is a function of (seed, epoch, index) alone."""

    def __init__(self, source: ImageSource, transform: Transform, *, seed: int = 0) -> None:
        self.source, self.transform, self.seed = source, transform, seed

    def __len__(self) -> int:
        return len(self.source)

    def fingerprint(self) -> str:
        """A digest of the pictures' names and labels."""
        return self.source.fingerprint()

    def sample(self, epoch: int, index: int) -> Sample:
        """An unreadable picture gives way to another of the sample's seed, and is reported."""
        return sample_or_another(self._read, len(self), seed=self.seed, epoch=epoch, index=index)

    def _read(self, position: int, draw: random.Random) -> tuple[Tensor, int, str]:
        path, label = self.source.entry(position)
        return self.transform(self.source.read(position), draw), label, path
