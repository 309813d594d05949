"""CIFAR-10's python batches, read without running what a pickle may ask for.

A batch is the pickle of a dictionary with b"data", uint8 (10000, 3072) in the order R, G, B, and b"labels". The only
callables that such a file names are those that build an array; each is replaced by a plain stand-in, any other refused.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.errors import DataError

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
# A published batch has 31 MB, and what a pickle holds is no larger than itself: this bounds the memory.
MAX_BYTES = 1 << 28


def find_batches(folder: Path) -> Path | None:
    """Where the batches are: in the folder itself or in the one of the archive; None when it has none."""
    return next(
        (at for at in (folder, folder / FOLDER) if (at / BATCHES["val"][0]).is_file()), None
    )


def read_split(folder: Path, split: str) -> tuple[NDArray[np.uint8], list[int]]:
    """(N, 32, 32, 3) pictures and N labels of "train" or "val". Raises DataError for a file of another kind."""
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
        return _check(_load(path.read_bytes()))
    except _RefusedError as error:
        raise DataError(f"{path}: {error}; this is no CIFAR-10 batch. Download it again") from None
    except Exception as error:
        # Damaged bytes raise whatever the opcode that they happen to spell raises.
        cause = str(error) or type(error).__name__
        raise DataError(
            f"{path}: not a readable CIFAR-10 batch ({cause}); download it again"
        ) from None


def _load(data: bytes) -> Any:
    for opcode, argument, _ in pickletools.genops(data):
        # The unpickler makes room for every number below that of a memo; walking the opcodes also meets false lengths.
        if "PUT" in opcode.name and argument is not None and int(argument) > len(data):
            raise _RefusedError(f"numbers a value {argument}, beyond its own {len(data)} bytes")
    return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()


def _check(batch: Any) -> tuple[NDArray[np.uint8], list[int]]:
    if not isinstance(batch, dict):
        raise _RefusedError(f"holds a {type(batch).__name__}, not a dictionary")
    data, labels = batch.get(b"data"), batch.get(b"labels")
    if not (isinstance(data, _Array) and isinstance(labels, list)):
        raise _RefusedError("lacks an array b'data' or a list b'labels'")
    images = data.to_numpy()
    if images.shape != (len(labels), 3072):
        raise _RefusedError(
            f"has {images.shape} pixels for {len(labels)} labels, not (labels, 3072)"
        )
    if not all(isinstance(label, int) and 0 <= label < len(CLASS_NAMES) for label in labels):
        raise _RefusedError("has a label outside 0..9")
    return images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


class _RefusedError(Exception):
    """Well-formed, but not what a batch holds."""


class _DType:
    """What the pickle says of a dtype; kept as a word, never handed to numpy."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code.decode() if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and fields mean nothing to bytes."""


class _Array:
    """What the pickle says of an array: (version, shape, dtype, is_fortran, bytes)."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_numpy(self) -> NDArray[np.uint8]:
        _, shape, dtype, is_fortran, data = self.state
        if not (
            isinstance(dtype, _DType)
            and dtype.code == "u1"
            and isinstance(data, bytes)
            and not is_fortran
        ):
            raise _RefusedError("has an array that is not of bytes in C order")
        return np.frombuffer(data, np.uint8).reshape(shape)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in a pickle of protocol 2."""
    if not (isinstance(text, str) and encoding in ("latin1", b"latin1")):
        raise _RefusedError("encodes text other than bytes")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _RefusedError(f"asks for {module}.{name}")
        return _STAND_INS[module, name]
