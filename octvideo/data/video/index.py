"""The index beside a list: the examinations of all files, so that training need not repeat them.

A csv file with a line per video: its path (relative to the index's folder if below it), then
VideoInfo's fields. An entry is valid while its file's size is unchanged.
"""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch

from octvideo.data.remote import absolute, join
from octvideo.data.video.info import DAMAGED, VideoInfo
from octvideo.errors import DataError
from octvideo.files import appears_whole, is_local

_COLUMNS = ("path", *(field.name for field in fields(VideoInfo)))
_NUMBERS = (
    *("num_frames", "fps", "width", "height", "rotation", "duration_seconds", "num_bytes"),
    *("flip", "pixel_aspect"),
)
_KINDS = ("", DAMAGED)
_EARLIER_COLUMNS = _COLUMNS[: _COLUMNS.index("flip")]


def index_path(list_path: str | Path) -> Path:
    """The path of a list's index: train.csv -> train.index.csv."""
    return Path(list_path).with_suffix(".index.csv")


class VideoIndex:
    """Path -> VideoInfo in flat tensors, which workers share: 650,000 videos take about 50 MB.

    Paths are known by 64-bit hashes. Codec and problems stay in the file.
    """

    def __init__(
        self, hashes: list[int], numbers: list[tuple[float, ...]], reasons: list[str]
    ) -> None:
        """reasons: why not decord, "" where decord may read."""
        keys = np.array(hashes, np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys = torch.from_numpy(keys[order])
        self._numbers = torch.from_numpy(
            np.array(numbers, np.float64).reshape(-1, len(_NUMBERS))[order]
        )
        # One byte per video: decord may read it, it is damaged, or neither.
        kinds = [_KINDS.index(reason) if reason in _KINDS else len(_KINDS) for reason in reasons]
        self._kinds = torch.from_numpy(np.array(kinds, np.uint8)[order])

    def __len__(self) -> int:
        return len(self._keys)

    def durations(self) -> torch.Tensor:
        """The seconds of each video, float64 (N,)."""
        return self._numbers[:, _NUMBERS.index("duration_seconds")]

    def get(self, path: str) -> VideoInfo | None:
        """The stored examination of a video, or None."""
        key = _hash(path)
        place = int(torch.searchsorted(self._keys, key))
        if place == len(self) or int(self._keys[place]) != key:
            return None
        numbers = dict(zip(_NUMBERS, self._numbers[place].tolist(), strict=True))
        reason = (*_KINDS, "says the index")[int(self._kinds[place])]
        return VideoInfo.remembered(numbers, reason)


def write_index(path: str | Path, rows: Iterable[tuple[str, VideoInfo]]) -> None:
    """rows: path as in its list, and what `probe` found. Replaces the file in one step."""
    path = Path(path)
    with (
        appears_whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for video, info in rows:
            writer.writerow(
                {
                    "path": _relative(video, path.parent),
                    **asdict(info),
                    "flip": int(info.flip),
                    "problems": "; ".join(info.problems),
                }
            )


def read_index(path: str | Path) -> VideoIndex:
    """Raises DataError, naming file and line, for what `write_index` has not written."""
    path = Path(path)
    hashes: list[int] = []
    numbers: list[tuple[float, ...]] = []
    reasons: list[str] = []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) == _EARLIER_COLUMNS:
            raise DataError(
                f"{path}: written by an earlier version, which took some files for others than they"
                " are; write it again with `octvideo check`, or delete it."
            )
        if reader.fieldnames is None or tuple(reader.fieldnames) != _COLUMNS:
            raise DataError(f"{path}: this is no index; write it again with `octvideo check`.")
        try:
            for row in reader:
                hashes.append(_hash(join(path.parent, row["path"])))
                numbers.append(tuple(float(row[name]) for name in _NUMBERS))
                is_decord = row["backend"] == "decord"
                reasons.append("" if is_decord else row["reason"] or "pyav")
        except (TypeError, ValueError, OverflowError, csv.Error):
            raise DataError(
                f"{path}:{reader.line_num}: this line is damaged; write the index again with"
                " `octvideo check`."
            ) from None
    return VideoIndex(hashes, numbers, reasons)


def _relative(video: str, folder: Path) -> str:
    if not is_local(video):
        return video
    try:
        return str(Path(video).relative_to(folder))
    except ValueError:
        return absolute(video)


def _hash(path: str) -> int:
    digest = hashlib.blake2b(
        absolute(path).encode(errors="surrogateescape"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big", signed=True)
