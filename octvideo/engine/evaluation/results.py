"""The results of an evaluation, and their files, which hold no times: results.json,
predictions.csv, scores.npz."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.engine.evaluation import metrics
from octvideo.files import csv_text, write_atomically

TOP_K = 5


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One row per video of the list, in its order.

    scores: for every set of views ("10x3", ...; the whole protocol last) float32 (N, C), NaN where
    the video could not be read. labels: the classes of each video, none of an unlabeled list.
    problems: video -> why it could not be read.
    """

    paths: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    scores: Mapping[str, NDArray[np.float32]]
    problems: Mapping[int, str]
    multi_label: bool = False

    @property
    def final(self) -> NDArray[np.float32]:
        """The scores of the whole protocol."""
        return list(self.scores.values())[-1]

    @property
    def task(self) -> str:
        """The value in results.json. In a multi-label list some videos may have no label."""
        has_labels = any if self.multi_label else all
        if not has_labels(self.labels):
            return "unlabelled"
        return "multi_label" if self.multi_label else "single_label"

    def unread(self) -> str:
        """`2 of 9 videos cannot be read, the first a.mp4 (No such file or directory)`; "" if all
        can be."""
        if not self.problems:
            return ""
        first = min(self.problems)
        return (
            f"{len(self.problems)} of {len(self.paths)} videos cannot be read, the first"
            f" {self.paths[first]} ({self.problems[first]})"
        )

    @property
    def targets(self) -> NDArray[np.bool_]:
        """(N, C): which classes each video has."""
        targets = np.zeros(self.final.shape, np.bool_)
        for row, labels in zip(targets, self.labels, strict=True):
            row[list(labels)] = True
        return targets


def summarize(
    evaluation: Evaluation, class_names: Sequence[str], protocol: Mapping[str, object]
) -> dict[str, Any]:
    """The content of results.json: plain values, percentages rounded to 1e-4. Unread videos count
    as wrong."""
    summary: dict[str, Any] = {
        "split": "test_final",
        "task": evaluation.task,
        "num_videos": len(evaluation.paths),
        "num_unread": len(evaluation.problems),
    }
    if evaluation.task == "single_label":
        summary |= _accuracy(evaluation.final, evaluation)
        summary |= _per_class(evaluation, class_names)
    elif evaluation.task == "multi_label":
        summary["map"] = _map(evaluation.final, evaluation)
        summary["classes"] = _average_precisions(evaluation, class_names)
    if evaluation.task != "unlabelled":
        summary["views"] = _views(evaluation)
    summary["protocol"] = dict(protocol)
    summary["class_names"] = list(class_names)
    summary["unread"] = [
        {"path": evaluation.paths[i], "problem": why}
        for i, why in sorted(evaluation.problems.items())
    ]
    return summary


def final_line(summary: Mapping[str, Any]) -> dict[str, object]:
    """The last line of a test's log, in PySlowFast's keys."""
    line: dict[str, object] = {"split": summary["split"]}
    line |= {key: f"{summary[key]:.2f}" for key in ("top1_acc", "top5_acc") if key in summary}
    return line | {key: summary[key] for key in ("map",) if key in summary}


def headline(summary: Mapping[str, Any]) -> str:
    """One sentence that sums up the results; it says how many videos could not be read."""
    videos = f"{summary['num_videos']} videos"
    if summary["num_unread"]:
        videos += f", {summary['num_unread']} of them unreadable" + (
            " (counted as wrong)" if "views" in summary else ""
        )
    if "top1_acc" in summary:
        low, high = summary["top1_interval"]
        top1, top5 = summary["top1_acc"], summary["top5_acc"]
        return f"top-1 {top1:.2f} % ({low:.1f} to {high:.1f}), top-5 {top5:.2f} %, {videos}"
    if "map" in summary:
        return f"mAP {100 * summary['map']:.2f} %, {videos}"
    return f"predictions for {videos}"


def write_results(folder: str | Path, evaluation: Evaluation, summary: Mapping[str, Any]) -> None:
    """Write predictions.csv and scores.npz, then results.json: if that exists, all are complete."""
    predictions = _predictions_csv(evaluation, summary["class_names"]).encode()
    write_atomically(f"{folder}/predictions.csv", lambda file: file.write(predictions))
    arrays: dict[str, Any] = {
        "paths": np.array(list(evaluation.paths), dtype=np.str_),
        "targets": evaluation.targets,
        "scores": evaluation.final,  # of the whole protocol
    }
    write_atomically(
        f"{folder}/scores.npz",
        lambda file: np.savez_compressed(file, allow_pickle=False, **arrays),
    )
    results = (json.dumps(summary, indent=1) + "\n").encode()
    write_atomically(f"{folder}/results.json", lambda file: file.write(results))


def _accuracy(scores: NDArray[np.float32], evaluation: Evaluation) -> dict[str, Any]:
    labels = _single(evaluation)
    ranked = metrics.ranking(scores, TOP_K)
    correct = metrics.hits(ranked[:, :1], labels)
    table = metrics.class_table(ranked, labels, scores.shape[1])
    return {
        "top1_acc": metrics.percent(correct.mean()),
        "top5_acc": metrics.percent(metrics.hits(ranked, labels).mean()),
        "mean_class_acc": metrics.percent(metrics.mean_class_accuracy(table)),
        "top1_interval": [metrics.percent(edge) for edge in metrics.bootstrap_interval(correct)],
        "log_loss": _number(metrics.log_loss(scores, labels)),
    }


def _per_class(evaluation: Evaluation, class_names: Sequence[str]) -> dict[str, Any]:
    labels, num_classes = _single(evaluation), len(class_names)
    ranked = metrics.ranking(evaluation.final, 1)
    table = metrics.class_table(ranked, labels, num_classes)
    confusion = metrics.confusion_matrix(ranked, labels, num_classes)
    shares = metrics.precision_recall(confusion, table[:, 0])
    rows = [
        {"name": name, "videos": int(videos), "correct": int(correct)}
        | dict(zip(("precision", "recall", "f1"), map(metrics.percent, of_class), strict=True))
        for name, (videos, correct), of_class in zip(class_names, table, shares, strict=True)
    ]
    # Nonzero cells only: [label, named class, videos]. 600 x 600 would be mostly zeros.
    return {
        "classes": rows,
        "confusion": [[int(i), int(j), int(confusion[i, j])] for i, j in np.argwhere(confusion)],
    }


def _average_precisions(evaluation: Evaluation, class_names: Sequence[str]) -> list[dict[str, Any]]:
    targets = evaluation.targets
    return [
        {
            "name": name,
            "videos": int(targets[:, c].sum()),
            "ap": round(metrics.average_precision(evaluation.final[:, c], targets[:, c]), 6)
            if targets[:, c].any()
            else None,
        }
        for c, name in enumerate(class_names)
    ]


def _views(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    if evaluation.task == "multi_label":
        return {
            name: {"map": _map(scores, evaluation)} for name, scores in evaluation.scores.items()
        }
    views: dict[str, dict[str, float]] = {}
    for name, scores in evaluation.scores.items():
        found = _accuracy(scores, evaluation)
        views[name] = {key: found[key] for key in ("top1_acc", "top5_acc") if key in found}
    return views


def _map(scores: NDArray[np.float32], evaluation: Evaluation) -> float:
    return round(metrics.mean_average_precision(scores, evaluation.targets), 6)


def _single(evaluation: Evaluation) -> NDArray[np.int64]:
    return np.array([labels[0] for labels in evaluation.labels], np.int64)


def _number(value: float) -> float | None:
    """None, JSON's null, for NaN."""
    return None if np.isnan(value) else round(value, 6)


def _predictions_csv(evaluation: Evaluation, class_names: Sequence[str]) -> str:
    """path,label,label_name, then class, name, score of five; empty for an unread video."""
    ranked = metrics.ranking(evaluation.final, TOP_K)
    places = range(1, ranked.shape[1] + 1)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = (f"{column}{place}" for place in places for column in ("class_", "name_", "score_"))
    table.writerow(["path", "label", "label_name", *columns])
    for path, labels, classes, scores in zip(
        evaluation.paths, evaluation.labels, ranked, evaluation.final, strict=True
    ):
        names = "; ".join(class_names[label] for label in labels)
        row = [csv_text(path), " ".join(map(str, labels)), csv_text(names)]
        for c in classes:
            row += [str(c), csv_text(class_names[c]), f"{scores[c]:.6f}"] if c >= 0 else [""] * 3
        table.writerow(row)
    return text.getvalue()
