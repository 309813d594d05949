"""The records of a run: JSON lines that can be truncated to a checkpoint, and clocks, which stay
out of them."""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from iopath.common.file_io import g_pathmgr

from octvideo.files import OutputError, is_local, writing


def content_of(path: str) -> bytes:
    """Nothing where there is no such file."""
    if not g_pathmgr.isfile(path):
        return b""
    with g_pathmgr.open(path, "rb") as file:
        return file.read()


def as_json(record: Mapping[str, Any]) -> str:
    """One line of JSON, which has no infinity and no NaN: such a number becomes null."""
    known = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(known, allow_nan=False)


class JsonLines:
    """A file of one flat JSON object per line, which grows."""

    def __init__(self, path: str) -> None:
        self.path = path
        with writing(path):
            self.file = g_pathmgr.open(path, "ab")

    def write(self, record: Mapping[str, Any]) -> None:
        with writing(self.path):
            self.file.write(as_json(record).encode() + b"\n")
            self.file.flush()

    def secure(self) -> int:
        """Flush everything to the disk; return the size, which a checkpoint stores.

        Raises OutputError if the file was removed while it was written: its descriptor would still
        accept every write.
        """
        with writing(self.path):
            self.file.flush()
            if is_local(self.path):
                os.fsync(self.file.fileno())
                if not os.path.samestat(Path(self.path).stat(), os.fstat(self.file.fileno())):
                    raise OutputError(
                        f"{self.path}: was replaced while a run wrote to it; start the run again"
                    )
            return self.file.tell()

    def close(self) -> None:
        """Close the file. A line that could not be written has raised before."""
        with suppress(OSError):
            self.file.close()


@dataclass
class Tally:
    """Sums over clips: of the loss, and of clips whose class is among the first 1 and 5 guesses."""

    clips: float = 0.0
    loss: float = 0.0
    hits1: float = 0.0
    hits5: float = 0.0

    def add(self, other: "Tally") -> None:
        self.clips += other.clips
        self.loss += other.loss
        self.hits1 += other.hits1
        self.hits5 += other.hits5

    def means(self) -> dict[str, float]:
        """Mean loss; errors in per cent. All are NaN without a clip."""
        clips = self.clips or math.nan
        return {
            "loss": self.loss / clips,
            "top1_err": 100 * (1 - self.hits1 / clips),
            "top5_err": 100 * (1 - self.hits5 / clips),
        }


@dataclass
class Clock:
    """Seconds spent waiting for clips (`data`) and using them (`net`) since the last restart."""

    data: float = 0.0
    net: float = 0.0
    clips: int = 0
    steps: int = 0
    _last: float = field(default_factory=time.perf_counter)

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def got_data(self) -> None:
        self.data += self._lap()

    def computed(self) -> None:
        self.net += self._lap()

    def did_step(self, clips: int) -> None:
        self.net += self._lap()
        self.clips += clips
        self.steps += 1

    @property
    def seconds(self) -> float:
        return self.data + self.net

    @property
    def data_share(self) -> float:
        return self.data / self.seconds if self.seconds else 0.0

    def rates(self) -> dict[str, float]:
        steps = max(self.steps, 1)
        return {
            "dt": self.seconds / steps,
            "dt_data": self.data / steps,
            "dt_net": self.net / steps,
            "data_share": self.data_share,
            "clips_per_second": self.clips / self.seconds if self.seconds else 0.0,
            "memory_gb": peak_memory_gb(),
        }


def peak_memory_gb() -> float:
    """Peak of this process: GPU memory of tensors where there is a GPU, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_resident_bytes() / 2**30


def peak_resident_bytes() -> int:
    """The largest resident memory of this process so far.

    On Linux not by getrusage, whose number starts with the peak of the process that started this
    one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
