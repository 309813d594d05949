"""One writer per output folder: its process, and the time since when it writes."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from octvideo.errors import OctvideoError, logger
from octvideo.files import is_local, is_unfinished, make_output_folder

NAME = ".lock"


@contextmanager
def only_writer(folder: str) -> Iterator[None]:
    """Create the folder and lock it; raises OctvideoError, which names the process that holds the
    lock.

    The system drops the lock of a process when it ends, so a leftover lock file is taken over. An
    object store has no locks: there the caller is responsible.
    """
    make_output_folder(folder, "choose another OUTPUT_DIR")
    if not is_local(folder):
        yield
        return
    path = f"{folder}/{NAME}"
    descriptor = _locked(path, folder)
    try:
        if left := _content(descriptor):
            logger.info("%s: the lock of %s was left behind; taken over", folder, _owner(left))
        os.ftruncate(descriptor, 0)
        owner = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "command": Path(sys.argv[0]).name or "python",
        }
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        _remove_unfinished(folder)
        yield
    finally:
        if is_ours(descriptor, path):
            Path(path).unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: str, folder: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _content(descriptor)
            if not isinstance(error, BlockingIOError) and not (owner and _may_live(owner)):
                return descriptor  # a file system without locks: the file's content has to do
            os.close(descriptor)
            raise OctvideoError(
                f"{folder}: in use by {_owner(owner)}; wait for it, stop it, or choose another"
                " OUTPUT_DIR"
            ) from None
        if is_ours(descriptor, path):
            return descriptor
        os.close(descriptor)  # its owner removed it while we waited: lock the one that is there now


def _may_live(owner: dict[str, Any]) -> bool:
    """Whether the process of a lock may still run. Nothing is known of another host's."""
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(owner.get("process", 0)), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        pass
    return True


def is_ours(descriptor: int, path: str) -> bool:
    """Whether the file at `path` is still the one that was opened, and locked, as `descriptor`."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), Path(path).stat())
    return False


def _content(descriptor: int) -> dict[str, Any]:
    with suppress(ValueError, OSError):
        content = json.loads(os.pread(descriptor, 4096, 0))
        return content if isinstance(content, dict) else {}
    return {}


def _owner(content: dict[str, Any]) -> str:
    if not content:
        return "another process"
    known = {"command": "a run", "process": "?", "host": "?", "since": "?"} | content
    return "{command}, process {process} on {host}, since {since}".format(**known)


def _remove_unfinished(folder: str) -> None:
    """Remove the partial files of killed writes; no other process writes here now."""
    for place in (Path(folder), Path(folder) / "checkpoints"):
        if place.is_dir():
            for entry in place.iterdir():
                if is_unfinished(entry.name):
                    entry.unlink(missing_ok=True)
