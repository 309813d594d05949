"""Scores on disk as they are computed, so that a killed evaluation resumes where it stopped."""

import base64
import hashlib
import json
import os
import shutil
import stat
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.files import append_json_line, read_json_lines, writing

Scores = NDArray[np.float32]


def fingerprint(**parts: object) -> str:
    """16 hex digits of everything that decides a score: checkpoint digest, views, list, chunk.
    Plain values only."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(state: Mapping[str, Tensor], facts: object = "") -> str:
    """16 hex digits of tensors by name, and of plain values."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, value in state.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def stamp_of(path: str, read_as: str = "") -> str:
    """Size and modification time of a video, or of every frame of a folder, to notice a replaced
    file; and what its list says of it (`VideoEntry.read_as`).

    Nothing of the file where the path does not exist or a path handler opens it, whose times are
    unknown.
    """
    return " ".join(filter(None, (_version_of(path), read_as)))


def _version_of(path: str) -> str:
    try:
        status = Path(path).stat()
        if not stat.S_ISDIR(status.st_mode):
            return f"{status.st_size}:{status.st_mtime_ns}"
        with os.scandir(path) as entries:
            frames = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries]
        return fingerprint(frames=sorted(frames))
    except (OSError, ValueError):
        return ""


class Journal:
    """Scores by video, one line each, one file per rank, under `folder/evaluation_<fingerprint>`.

    Another checkpoint, list or protocol has another fingerprint, so its scores are never mixed in.
    Every rank reads all files and writes its own; any number of processes may resume. Each line
    carries the stamp of its video and a checksum: a video is scored again if a kill cut its line
    short, or if the file was replaced. Unreadable videos are not written: they are tried again.
    """

    def __init__(self, folder: Path, fingerprint: str, rank: int = 0) -> None:
        self.folder = folder / f"evaluation_{fingerprint}"
        self.path = self.folder / f"rank_{rank:05d}.jsonl"
        with writing(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True)

    def load(self, shape: tuple[int, int], stamps: Sequence[str] = ()) -> dict[int, Scores]:
        """video -> float32 scores of this shape, bit for bit as they were written."""
        noted: dict[int, tuple[str, Scores]] = {}
        for path in sorted(self.folder.glob("rank_*.jsonl")):
            noted |= filter(None, (_parse(entry, shape) for entry in read_json_lines(path)))
        current = dict(enumerate(stamps))
        return {
            video: scores
            for video, (stamp, scores) in noted.items()
            if not stamps or current.get(video) == stamp
        }

    def note(self, video: int, scores: Scores, stamp: str = "") -> None:
        """Write a line. It has reached the operating system when this returns, and so outlives this
        process, but not a power cut.

        stamp: of the video, taken before it was read. Raises OutputError.
        """
        data = scores.astype("<f4").tobytes()
        line = {
            "video": video,
            "stamp": stamp,
            "crc": _checksum(video, stamp, data),
            "scores": base64.b64encode(data).decode(),
        }
        with writing(str(self.path)):
            append_json_line(self.path, line)

    def remove(self) -> None:
        """Remove the files, after results and report are written; those of other tests stay."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _parse(entry: dict[str, Any], shape: tuple[int, int]) -> tuple[int, tuple[str, Scores]] | None:
    try:
        video, stamp, data = int(entry["video"]), entry["stamp"], base64.b64decode(entry["scores"])
        if entry["crc"] != _checksum(video, stamp, data):
            return None
        return video, (stamp, np.frombuffer(data, "<f4").reshape(shape))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(video: int, stamp: str, data: bytes) -> int:
    return zlib.crc32(f"{video} {stamp} ".encode() + data)
