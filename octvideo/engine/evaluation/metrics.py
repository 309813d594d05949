"""Classification metrics of arrays. A row of NaN scores is a video that could not be read."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


def percent(share: float | np.floating) -> float:
    return round(100 * float(share), 4)


def ranking(scores: Floats, k: int) -> Ints:
    """(N, C) scores -> (N, min(k, C)) classes, best first, equal scores in class order; -1 for
    unread videos."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)
    order[np.isnan(scores).any(axis=1)] = -1
    return order


def hits(ranked: Ints, labels: Ints) -> Bools:
    """(N,) whether the label is among the ranked classes (N, k); never for an unread video."""
    return (ranked == labels[:, None]).any(axis=1)


def class_table(ranked: Ints, labels: Ints, num_classes: int) -> Ints:
    """(C, 2): the number of videos of each class, and how many of them were right."""
    correct = ranked[:, 0] == labels
    videos = np.bincount(labels, minlength=num_classes)
    return np.stack([videos, np.bincount(labels[correct], minlength=num_classes)], axis=1)


def log_loss(scores: Floats, labels: Ints) -> float:
    """The mean of -log p of the label, over the videos that could be read; NaN where none could.

    p: the label's share of a video's scores, which sum to 1 only as means of a softmax.
    """
    read = ~np.isnan(scores).any(axis=1)
    if not read.any():
        return float("nan")
    tiny, found = np.finfo(np.float32).tiny, scores[read].astype(np.float64)
    of_label = found[np.arange(len(found)), labels[read]]
    share = of_label / np.maximum(found.sum(axis=1), tiny)
    return float(-np.log(np.maximum(share, tiny)).mean())


def precision_recall(confusion: Ints, num_videos: Ints) -> NDArray[np.float64]:
    """(C, 3) precision, recall and F1 of each class; 0 for a class that is never predicted or has
    no video.

    num_videos: (C,), unread videos included: they lower the recall.
    """
    right = np.diag(confusion).astype(np.float64)
    precision = right / np.maximum(confusion.sum(axis=0), 1)
    recall = right / np.maximum(num_videos, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return np.stack([precision, recall, f1], axis=1)


def paired_interval(
    correct: Bools, other: Bools, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the difference between the shares of `correct` and of `other`, over
    the videos of both.

    A video counts +1, 0 or -1, so that drawing n of them is one multinomial draw. Where no video
    differs, every draw is 0, which says nothing: then both sides are the exact bound for an event
    that was never observed. Where all that differ do so in one direction, no draw has the other
    one. Then the end toward it is at least as far as that bound less their share, and as the exact
    binomial bound of how they divide, as in McNemar's exact test: 5 of 5 leave the sign open, and
    6 of 6 do not.
    """
    n = len(correct)
    more, less = int((correct & ~other).sum()), int((other & ~correct).sum())
    unseen = 1 - ((1 - level) / 2) ** (1 / n)
    if not more + less:
        return -unseen, unseen
    shares = np.array([more, less, n - more - less]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    if not (more and less):
        seen = more + less
        end = max((1 - 2 * ((1 - level) / 2) ** (1 / seen)) * seen, unseen * n - seen) / n
        low, high = (min(low, -end), high) if more else (low, max(high, end))
    return float(low), float(high)


def mean_class_accuracy(table: Ints) -> float:
    """The mean of the accuracies of all classes that have a video."""
    present = table[table[:, 0] > 0]
    return float((present[:, 1] / present[:, 0]).mean())


def confusion_matrix(ranked: Ints, labels: Ints, num_classes: int) -> Ints:
    """(C, C) counts [label, predicted class]; unread videos are in no cell."""
    read = ranked[:, 0] >= 0
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (labels[read], ranked[read, 0]), 1)
    return matrix


def bootstrap_interval(
    correct: Bools, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap of the share of correct videos.

    The sum of n zeros and ones that are drawn with replacement is one binomial draw, so no
    resampling is spelled out. Where all videos are right, or none, every draw is equal, which says
    nothing: then the exact binomial bound is used. Videos count as independent; clips cut from one
    recording are not, and deserve a wider interval.
    """
    n, hits = len(correct), int(correct.sum())
    if hits in (0, n):
        bound = ((1 - level) / 2) ** (1 / n)
        return (bound, 1.0) if hits else (0.0, 1 - bound)
    draws = np.random.default_rng(seed).binomial(n, correct.mean(), resamples) / n
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def average_precision(scores: Floats, positive: Bools) -> float:
    """Area under the precision / recall steps of one class; equal scores enter together. NaN
    without a positive.

    Unread videos (NaN) share the last place.
    """
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    found, falling = np.cumsum(positive[order]), np.nan_to_num(scores[order], nan=-np.inf)
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(scores) - 1)
    precision, recall = found[ends] / (ends + 1), found[ends] / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_average_precision(scores: Floats, targets: Bools) -> float:
    """Over the classes with a positive video (as scikit-learn and PySlowFast). Both (N, C)."""
    per_class = [
        average_precision(scores[:, c], targets[:, c])
        for c in range(targets.shape[1])
        if targets[:, c].any()
    ]
    return float(np.mean(per_class)) if per_class else 0.0
