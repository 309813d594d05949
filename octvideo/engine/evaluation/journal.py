"""Work already done, on disk as it is done, so that a killed evaluation continues where it stopped."""

import base64
import hashlib
import json
import shutil
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


def fingerprint(**parts: object) -> str:
    """16 hex digits of everything that decides a score: checkpoint digest, views, list, chunk. Plain values only."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Journal:
    """Scores by video, a line each, one file per rank, under `folder/evaluation_<fingerprint>`.

    Another checkpoint, list or protocol has another fingerprint, so its work is never mixed in. Every rank reads all
    files and writes its own; any number of processes may continue. Each line carries its checksum: one that a kill
    cut short is ignored, and its video is scored again. Unread videos are not noted: they are tried again.
    """

    def __init__(self, folder: Path, fingerprint: str, rank: int = 0) -> None:
        self.folder = folder / f"evaluation_{fingerprint}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"rank_{rank:05d}.jsonl"

    def load(self, shape: tuple[int, int]) -> dict[int, Scores]:
        """video -> float32 scores of this shape, bit for bit as they were noted."""
        known: dict[int, Scores] = {}
        for path in sorted(self.folder.glob("rank_*.jsonl")):
            with path.open("rb") as file:
                known |= dict(filter(None, (_parse(line, shape) for line in file)))
        return known

    def note(self, video: int, scores: Scores) -> None:
        """The line is with the operating system when this returns: it outlives the process, if not a power cut."""
        data = scores.astype("<f4").tobytes()
        line = {
            "video": video,
            "crc": _checksum(video, data),
            "scores": base64.b64encode(data).decode(),
        }
        # The newline comes first: it also ends a line that a kill cut short.
        with self.path.open("ab", buffering=0) as file:
            file.write(b"\n" + json.dumps(line).encode())

    def remove(self) -> None:
        """Once results and report are written: this journal, and those of tests that were given up."""
        for journal in self.folder.parent.glob("evaluation_*"):
            shutil.rmtree(journal, ignore_errors=True)


def _parse(line: bytes, shape: tuple[int, int]) -> tuple[int, Scores] | None:
    try:
        entry = json.loads(line)
        video, data = int(entry["video"]), base64.b64decode(entry["scores"])
        if entry["crc"] != _checksum(video, data):
            return None
        return video, np.frombuffer(data, "<f4").reshape(shape)
    except (ValueError, KeyError, TypeError):
        return None


def _checksum(video: int, data: bytes) -> int:
    return zlib.crc32(data, video)
