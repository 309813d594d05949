"""CIFAR-10's python batches: the pickle of a dict with "data", uint8 (10000, 3072) in R, G, B
order, and "labels"."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.errors import CheckpointError, DataError
from octvideo.numpy_pickle import read_numpy_pickle

BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "val": ("test_batch",)}
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
FOLDER = "cifar-10-batches-py"  # the name inside the published archive
MAX_BYTES = 1 << 28  # bounds the memory: a published batch has 31 MB


def find_batches(folder: Path) -> Path | None:
    """The folder of the batches: itself or the archive's in it; None if there is none."""
    return next(
        (at for at in (folder, folder / FOLDER) if (at / BATCHES["val"][0]).is_file()), None
    )


def read_split(folder: Path, split: str) -> tuple[NDArray[np.uint8], list[int]]:
    """(N, 32, 32, 3) pictures and N labels of "train" or "val". Raises DataError for a file of
    another kind."""
    parts = [read_batch(folder / name) for name in BATCHES[split]]
    return np.concatenate([images for images, _ in parts]), [
        label for _, labels in parts for label in labels
    ]


def read_batch(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    if not path.is_file():
        raise DataError(f"{path}: the batch is missing; unpack cifar-10-python.tar.gz whole")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes; a CIFAR-10 batch has 31 MB. Download it again"
        )
    try:
        batch = read_numpy_pickle(str(path))
    except CheckpointError as error:
        raise DataError(f"{error}; download the CIFAR-10 batch again") from None
    if problem := _problem(batch):
        raise DataError(f"{path}: {problem}; this is no CIFAR-10 batch. Download it again")
    return batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), batch["labels"]


def _problem(batch: dict[str, Any]) -> str:
    images, labels = batch.get("data"), batch.get("labels")
    if not (isinstance(images, np.ndarray) and isinstance(labels, list)):
        return "lacks an array 'data' or a list 'labels'"
    if images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        return (
            f"has {images.shape} {images.dtype} for {len(labels)} labels, not (labels, 3072) uint8"
        )
    if not all(isinstance(label, int) and 0 <= label < len(CLASS_NAMES) for label in labels):
        return "has a label outside 0..9"
    return ""
