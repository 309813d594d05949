"""One run of a study: training and test in a process of their own, its log beside its folder."""

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from octvideo.assembly.data import final_list_path, is_labeled, open_list
from octvideo.assembly.tasks import with_counted_classes
from octvideo.config import load_config
from octvideo.errors import ConfigError, DataError
from octvideo.lock import only_writer
from octvideo.study.children import Children, TrialError
from octvideo.study.origin import SHOWN, claim_folder, made_with, read_results

NO_LABELS = (
    "{} has no labels, and a study compares by them; give it labels, or remove it so that val.csv"
    " is tested"
)


def run_trial(
    config: str,
    settings: Sequence[str],
    folder: Path,
    *,
    keep: bool = True,
    environment: Mapping[str, str] | None = None,
    children: Children | None = None,
) -> dict[str, Any]:
    """`octvideo train` into `folder`; returns the content of its results.json. A folder that has
    one is not run again.

    keep: keep the checkpoints too. environment: variables to add. children: starts the process.

    Raises TrialError with the last line of the log, ConfigError for a folder in which a run has
    begun with other settings, lists or start weights, or whose results are of another test,
    OctvideoError for one in which another process works.
    """
    claim_folder(folder, made_with(load_config(config, settings)))
    if not read_results(folder):
        # The run of a sweep that was killed may still be at work, and the end of the log its own.
        with only_writer(str(folder)):
            pass
        _train(config, settings, folder, environment or {}, children or Children())
    if not keep:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return read_results(folder)


def _train(
    config: str,
    settings: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    children: Children,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "octvideo", "train", "--cfg", config, *settings]
    log_path = folder.parent / f"{folder.name}.log"
    with log_path.open("a") as log:
        status = children.run([*command, f"OUTPUT_DIR={folder}"], environment, log)
    if status or not (folder / "results.json").is_file():
        lines = log_path.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "nothing")
        raise TrialError(f"{folder.name}: ended with status {status}; {log_path} ends with: {last}")


def require_labels(cfg: Any) -> None:
    """Raise ConfigError if the list of the final test has no labels. Of one that cannot be read the
    run tells."""
    if cfg.TRAIN.DATASET != "video":
        return
    with suppress(DataError):
        cfg = with_counted_classes(cfg)
        path = final_list_path(cfg)
        if not is_labeled(open_list(cfg, path)):
            raise ConfigError(NO_LABELS.format(path))


def metric(results: Mapping[str, Any]) -> float:
    """Top-1, or 100 x mAP if a video may have several labels. Raises ConfigError for a test without
    labels."""
    if results.keys().isdisjoint(("top1_acc", "map")):
        raise ConfigError(NO_LABELS.format("test.csv"))
    return float(results["top1_acc"] if "top1_acc" in results else 100 * results["map"])


def metric_name(results: Mapping[str, Any]) -> str:
    return "top-1" if "top1_acc" in results else "mAP"


def unread_note(runs: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """A line of the tests that could not read all their videos; "" where all could.

    runs: a name for each, and the content of its results.json.
    """
    unread = [
        f"{run['num_unread']} of {run['num_videos']} in {name}"
        for name, run in runs
        if run.get("num_unread")
    ]
    if not unread:
        return ""
    more = f", and in {len(unread) - SHOWN} more runs" if len(unread) > SHOWN else ""
    return f"Videos that a test could not read count as wrong: {', '.join(unread[:SHOWN])}{more}"
