"""When an action begins and ends: smoothed probabilities of windows, and two thresholds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.engine.prediction.named import Prediction, top_predictions
from octvideo.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Probabilities (C,) from `start` to `end`, in seconds of the source from its first frame.

    begins: the first window, or the first one after a break in the source.
    dropped, reconnects: frames that were dropped for lack of time, and reconnections, since the
    stream began.
    """

    start: float
    end: float
    scores: NDArray[np.float32]
    class_names: Sequence[str]
    begins: bool = False
    dropped: int = 0
    reconnects: int = 0

    def top(self, k: int = 5) -> list[Prediction]:
        """The k most probable classes."""
        return top_predictions(self.scores, self.class_names, k)

    def as_dict(self, k: int = 5) -> dict[str, Any]:
        """Plain values."""
        facts = {name: getattr(self, name) for name in ("start", "end", "begins", "dropped")}
        predictions = [asdict(prediction) for prediction in self.top(k)]
        return {**facts, "reconnects": self.reconnects, "predictions": predictions}

    def as_text(self, k: int = 5) -> str:
        named = "  ".join(f"{p.probability:6.1%} {p.name}" for p in self.top(k))
        lost = f"  ({self.dropped} frames dropped)" if self.dropped else ""
        return f"{self.start:9.2f} to {self.end:9.2f} s  {named}{lost}"


@dataclass(frozen=True, slots=True)
class Event:
    """A class from `start` to `end` seconds; end None: it has not ended yet.

    probability: the highest smoothed one so far.
    """

    name: str
    start: float
    end: float | None
    probability: float

    def as_text(self) -> str:
        until = "begins" if self.end is None else f"to {self.end:.2f} s"
        return f"{self.start:9.2f} s {until}  {self.name}  {self.probability:.1%}"


def find_events(
    windows: Iterable[Window],
    *,
    on: float = 0.6,
    off: float = 0.4,
    smoothing: float = 0.5,
    min_seconds: float = 0.0,
) -> Iterator[Event]:
    """Yield each event twice, as windows come: when it has begun (end None), and when it has ended.

    smoothing: the weight of the past in an exponential mean of the probabilities, 0 for none, below
    1.
    on, off: an event begins with the window in which that mean reaches `on`, and ends with the last
    one before it falls below `off`; between the two nothing begins or ends.
    min_seconds: shorter events are left out; longer ones are first yielded after so many seconds.
    A break in the source ends all events, and smoothing starts anew. Raises ConfigError for
    thresholds out of order.
    """
    if not (0 < off <= on <= 1 and 0 <= smoothing < 1 and min_seconds >= 0):
        raise ConfigError(
            f"events of on {on}, off {off}, smoothing {smoothing}, min_seconds {min_seconds}: "
            "0 < off <= on <= 1, 0 <= smoothing < 1, and no time is negative"
        )
    mean: NDArray[np.float32] | None = None
    going: dict[int, _Going] = {}
    for window in windows:
        if window.begins or mean is None:
            yield from _ended(going, list(going), window.class_names)
            mean = window.scores
        else:
            mean = smoothing * mean + (1 - smoothing) * window.scores
        yield from _ended(going, [c for c in going if mean[c] < off], window.class_names)
        limits = np.full(len(mean), on, np.float64)
        limits[list(going)] = off
        for c in np.flatnonzero(mean >= limits).tolist():
            event = going.setdefault(c, _Going(window.start, window.end, 0.0))
            event.end, event.peak = window.end, max(event.peak, float(mean[c]))
            if not event.is_reported and event.end - event.start >= min_seconds:
                event.is_reported = True
                yield Event(window.class_names[c], event.start, None, event.peak)
        names = window.class_names
    if mean is not None:
        yield from _ended(going, list(going), names)


@dataclass(slots=True)
class _Going:
    start: float
    end: float
    peak: float
    is_reported: bool = False


def _ended(going: dict[int, _Going], classes: list[int], names: Sequence[str]) -> Iterator[Event]:
    for c in classes:
        event = going.pop(c)
        if event.is_reported:
            yield Event(names[c], event.start, event.end, event.peak)
