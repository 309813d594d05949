"""Accuracy against GFLOPs: the paper's Table 6 dashed, the given runs solid."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from octvideo.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Point:
    """One network: alpha 0 is the vanilla one. gflops: multiply-adds of one view; accuracy: top-1
    or mAP, in per cent.

    low, high: the ends of its error bar; both None of a point that has none.
    """

    family: str
    alpha: float
    gflops: float
    accuracy: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of_runs(
        cls, family: str, alpha: float, gflops: float, accuracies: Sequence[float]
    ) -> "Point":
        """The mean over runs; the error bar is one standard deviation, of a single run none."""
        mean = statistics.mean(accuracies)
        bar = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        ends = (None, None) if bar is None else (mean - bar, mean + bar)
        return cls(family, alpha, gflops, mean, *ends)

    @property
    def ends(self) -> tuple[float, float]:
        has = self.low is not None and self.high is not None
        return (self.low, self.high) if has else (self.accuracy, self.accuracy)  # type: ignore[return-value]


# Table 6, Kinetics-400, as printed: GFLOPs and top-1 of the rows that share a training recipe.
PAPER = (
    Point("I3D (paper)", 0.0, 28.1, 72.6),
    Point("I3D (paper)", 0.1, 25.6, 73.6),
    Point("I3D (paper)", 0.2, 22.1, 73.1),
    Point("I3D (paper)", 0.5, 15.3, 72.1),
    Point("C2D, ImageNet (paper)", 0.0, 19.3, 71.9),
    Point("C2D, ImageNet (paper)", 0.1, 17.4, 73.8),
    Point("I3D, ImageNet (paper)", 0.0, 28.1, 73.3),
    Point("I3D, ImageNet (paper)", 0.1, 25.6, 74.6),
    Point("I3D + NL (paper)", 0.0, 33.3, 74.7),
    Point("I3D + NL (paper)", 0.1, 28.9, 75.7),
    Point("SlowFast (paper)", 0.0, 27.6, 75.6),
    Point("SlowFast (paper)", 0.1, 24.5, 76.2),
    Point("SlowFast (paper)", 0.2, 22.9, 75.8),
)
KINDS = (("vanilla", "s"), ("octave, with its alpha", "o"))
AWAY = 11  # points, from a marker to the middle of its label


def curve_name(network: Mapping[str, Any]) -> str:
    """The name of a network of results.json in a legend; it says where GFLOPs leave weights out."""
    return f"{network['name']} (GFLOPs in part)" if network.get("uncounted") else network["name"]


def draw_tradeoff(
    points: Sequence[Point],
    *,
    paper: Sequence[Point] = PAPER,
    error: str = "standard deviation over runs",
    metric: str = "top-1",
) -> "Figure":
    """One line per family through its alphas. The paper has axes of its own: its data set is
    another.

    error: what the error bars are. metric: what the points show; the paper's are top-1.
    """
    panels = [part for part in (points, paper) if part]
    families = max((len(_families(part)) for part in panels), default=0)
    figure = new_figure(5.6 * len(panels), 4.4 + 0.1 * families)
    drawn = list(
        zip(
            figure.subplots(1, len(panels), squeeze=False)[0] if panels else (), panels, strict=True
        )
    )
    for axes, part in drawn:
        _draw_lines(axes, part, "--" if part is paper else "-", error)
        axes.set_ylabel(f"{'top-1' if part is paper else metric}, %")
        of_paper = "Table 6 of the paper, Kinetics-400"
        axes.set_title(of_paper if part is paper else "measured runs", fontsize=10)
    figure.draw_without_rendering()  # what lies where is known from here on
    for axes, part in drawn:
        _draw_labels(axes, part)
    return figure


def _families(part: Sequence[Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for point in sorted(part, key=lambda p: p.gflops):
        found.setdefault(point.family, []).append(point)
    order = dict.fromkeys(point.family for point in part)
    return {family: found[family] for family in order}


def _draw_lines(axes: Any, part: Sequence[Point], style: str, error: str) -> None:
    for family, line in _families(part).items():
        (drawn,) = axes.plot(
            [p.gflops for p in line], [p.accuracy for p in line], style, label=family, linewidth=1.4
        )
        for p in line:
            axes.errorbar(
                p.gflops,
                p.accuracy,
                yerr=[[p.accuracy - p.ends[0]], [p.ends[1] - p.accuracy]],
                color=drawn.get_color(),
                marker=KINDS[bool(p.alpha)][1],
                markersize=6,
                capsize=3 if p.low is not None else 0,
                linestyle="",
            )
    for title, marker in KINDS:
        axes.plot([], [], marker, color="gray", label=title)
    if any(p.low is not None for p in part):
        axes.plot([], [], "|", color="gray", label=error, markersize=10)
    axes.margins(0.1, 0.16)
    axes.set_xlabel("GFLOPs per view (multiply-adds)")
    # Below: it hides no point.
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    axes.grid(alpha=0.3)


def _draw_labels(axes: Any, part: Sequence[Point]) -> None:
    """The alpha of each octave point, farthest from lines, error bars and other labels."""
    pixels = axes.transData.transform
    scale = axes.figure.dpi / 72
    obstacles = [pixels(o) for o in _obstacles(part)]
    for p in part:
        if not p.alpha:
            continue
        place = pixels((p.gflops, p.accuracy))
        turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        around = place + AWAY * scale * np.stack([1.3 * np.cos(turns), np.sin(turns)], 1)
        clear = [min(map(partial(_distance, spot), obstacles)) for spot in around]
        spot = around[int(np.argmax(clear))]
        text = f"{p.alpha:g}".replace("0.", ".", 1)
        axes.text(
            *axes.transData.inverted().transform(spot), text, size=8, ha="center", va="center"
        )
        half = np.array([5 * scale, 0.0])
        obstacles.append(np.stack([spot - half, spot + half]))


def _obstacles(part: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """Segments, in the units of the axes."""
    segments = []
    for line in _families(part).values():
        places = [(p.gflops, p.accuracy) for p in line]
        segments += [[a, b] for a, b in pairwise(places)]
    for p in part:
        segments.append([(p.gflops, end) for end in p.ends])
    return segments


def _distance(spot: NDArray[np.float64], segment: NDArray[np.float64]) -> float:
    """The distance in pixels from a spot to the nearest point of a segment."""
    start, along = segment[0], segment[1] - segment[0]
    share = np.clip(np.dot(spot - start, along) / max(float(np.dot(along, along)), 1e-9), 0, 1)
    return float(np.hypot(*(spot - start - share * along)))
