"""Files that appear whole or not at all. Paths go through iopath, so a registered handler (object storage) works."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO
from uuid import uuid4

from iopath.common.file_io import g_pathmgr

from octvideo.errors import OctvideoError


def is_local(path: str) -> bool:
    return "://" not in path


def write_atomically(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Call write(file); then either all of it stands under `path`, on the disk, or what stood there before.

    Object stores show a file when it is closed, so only local files take the way over a temporary name.
    """
    if not is_local(path):
        with g_pathmgr.open(path, "wb") as file:
            write(file)
        return
    temporary = f"{path}.tmp"
    try:
        with Path(temporary).open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(str(Path(path).parent))


def fsync_folder(folder: str) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_output_folder(folder: str) -> None:
    """Create the folder and prove that it can be written to. Raises OctvideoError."""
    probe = f"{folder}/.write_test_{uuid4().hex}"  # of this process alone: all ranks probe one folder at a time
    try:
        g_pathmgr.mkdirs(folder)
        with g_pathmgr.open(probe, "wb") as file:
            file.write(b"")
        g_pathmgr.rm(probe)
    except OSError as error:
        raise OctvideoError(
            f"{folder}: cannot be written to ({error.strerror or error}); choose another OUTPUT_DIR"
        ) from error
