"""The checkpoints of a run: their names, which of them is the newest whole one, and which are
removed.

    OUTPUT_DIR/checkpoints/checkpoint_epoch_00002.pyth               after two whole epochs
    OUTPUT_DIR/checkpoints/checkpoint_epoch_00002_sample_00000320.pyth  and 320 samples of the third
    OUTPUT_DIR/checkpoints/best.pyth                                 the best validation so far

Names sort in the order of training.
"""

import re
import zipfile
from collections.abc import Collection
from typing import Any

from iopath.common.file_io import g_pathmgr

from octvideo.errors import logger
from octvideo.files import is_unfinished
from octvideo.torch_file import read_torch_file

BEST = "best.pyth"  # as whole as the others: a run goes on from it where they are gone
# 0.1.0 counted batches.
NAME = re.compile(r"checkpoint_epoch_\d{5}(_batch_\d{6}|_sample_\d{8,})?\.pyth")


def checkpoint_name(epoch: int, samples: int = 0) -> str:
    """epoch: completed epochs; samples: completed samples of the next epoch."""
    return f"checkpoint_epoch_{epoch:05d}" + (f"_sample_{samples:08d}" if samples else "") + ".pyth"


def read_whole(path: str) -> dict[str, Any] | None:
    """The content of a file whose checksums are all right; None for a damaged or cut one."""
    try:
        with g_pathmgr.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            if archive.testzip() is not None:
                return None
        return read_torch_file(path)
    # What damaged bytes make a reader raise has no end.
    except Exception:
        return None


def list_checkpoints(folder: str) -> list[str]:
    """Paths of the epoch and mid-epoch checkpoints, oldest first; best.pyth is not among them."""
    if not g_pathmgr.isdir(folder):
        return []
    return [f"{folder}/{name}" for name in sorted(g_pathmgr.ls(folder)) if NAME.fullmatch(name)]


def newest_first(folder: str) -> list[str]:
    """Paths of the checkpoints of a run, whole ones or not, in the order in which it looks for the
    one to go on from: best.pyth comes last."""
    best = f"{folder}/{BEST}"
    return [*reversed(list_checkpoints(folder)), *([best] if g_pathmgr.isfile(best) else [])]


def has_begun(folder: str) -> bool:
    """Whether a run has left checkpoints, whole ones or not."""
    return bool(newest_first(folder))


def is_resumable(folder: str) -> bool:
    """Whether one of its checkpoints is whole."""
    return any(read_whole(path) is not None for path in newest_first(folder))


def read_latest(folder: str) -> tuple[str, dict[str, Any]] | None:
    """The newest whole checkpoint and its content, with a warning of damaged ones; best.pyth where
    no other is whole; else None."""
    for path in newest_first(folder):
        # Read once: torch may read damaged bytes the one time and not the other.
        if (content := read_whole(path)) is not None:
            return path, content
        logger.warning("%s: torn or truncated, passed over", path)
    return None


def find_latest(folder: str) -> str | None:
    """The path of the newest whole checkpoint, as of `read_latest`."""
    found = read_latest(folder)
    return found[0] if found else None


def prune(folder: str, keep: int, written: str, damaged: Collection[str] = ()) -> None:
    """Remove all but the newest `keep` (at least one) checkpoints up to `written`, and what killed
    writes left.

    written: the path just written, which stays. damaged: paths that do not count among those kept.
    Later ones stay: a resume passed them over as damaged, and training has not come there yet.
    """
    so_far = [path for path in list_checkpoints(folder) if path <= written]
    kept = [written, *[path for path in so_far if path not in damaged][-max(keep, 1) :]]
    unfinished = [f"{folder}/{name}" for name in g_pathmgr.ls(folder) if is_unfinished(name)]
    for path in so_far + unfinished:
        if path not in kept:
            g_pathmgr.rm(path)
