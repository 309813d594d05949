"""Predictions by the million on an existing engine: a callable that Ray Data, a process pool or
Spark can send to its workers.

    predictor = octvideo.batch.Predictor("best.pyth", views="1x1")
    predictor({"path": "clip.mp4"})
    # {"path": "clip.mp4", "names": [...], "scores": [...], "error": ""}
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from octvideo.engine.evaluation.journal import stamp_of
from octvideo.errors import ConfigError, DataError
from octvideo.recognizer import Recognizer, load


class Predictor:
    """A row with a video -> the row with names and scores of its classes.

    A row is a dict with `path` (or an address), `bytes` (a file's content), or both, when the path
    is its name; other columns stay. names, scores: of the top_k classes, most probable first. A
    video that cannot be read is a row too: `error` says why, and its names and scores are empty. A
    dict of columns (arrays or lists) is a batch of rows. Travels to other processes as its
    arguments; each process loads the network once, at its first row.
    """

    def __init__(
        self, checkpoint: str | Path, *, views: str = "1x1", top_k: int = 5, device: str = ""
    ) -> None:
        """checkpoint: a file or a public network. views: clips x crops. device: "" chooses."""
        # As it is now: a file that replaces it later is a network of its own.
        self._network = str(checkpoint), device, stamp_of(str(checkpoint))
        self._views, self._top_k = views, top_k

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ConfigError for a row without a video, CheckpointError for an unusable network."""
        column = next((row[name] for name in ("path", "bytes") if row.get(name) is not None), None)
        if not isinstance(column, list | tuple | np.ndarray):
            return {**row, **self._predicted(row)}
        rows = (dict(zip(row, values, strict=True)) for values in zip(*row.values(), strict=True))
        found = [self._predicted(one) for one in rows]
        results = dict(row)
        for name in ("names", "scores", "error"):
            results[name] = [one[name] for one in found]
        return results

    def _predicted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        video = row["bytes"] if row.get("bytes") is not None else row.get("path")
        if video is None:
            raise ConfigError(
                f"a row with {', '.join(row) or 'nothing'}; it needs `path` or `bytes`"
            )
        try:
            found = _recognizer(*self._network).predict(
                bytes(video) if isinstance(video, bytes | bytearray | memoryview) else str(video),
                views=self._views,
                top_k=self._top_k,
            )
        except DataError as error:
            return {"names": [], "scores": [], "error": str(getattr(error, "cause", error))}
        return {
            "names": [prediction.name for prediction in found],
            "scores": [prediction.probability for prediction in found],
            "error": "",
        }


@lru_cache(maxsize=4)
def _recognizer(checkpoint: str, device: str, _stamp: str) -> Recognizer:
    """Loaded once in a process, however many predictors of this file it is given."""
    return load(checkpoint, device=device or None)
