"""The checkpoints of one training run: their content, when they are due, how a run resumes."""

import math
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Protocol

from iopath.common.file_io import g_pathmgr
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from octvideo.checkpoint import Checkpoint
from octvideo.engine.checkpoint_files import (
    BEST,
    checkpoint_name,
    list_checkpoints,
    prune,
    read_latest,
    read_whole,
)
from octvideo.engine.distributed import Processes
from octvideo.engine.training.ema import ModelAverage
from octvideo.engine.training.optim import check_order, load_optimizer_state, name_groups
from octvideo.engine.training.rng import rng_state, set_rng_state
from octvideo.engine.training.state import Plan, Progress, TrainOptions
from octvideo.errors import CheckpointError, first_line, logger
from octvideo.files import make_output_folder


class Identity(Protocol):
    """The identity of a run: its data, classes, network and recipe."""

    def differences(self, checkpoint: Checkpoint) -> list[str]:
        """The differences between a checkpoint's recipe and this run's that are allowed. Raises
        CheckpointError for the others."""

    def other_validation(self, checkpoint: Checkpoint) -> str:
        """What differs in the validation since a checkpoint; "" for nothing."""

    def batch_samples(self, checkpoint: Checkpoint) -> int:
        """Samples of the global batch of the run that saved the checkpoint; 0 if unknown."""


def changes_since(
    checkpoint: Checkpoint, identity: Identity | None, auto_resume: bool = True
) -> list[str]:
    """`Identity.differences` of a run that resumes from this checkpoint. Raises CheckpointError if
    it may not."""
    if not auto_resume:
        raise CheckpointError(
            f"{checkpoint.path} is in the way: choose another OUTPUT_DIR or set TRAIN.AUTO_RESUME"
            " True"
        )
    if "progress" not in checkpoint.training:
        raise CheckpointError(
            f"{checkpoint.path}: of another program's training, which cannot be continued here;"
            " start from its weights with TRAIN.CHECKPOINT_FILE_PATH, and another OUTPUT_DIR"
        )
    return identity.differences(checkpoint) if identity else []


class Snapshots:
    """Captures and restores model, optimizer, scaler and moving average with a Progress."""

    def __init__(
        self,
        options: TrainOptions,
        procs: Processes,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: GradScaler,
        ema: ModelAverage | None,
        plan: Plan,
        identity: Identity | None,
        about: Checkpoint,
    ) -> None:
        """identity: what a checkpoint is compared with before it is resumed.

        about: what every checkpoint says of the network, its input, its data and its recipe.
        """
        self.options, self.procs, self.about = options, procs, about
        self.plan, self.identity = plan, identity
        self.model, self.optimizer, self.scaler, self.ema = model, optimizer, scaler, ema
        self.folder = f"{options.output_dir}/checkpoints"
        self.best = f"{self.folder}/{BEST}"
        self.last_saved: str | None = None
        self.passed_over: set[str] = set()  # damaged checkpoints, known to rank 0
        self.saved_at = time.monotonic()

    def capture(self, progress: Progress) -> Checkpoint:
        """The content of a checkpoint; tensors are not copied. All ranks call it together."""
        name_groups(self.optimizer, self.model)
        return replace(
            self.about,
            state=self.model.state_dict(),
            average=self.ema.state_dict() if self.ema else None,
            training=self.about.training
            | {
                "epoch": progress.epoch,
                "optimizer_state": self.optimizer.state_dict(),
                "scaler_state": self.scaler.state_dict(),
                "progress": asdict(progress),
                "best": {self.options.best_metric: progress.best},
                "rng": self.procs.gather(rng_state()),
            },
        )

    def is_due(self) -> bool:
        """Whether checkpoint_minutes have passed since the last checkpoint."""
        minutes = (time.monotonic() - self.saved_at) / 60
        return 0 < self.options.checkpoint_minutes <= minutes

    def save(self, checkpoint: Checkpoint) -> None:
        """Rank 0 writes it, named by its progress, and removes the oldest. No rank waits."""
        progress = checkpoint.training["progress"]
        path = f"{self.folder}/{checkpoint_name(progress['epoch'], progress['samples'])}"
        if self.procs.is_main:
            checkpoint.write(path)
            self.passed_over.discard(path)
            prune(self.folder, self.options.keep_checkpoints, path, self.passed_over)
        self.last_saved = path
        self.saved_at = time.monotonic()

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Rank 0 writes best.pyth, and best.safetensors if it is wanted; else one of earlier
        weights goes."""
        if not self.procs.is_main:
            return
        bare = f"{self.folder}/best.safetensors"
        if not self.options.safetensors and g_pathmgr.exists(bare):
            g_pathmgr.rm(bare)
        checkpoint.write(self.best)
        if self.options.safetensors:
            checkpoint.write(bare)

    def open_folder(self) -> None:
        """Create the output folder; if that fails, every rank raises the reason."""
        folder, remedy = self.options.output_dir, "choose another OUTPUT_DIR"
        self.procs.made_by_main(lambda: make_output_folder(folder, remedy))

    def resume(self) -> Progress | None:
        """Restore the newest whole checkpoint, one for all ranks; None if there is none. Raises
        CheckpointError if the best epoch is among damaged ones."""
        checkpoint = self._newest()
        if checkpoint is None:
            return None
        path = checkpoint.path
        differences = changes_since(checkpoint, self.identity, self.options.auto_resume)
        progress = self.restore(checkpoint)
        self.last_saved = path
        if path == self.best:
            logger.warning(
                "resumed from %s, of epoch %d, as no numbered checkpoint is whole: what followed"
                " is trained again",
                path, progress.epoch,
            )  # fmt: skip
        else:
            logger.info("resumed from %s", path)
        if differences:
            logger.info("the recipe differs from here on: %s", ", ".join(differences))
        if path == self.best and self.plan.is_finished(progress):
            # What the test takes, and a study looks for. No epoch follows that would save it.
            self.save(self.capture(progress))
        return self.with_comparable_best(checkpoint, progress)

    def _newest(self) -> Checkpoint | None:
        found = read_latest(self.folder) if self.procs.is_main else None
        had_best = self.procs.is_main and g_pathmgr.isfile(self.best)
        path, had_best = self.procs.from_main((found[0] if found else None, had_best))
        if self.procs.is_main:
            later = (other for other in list_checkpoints(self.folder) if other > (path or ""))
            self.passed_over = set(later)
        if path is not None:
            return Checkpoint.of(found[1], path) if found else Checkpoint.read(path)
        if had_best:
            raise CheckpointError(
                f"{self.folder}: no checkpoint is whole, and a training from the start would"
                " replace what this run has left; choose another OUTPUT_DIR (of a folder of videos:"
                " --out), or delete this folder to begin anew"
            )
        return None

    def with_comparable_best(self, checkpoint: Checkpoint, progress: Progress) -> Progress:
        """Values of two validations do not compare: after a change, the next one is the best so
        far. So it is where best.pyth, to which the value belongs, is another one now."""
        other = self.identity.other_validation(checkpoint) if self.identity else ""
        is_finished, best = self.plan.is_finished(progress), self.best
        is_there = self.procs.from_main(self.procs.is_main and g_pathmgr.isfile(best))
        if not is_there and math.isfinite(progress.best):
            then = "the newest checkpoint stands in for it" if is_finished else "it is chosen anew"
            logger.warning("%s is gone, the best so far: %s", best, then)
        elif other and not is_finished:
            logger.info(
                "another validation from here on (%s): best.pyth is chosen anew, from its values",
                other,
            )
        elif not is_finished and (reason := self.why_not_best(progress)):
            logger.warning("%s is %s: it is chosen anew", best, reason)
        else:
            return progress
        return progress if is_finished else replace(progress, best=math.inf)

    def why_not_best(self, progress: Progress) -> str:
        """Why best.pyth is not what the best value of `progress` stands for: it is damaged, or of
        later epochs under settings that differ, which are not repeated. "" if it is."""
        if not math.isfinite(progress.best) or self.last_saved == self.best:
            return ""
        return self.procs.made_by_main(partial(self._fault_of_best, progress.epoch))

    def _fault_of_best(self, epoch: int) -> str:
        content = read_whole(self.best)
        if content is None:
            return "damaged"
        try:
            checkpoint = Checkpoint.of(content, self.best)
            later = checkpoint.training.get("epoch")
            if not isinstance(later, int) or later <= epoch or not self.identity:
                return ""
            changes = self.identity.differences(checkpoint)
        except CheckpointError:
            return "of another run"
        said = f"of epoch {later} of a training that is not continued ({', '.join(changes)})"
        return said if changes else ""

    def restore(self, checkpoint: Checkpoint) -> Progress:
        path, training = checkpoint.path, checkpoint.training
        try:
            self.model.load_state_dict(checkpoint.state)
            name_groups(self.optimizer, self.model)
            check_order(training["optimizer_state"], checkpoint.state, self.model)
            load_optimizer_state(self.optimizer, training["optimizer_state"])
            if training["scaler_state"]:  # empty unless the run was in fp16
                self.scaler.load_state_dict(training["scaler_state"])
            if self.ema is not None:
                self.ema.load_state_dict(checkpoint.weights)
            batch = self.plan.batch_samples
            if self.identity:
                batch = self.identity.batch_samples(checkpoint) or batch
            progress = Progress.from_dict(training["progress"], self.plan, batch)
            states = training["rng"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: of another model or recipe ({first_line(error)}); choose another"
                " OUTPUT_DIR"
            ) from error
        if len(states) == self.procs.world_size:
            set_rng_state(states[self.procs.rank])
        else:
            logger.warning(
                "%s: saved by %d processes, so dropout goes another way now", path, len(states)
            )
        return progress
