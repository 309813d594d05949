"""Accuracy against GFLOPs of finished runs, from their results.json (`visualize tradeoff`)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octvideo.errors import DataError, logger
from octvideo.files import writing
from octvideo.report.tradeoff import Point, curve_name, draw_tradeoff
from octvideo.study.origin import Settings, changes_of, known_of
from octvideo.study.sweep import SEED
from octvideo.study.trial import metric, metric_name, unread_note


@dataclass(frozen=True)
class Finished:
    """A results.json. known: what its run was made with, without the seed."""

    path: Path
    results: dict[str, Any]
    point: Point
    metric: str
    known: Settings

    @classmethod
    def of(cls, path: Path) -> "Finished":
        """Raises DataError for a file that is no results.json of a test with labels."""
        try:
            results = json.loads(path.read_text(encoding="utf-8"))
            network = results["protocol"]["network"]
            place = curve_name(network), network["alpha"], network["gflops_per_view"]
            if results.keys().isdisjoint(("top1_acc", "map")):
                raise DataError(
                    f"{path}: of a test without labels, which has no accuracy to draw; leave it out"
                )
            point = Point(*place, metric(results), *results.get("top1_interval", (None, None)))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a results.json of `octvideo test` ({error})") from error
        known = known_of(path.parent, results)
        known.pop(SEED, None)
        return cls(path, results, point, metric_name(results), known)


def draw_runs(results: Sequence[Path], folder: Path) -> list[Path]:
    """Accuracy against GFLOPs of finished runs (results.json files), with the paper's points beside
    them.

    Runs of one network are one point, their mean, with the standard deviation over them; where no
    network has several, each has the 95 % interval of its videos. A warning tells which tests could
    not read all their videos. Raises DataError as `Finished.of` and `means_of` do.
    """
    path = folder / "tradeoff.png"
    runs = [Finished.of(file) for file in results]
    means, error = means_of(runs), "standard deviation over runs"
    if len(means) == len(runs):
        means, error = [run.point for run in runs], "95 % interval over videos"
    with writing(str(path)):
        draw_tradeoff(means, error=error, metric=runs[0].metric).savefig(path, dpi=140)
    if said := unread_note((str(run.path), run.results) for run in runs):
        logger.warning("%s", said)
    return [path]


def means_of(runs: Sequence[Finished]) -> list[Point]:
    """The mean of the runs of one network and alpha, its error bar one standard deviation.

    Raises DataError for runs of one network that differ in more than their seeds, as far as
    results.json and the settings beside it tell, and for top-1 beside mAP.
    """
    groups: dict[tuple[str, float, float], list[Finished]] = {}
    for run in runs:
        if run.metric != runs[0].metric:
            raise DataError(
                f"{run.path}: has {run.metric}, and {runs[0].path} {runs[0].metric}; one axis"
                " cannot show both: draw each with an --output of its own"
            )
        at = run.point.family, run.point.alpha, run.point.gflops
        for other in groups.setdefault(at, []):
            if changes := changes_of(other.known, run.known):
                raise DataError(
                    f"{run.path}: is of the network of {other.path}, but with {changes}; a point is"
                    " the mean over seeds: draw other runs with an --output of their own"
                )
        groups[at].append(run)
    return [_mean(runs) for runs in groups.values()]


def _mean(runs: Sequence[Finished]) -> Point:
    at = runs[0].point
    accuracies = [run.point.accuracy for run in runs]
    return Point.of_runs(at.family, at.alpha, at.gflops, accuracies)
