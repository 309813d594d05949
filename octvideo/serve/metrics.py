"""Counters and histograms in the text format of Prometheus."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
VIEWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Histogram:
    """The number of values up to each of some bounds."""

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self._name, self._about, self._bounds = name, about, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> list[str]:
        total, lines = 0, [f"# HELP {self._name} {self._about}", f"# TYPE {self._name} histogram"]
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            lines.append(f'{self._name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{self._name}_sum {self._sum:.6f}", f"{self._name}_count {total}"]


class Metrics:
    """Counters of a server. Any thread may update them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: Counter[int] = Counter()
        self._restarts = 0
        self._seconds = Histogram("octvideo_request_seconds", "Time of an answer.", SECONDS)
        self._decoding = Histogram("octvideo_decode_seconds", "Time in a decoder.", SECONDS)
        self._views = Histogram("octvideo_batch_views", "Views of a pass of the network.", VIEWS)

    def answered(self, status: int, seconds: float) -> None:
        with self._lock:
            self._answers[status] += 1
            self._seconds.add(seconds)

    def decoded(self, seconds: float) -> None:
        with self._lock:
            self._decoding.add(seconds)

    def computed(self, views: int) -> None:
        with self._lock:
            self._views.add(views)

    def restarted(self) -> None:
        """Count a decoding process that was replaced."""
        with self._lock:
            self._restarts += 1

    def text(self, inside: int) -> str:
        """inside: the number of requests without a response yet."""
        with self._lock:
            lines = [
                "# HELP octvideo_requests_total Answers by status.",
                "# TYPE octvideo_requests_total counter",
            ]
            for status, count in sorted(self._answers.items()):
                lines.append(f'octvideo_requests_total{{status="{status}"}} {count}')
            lines += [
                "# HELP octvideo_requests_inside Requests that are not answered yet.",
                "# TYPE octvideo_requests_inside gauge",
                f"octvideo_requests_inside {inside}",
                "# HELP octvideo_decoders_replaced_total Decoders that hung or crashed.",
                "# TYPE octvideo_decoders_replaced_total counter",
                f"octvideo_decoders_replaced_total {self._restarts}",
            ]
            for histogram in (self._seconds, self._decoding, self._views):
                lines += histogram.lines()
        return "\n".join(lines) + "\n"
