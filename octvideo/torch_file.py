"""Files of `torch.save`: read as untrusted input, written atomically."""

import pickle
import posixpath
import warnings
from pathlib import Path
from typing import Any

import torch
from iopath.common.file_io import g_pathmgr

from octvideo.errors import CheckpointError, first_line
from octvideo.files import what_is_missing, write_atomically
from octvideo.torch_bounds import check_bounds


def read_torch_file(path: str, *, mapped: bool = False) -> dict[str, Any]:
    """The dict that a file of `torch.save` holds, tensors on the CPU; nothing in it is executed.

    mapped: leave the numbers of tensors in a file on this machine until they are used.

    Raises CheckpointError for a file that is missing, damaged, holds code, asks for more memory
    than its size explains (`torch_bounds`), or is no dict.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise CheckpointError(f"{path}: is not a file; name the checkpoint itself")
    try:
        with g_pathmgr.open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it is about to refuse
            check_bounds(file, path)
            source = path if mapped else file
            content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {what_is_missing(path)}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, it is no checkpoint of tensors and plain values; loading anything"
            " else could run code"
        ) from error
    # What a torn or forged file makes the reader raise has no end.
    except Exception as error:
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a checkpoint's dict")
    return content


def write_torch_file(path: str, content: dict[str, Any]) -> None:
    """Write a dict to `path`, creating its folder. On this machine, a failure leaves an
    existing file unchanged."""
    try:
        g_pathmgr.mkdirs(posixpath.dirname(path) or ".")
        # Large, and to read the file that is replaced would cost as much as to write it.
        write_atomically(path, lambda file: torch.save(content, file), put_back=False)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        reason = error.__cause__ or error
        raise CheckpointError(
            f"{path}: cannot be written ({reason}); earlier checkpoints are whole. "
            "Make room and run the same command again to continue"
        ) from error
