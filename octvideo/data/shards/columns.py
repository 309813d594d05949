"""The columns of many indexes as one column each."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from octvideo.data.shards.index import COLUMN_TYPES, NUMBERS, RAGGED, TABLES, ShardIndex

_LEAST = 1 << 12  # values


class Columns:
    """The rows of indexes, copied as each index comes, so that never all of them are in memory
    twice.

    numbers: column -> a value per video. ragged: column -> (values, where those of each video end,
    with a 0 before). shard_ends: where the videos of each index end, int64 (indexes,).
    """

    def __init__(self, indexes: Iterable[ShardIndex], num_videos: int = 0) -> None:
        """num_videos: about how many there are."""
        growing = {name: _Growing(kind, num_videos) for name, kind in COLUMN_TYPES.items()}
        ends, shard_ends = dict.fromkeys(RAGGED, 0), [0]
        for name in RAGGED:
            growing[f"{name}_ends"] = _Growing("<i8", num_videos + 1)
            growing[f"{name}_ends"].add(np.zeros(1, np.int64))
        for index in indexes:
            for name in (*NUMBERS, *TABLES, *RAGGED):
                growing[name].add(index.columns[name])
            for name in RAGGED:
                growing[f"{name}_ends"].add(index.columns[f"{name}_ends"][1:] + ends[name])
                ends[name] += len(index.columns[name])
            shard_ends.append(shard_ends[-1] + len(index))
        self.numbers = {name: growing.pop(name).tensor() for name in (*NUMBERS, *TABLES)}
        self.ragged = {
            name: (growing.pop(name).tensor(), growing.pop(f"{name}_ends").tensor())
            for name in RAGGED
        }
        self.shard_ends = np.array(shard_ends[1:], np.int64)

    def __len__(self) -> int:
        return int(self.shard_ends[-1]) if len(self.shard_ends) else 0


class _Growing:
    """An array to whose end values are added. Room that is not used yet takes no memory."""

    def __init__(self, kind: str, expected: int) -> None:
        self._values: NDArray[Any] = np.empty(expected or _LEAST, kind)
        self._count = 0

    def add(self, values: NDArray[Any]) -> None:
        end = self._count + len(values)
        if end > len(self._values):
            grown = np.empty(2 * end, self._values.dtype)
            grown[: self._count] = self._values[: self._count]
            self._values = grown
        self._values[self._count : end] = values
        self._count = end

    def tensor(self) -> torch.Tensor:
        # Workers would get the room that is not used, too. It is given back without a copy.
        self._values.resize(self._count, refcheck=False)
        return torch.from_numpy(self._values)
