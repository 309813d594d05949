"""Accuracy against GFLOPs: the paper's Table 6 dashed, one's own runs solid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octvideo.report.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Point:
    """One network: alpha 0 is the vanilla one. gflops: multiply-adds of one view; accuracy: top-1 in per cent."""

    family: str
    alpha: float
    gflops: float
    accuracy: float


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


def draw_tradeoff(points: Sequence[Point], *, paper: Sequence[Point] = PAPER) -> "Figure":
    """One line per family through its alphas. The paper has axes of its own: its data set is another."""
    panels = [part for part in (points, paper) if part]
    families = max((len({p.family for p in part}) for part in panels), default=0)
    figure = new_figure(5.6 * len(panels), 4.2 + 0.08 * families)
    for axes, part in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        style = "--" if part is paper else "-"
        for family in dict.fromkeys(p.family for p in part):
            line = sorted((p for p in part if p.family == family), key=lambda p: p.gflops)
            axes.plot(
                [p.gflops for p in line],
                [p.accuracy for p in line],
                style,
                marker="o",
                label=family,
            )
            for p in line:
                axes.annotate(
                    f"{p.alpha:g}",
                    (p.gflops, p.accuracy),
                    xytext=(4, 4),
                    textcoords="offset points",
                    size=7,
                )
        axes.set_xlabel("GFLOPs per view (multiply-adds)")
        axes.set_ylabel("top-1, %")
        axes.set_title(
            "Table 6 of the paper, Kinetics-400" if part is paper else "measured runs", fontsize=10
        )
        axes.legend(
            fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2
        )  # below: it hides no point
        axes.grid(alpha=0.3)
    return figure
