"""Train, probe and evaluate from Python; the command line calls these functions."""

import json
import multiprocessing
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from octvideo.assembly import final_test, ranks, settings_of, train
from octvideo.assembly.dry_run import say_what_is_there
from octvideo.assembly.estimate import clip_macs, estimate
from octvideo.assembly.probe import probe as train_probe
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.deploy.exported import ExportedNetwork
from octvideo.engine.checkpoint_files import find_latest
from octvideo.engine.distributed import Processes
from octvideo.engine.log import setup_logging
from octvideo.engine.process_group import processes
from octvideo.engine.training.state import Callbacks, Metrics
from octvideo.errors import CheckpointError, ConfigError, logger, silence
from octvideo.lock import only_writer
from octvideo.recognizer import Recognizer, load
from octvideo.recognizer.load import is_exported
from octvideo.runs.machine import SIZES, Machine
from octvideo.runs.recipe import Recipe, parse_views
from octvideo.weights.pretrained import read_and_hash

Callback = Callable[[Metrics], object]


@dataclass(frozen=True)
class Run:
    """A finished training. folder: its outputs. exit_status: 0, or 128 + the signal's number."""

    folder: str
    config: Any
    exit_status: int = 0

    @property
    def finished(self) -> bool:
        """False if a signal stopped it: calling again resumes."""
        return self.exit_status == 0

    @property
    def checkpoint(self) -> str:
        """The best weights in validation, else the newest. Raises CheckpointError without any."""
        best = Path(self.folder) / "checkpoints" / "best.pyth"
        newest = str(best) if best.is_file() else find_latest(str(best.parent))
        if newest is None:
            raise CheckpointError(
                f"{self.folder}: no checkpoint yet; the same call continues the run"
            )
        return newest

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return Path(self.folder) / "report.html"

    @cached_property
    def results(self) -> dict[str, Any]:
        """results.json of the final test; {} where there was none."""
        path = Path(self.folder) / "results.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @cached_property
    def recognizer(self) -> Recognizer:
        """The trained network as a recognizer."""
        return load(self.checkpoint)


def fit(
    data: str | Path,
    *,
    model: str = "",
    alpha: float | None = None,
    size: str = "",
    weights: str | Path = "auto",
    epochs: int = 0,
    probe: bool = False,
    views: str = "",
    out: str | Path = "",
    check: bool = True,
    on_step: Callback | None = None,
    on_epoch: Callback | None = None,
    **settings: Any,
) -> Run:
    """Train a network on a folder of class folders, test it, write a report; called again, it
    resumes.

        run = octvideo.fit("my_videos", model="i3d_r50", epochs=20, SOLVER={"BASE_LR": 0.005})
        run.results["top1_acc"], run.report, run.recognizer.predict("another.mp4")

    data: class folders with videos in them (also below train, val and test), or a folder of
    train.csv, val.csv and class_names.txt.
    model, alpha: of `create_model`; by default an I3D R50, the network that `weights` were trained
    with here, or a small I3D if no trained weights are available.
    size: "small", "medium" or "large" input; by default large on a GPU, medium on a CPU.
    weights: "auto" (Kinetics weights, else image weights, else none), "none", a file, or a public
    network's name.
    epochs: 30 by default; a probe has none. probe: train only the classifier, on features that are
    computed once: minutes on a CPU.
    views: clips x crops of the final test, by default "10x3", of a probe "3x1".
    out: the run's folder, by default runs/<data>/... check: decode every file first.
    on_step, on_epoch: called with a dict of numbers (docs/own_data.md).
    settings: as those of `load_config`; they override everything else.

    A script calls it below `if __name__ == "__main__":`, since the loader's workers import the
    script. Raises OctvideoError, one line, for data, weights or settings that cannot be used.
    """
    recipe = Recipe(
        str(data),
        model=model,
        alpha=alpha,
        size=size,
        weights=str(weights),
        epochs=epochs,
        probe=probe,
        views=views,
        out=str(out),
        check=check,
        settings=settings,
    )
    given: dict[str, Any] = {"on_step": on_step, "on_epoch": on_epoch}
    callbacks = Callbacks(**{name: call for name, call in given.items() if call})
    return run_recipe(recipe, callbacks)


def run_recipe(
    recipe: Recipe, callbacks: Callbacks | None = None, *, only_estimate: bool = False
) -> Run:
    """The common part of `fit` and `octvideo train FOLDER`.

    only_estimate: plan, time, and whether a training would resume or be refused. Lists that are
    there stay; config.yaml is written as long as there is no checkpoint, and these are the lists
    that it is of.

    New lists replace those that are there once the run has accepted them, in a rehearsal up to its
    first step: other runs read them too.
    """
    refuse_in_a_worker("octvideo.fit")
    setup_logging()
    with processes() as procs:
        if procs.world_size > 1:
            raise ConfigError(
                "a folder is prepared by one process; run `octvideo train FOLDER --dry-run` by"
                " itself (with a new --out if its lists are of other videos), then torchrun ... -m"
                f" octvideo train --cfg {recipe.folder}/config.yaml"
            )
        plan = recipe.plan()
        cfg, new = plan.cfg, plan.new_lists
        keep = partial(recipe.keep, cfg)
        with new.staged() if new else nullcontext() as staged:
            tried = _reading(staged.folder, cfg) if staged and staged.changed else cfg
            if only_estimate or not (recipe.probe or recipe.has_checkpoint):
                say_time(tried, procs, probe=recipe.probe)
            if only_estimate:
                if staged and staged.divides_anew:
                    logger.info("%s: a dry run leaves these lists, and config.yaml, as they are;"
                                " the training, or a dry run with a new --out, takes the videos as"
                                " they are now",
                                recipe.lists)  # fmt: skip
                if not recipe.probe:
                    say_what_is_there(tried)
                if not (recipe.has_checkpoint or (staged and staged.divides_anew)):
                    with only_writer(recipe.folder):
                        keep()
                return Run(recipe.folder, cfg)
            if staged and staged.changed:
                _rehearse(tried, procs, staged.put, probe=recipe.probe)
                for note in staged.notes:
                    logger.warning("%s", note)
        if recipe.probe:
            final_test(cfg, procs, train_probe(cfg, procs, keep))
            return Run(recipe.folder, cfg)
        callbacks = replace(callbacks or Callbacks(), on_start=keep)
        run = Run(recipe.folder, cfg, train(cfg, procs, callbacks).exit_status)
        if run.finished and cfg.TEST.ENABLE:
            final_test(cfg, procs, run.checkpoint)
    return run


class _AcceptedError(Exception):
    """A rehearsal ends: the run follows."""


def _rehearse(
    cfg: Any, procs: Processes, accept: Callable[[], object], *, probe: bool = False
) -> None:
    """Everything of a training or a probe before its first step, in which it refuses what it does
    not take; then, while its folder is locked, `accept`."""

    def begin() -> None:
        accept()
        raise _AcceptedError

    with suppress(_AcceptedError), silence():
        if probe:
            train_probe(cfg, procs, begin)
        else:
            train(cfg, procs, Callbacks(on_start=begin))


def _reading(folder: Path, cfg: Any) -> Any:
    """These settings with the lists in `folder`."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    cfg.freeze()
    return cfg


def refuse_in_a_worker(what: str) -> None:
    """End a loader's worker that imports a script which calls `what` at its top level, with a line
    that says so."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        advice = 'call it below `if __name__ == "__main__":`'
        line = f"error: a loader's worker imports this script, which calls {what}; {advice}"
        print(line, file=sys.stderr, flush=True)
        sys.exit(1)


def say_time(cfg: Any, procs: Processes, *, probe: bool = False) -> None:
    """Log the measured estimate of the run's time, and what smaller input would take."""
    found, what = estimate(cfg, procs, probe=probe), "features" if probe else "training"
    text = (
        f"on {Machine.here()} about {in_words(found.total)} "
        f"({what} {in_words(found.training)}, test {in_words(found.testing)})"
    )
    if SIZES["small"]["TRAIN_CROP_SIZE"] < cfg.DATA.TRAIN_CROP_SIZE:
        small = cfg.clone()
        small.defrost()
        small.DATA.update(SIZES["small"])
        text += f"; `--size small` about {in_words(found.at(*clip_macs(small)))}"
    logger.info("%s", text)


def in_words(seconds: float) -> str:
    """ "40 seconds", "6 minutes", "2.5 hours", "3 days"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} seconds"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def evaluate(
    model: str | Path | Recognizer,
    list: str | Path,
    *,
    views: str = "10x3",
    out: str | Path = "",
    diagnose: bool = False,
) -> dict[str, Any]:
    """Score every video of a list in all its views; returns the content of results.json: top1_acc,
    top1_interval, classes, ...

        octvideo.evaluate("runs/mine/checkpoints/best.pyth", "my_videos/test.csv")["top1_acc"]
        octvideo.evaluate("i3d_r50_k400", "kinetics/val.csv", views="1x1", out="runs/i3d_k400")

    model: a checkpoint, the name of a public network, or a recognizer from `octvideo.load`, which
    gives the numbers of its file. list: lines of `path label`.
    views: clips x crops, all of the short side that predictions have. A single clip is the first
    one, as in a test; that of a prediction is the middle one.
    out: a folder for results.json, predictions.csv, scores.npz and report.html.
    diagnose: also with frames shuffled, reversed and repeated ("frame_order").

    Raises OctvideoError, one line, for a checkpoint or a list that cannot be used.
    """
    clips, crops = parse_views(views)
    checkpoint = _checkpoint_of(model)
    settings = [
        f"TEST.NUM_ENSEMBLE_VIEWS={clips}",
        f"TEST.NUM_SPATIAL_CROPS={crops}",
        f"TEST.DIAGNOSE={diagnose}",
    ]
    cfg = settings_of(checkpoint, settings)
    with ranks(cfg) as procs, ExitStack() as stack:
        cfg.defrost()
        cfg.OUTPUT_DIR = str(out) or procs.made_by_main(
            lambda: stack.enter_context(TemporaryDirectory())
        )
        cfg.freeze()
        return final_test(cfg, procs, checkpoint, str(list))


def _checkpoint_of(model: str | Path | Recognizer) -> Checkpoint:
    if isinstance(model, Recognizer) and isinstance(model.model, ExportedNetwork):
        model = model.model.path
    if isinstance(model, str | Path):
        if is_exported(model):
            raise ConfigError(
                f"{model}: an exported network is not evaluated; give the checkpoint that it was"
                " made of"
            )
        return read_and_hash(str(model))
    if not isinstance(model, Recognizer):
        raise ConfigError(
            f"evaluate got a {type(model).__name__}; give a checkpoint, the name of a public"
            " network, or what octvideo.load returned"
        )
    return Checkpoint(
        state=model.model.state_dict(),
        network=model.model.config,
        class_names=tuple(model.class_names),
        input=InputSpec.of(model.preprocessing),
        multi_label=model.multi_label,
        head_act=model.head_act,
        recipe=model.recipe,
    )
