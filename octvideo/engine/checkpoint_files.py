"""The checkpoints of a run: their names, which of them is the newest whole one, and which are removed.

    OUTPUT_DIR/checkpoints/checkpoint_epoch_00002.pyth               after two whole epochs
    OUTPUT_DIR/checkpoints/checkpoint_epoch_00002_batch_000040.pyth  and 40 batches of the third
    OUTPUT_DIR/checkpoints/best.pyth                                 the best validation so far

Names sort in the order of training.
"""

import logging
import re
import zipfile

from iopath.common.file_io import g_pathmgr

logger = logging.getLogger("octvideo")

NAME = re.compile(r"checkpoint_epoch_\d{5}(_batch_\d{6})?\.pyth")


def checkpoint_name(epoch: int, batch: int = 0) -> str:
    """epoch: whole epochs done; batch: batches done of the next one."""
    return f"checkpoint_epoch_{epoch:05d}" + (f"_batch_{batch:06d}" if batch else "") + ".pyth"


def is_whole(path: str) -> bool:
    """Is the file complete, every checksum right? Reads it once and unpacks nothing."""
    try:
        with g_pathmgr.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile):
        return False


def list_checkpoints(folder: str) -> list[str]:
    """Paths of the epoch and mid-epoch checkpoints, oldest first; best.pyth is not among them."""
    if not g_pathmgr.isdir(folder):
        return []
    return [f"{folder}/{name}" for name in sorted(g_pathmgr.ls(folder)) if NAME.fullmatch(name)]


def find_latest(folder: str) -> str | None:
    """The newest whole checkpoint; a torn one is passed over with a warning. None: there is none."""
    for path in reversed(list_checkpoints(folder)):
        if is_whole(path):
            return path
        logger.warning("%s: torn or truncated, passed over for the checkpoint before it", path)
    return None


def prune(folder: str, keep: int) -> None:
    """Remove all but the newest `keep` (at least one) checkpoints, and what writes that were killed left behind."""
    unfinished = [f"{folder}/{name}" for name in g_pathmgr.ls(folder) if name.endswith(".pyth.tmp")]
    for path in list_checkpoints(folder)[: -max(keep, 1)] + unfinished:
        g_pathmgr.rm(path)
