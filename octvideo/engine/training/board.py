"""TensorBoard's event file of a run, written without a thread that could fail unnoticed.

If it cannot be written, records wait in memory and training continues: metrics.jsonl holds the
numbers as well.
"""

import os
import socket
import time
from typing import Any

from iopath.common.file_io import g_pathmgr
from torch import Tensor

from octvideo.errors import OctvideoError, logger
from octvideo.files import is_local, writing


class Board:
    """Scalars and images in a new file of `folder`; files of earlier starts stay."""

    def __init__(self, folder: str, step: int) -> None:
        """step: the last one that is done; what an earlier start wrote of later ones is hidden."""
        try:
            from tensorboard.compat.proto import event_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
            from torch.utils.tensorboard import summary
        except ImportError as error:
            raise OctvideoError(
                "TensorBoard is missing: pip install tensorboard, or set TENSORBOARD.ENABLE False"
            ) from error
        self._event: Any = event_pb2.Event
        self._summary: Any = summary
        self._waiting, self._failed = bytearray(), False
        self._records = RecordWriter(self)
        # Its readers take the files of a folder in the order of their names.
        seconds, rest = divmod(time.time_ns(), 10**9)
        place = f"{socket.gethostname()}.{os.getpid()}"
        path = f"{folder}/events.out.tfevents.{seconds:010d}.{rest:09d}.{place}"
        with writing(folder):
            g_pathmgr.mkdirs(folder)
            self._file = g_pathmgr.open(path, "ab", **{"buffering": 0} if is_local(path) else {})
        self._add(file_version="brain.Event:2")
        if step:
            self._add(step=step + 1, session_log={"status": event_pb2.SessionLog.START})

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._add(step=step, summary=self._summary.scalar(tag, value))

    def add_image(self, tag: str, image: Tensor, step: int) -> None:
        """image: uint8 (3, H, W)."""
        self._add(step=step, summary=self._summary.image(tag, image, dataformats="CHW"))

    def flush(self) -> None:
        """Write the waiting records, as far as there is room; a lack of room is logged once."""
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
            self._file.flush()
        except OSError as error:
            if not self._failed:
                logger.warning(
                    "TensorBoard's file cannot be written (%s); training goes on, and so does the"
                    " file when there is room; metrics.jsonl holds the numbers",
                    error.strerror or error,
                )
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        self.flush()
        try:
            self._file.close()
        except OSError:
            return  # said by `flush`

    def _add(self, **parts: Any) -> None:
        event = self._event(wall_time=time.time(), **parts)
        self._records.write(event.SerializeToString())
        self.flush()

    def write(self, record: bytes) -> None:
        """Collect a record, as the file to which TensorBoard's `RecordWriter` writes."""
        self._waiting += record
