"""The checkpoints of one training run: what they hold, when they are due, how a run goes on from one."""

import logging
import time
from dataclasses import asdict
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from octvideo.engine.checkpoint_files import checkpoint_name, find_latest, prune, save_checkpoint
from octvideo.engine.distributed import Processes
from octvideo.engine.training.ema import ModelAverage
from octvideo.engine.training.rng import rng_state, set_rng_state
from octvideo.engine.training.state import Progress, TrainOptions
from octvideo.errors import CheckpointError, OctvideoError
from octvideo.files import make_output_folder
from octvideo.torch_file import read_torch_file

logger = logging.getLogger("octvideo")


class Snapshots:
    """Captures and restores model, optimizer, scaler and moving average together with a Progress."""

    def __init__(
        self,
        options: TrainOptions,
        procs: Processes,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: GradScaler,
        ema: ModelAverage | None,
        travels: dict[str, Any],
    ) -> None:
        self.options, self.procs, self.travels = options, procs, travels
        self.model, self.optimizer, self.scaler, self.ema = model, optimizer, scaler, ema
        self.folder = f"{options.output_dir}/checkpoints"
        self.last_saved: str | None = None
        self.saved_at = time.monotonic()

    def capture(self, progress: Progress) -> dict[str, Any]:
        """Everything that a checkpoint holds; tensors are not copied. All ranks call it together."""
        return {
            "epoch": progress.epoch,
            "model_state": self.model.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "scaler_state": self.scaler.state_dict(),
            "ema_state": self.ema.state_dict() if self.ema else None,
            "progress": asdict(progress),
            "best": {self.options.best_metric: progress.best},
            "rng": self.procs.gather(rng_state()),
            **self.travels,
        }

    def is_due(self) -> bool:
        """Have checkpoint_minutes passed since the last one?"""
        minutes = (time.monotonic() - self.saved_at) / 60
        return 0 < self.options.checkpoint_minutes <= minutes

    def save(self, state: dict[str, Any]) -> None:
        """Rank 0 writes it under the name of its progress and removes the oldest. No rank waits for another."""
        name = checkpoint_name(state["progress"]["epoch"], state["progress"]["batch"])
        if self.procs.is_main:
            save_checkpoint(self.folder, name, state)
            prune(self.folder, self.options.keep_checkpoints)
        self.last_saved = f"{self.folder}/{name}"
        self.saved_at = time.monotonic()

    def save_best(self, state: dict[str, Any]) -> None:
        if self.procs.is_main:
            save_checkpoint(self.folder, "best.pyth", state)

    def open_folder(self) -> None:
        """Make the output folder, or raise on every rank the reason why it cannot be."""
        problem = None
        if self.procs.is_main:
            try:
                make_output_folder(self.options.output_dir)
            except OctvideoError as error:
                problem = str(error)
        problem = self.procs.from_main(problem)
        if problem is not None:
            raise OctvideoError(problem)

    def resume(self) -> Progress | None:
        """Restore the newest whole checkpoint of the folder, the same on all ranks. None: there is none."""
        path = self.procs.from_main(find_latest(self.folder) if self.procs.is_main else None)
        if path is None:
            return None
        if not self.options.auto_resume:
            raise CheckpointError(
                f"{path} is in the way: choose another OUTPUT_DIR or set TRAIN.AUTO_RESUME True"
            )
        progress = self.restore(path)
        self.last_saved = path
        logger.info("resumed from %s", path)
        return progress

    def restore(self, path: str) -> Progress:
        state = read_torch_file(path)
        try:
            self.model.load_state_dict(state["model_state"])
            self.optimizer.load_state_dict(state["optimizer_state"])
            self.scaler.load_state_dict(state["scaler_state"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema_state"] or state["model_state"])
            progress = Progress.from_dict(state["progress"])
            states = state["rng"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path}: of another model or recipe ({reason}); choose another OUTPUT_DIR"
            ) from error
        if len(states) == self.procs.world_size:
            set_rng_state(states[self.procs.rank])
        else:
            logger.warning(
                "%s: saved by %d processes, so dropout goes another way now", path, len(states)
            )
        return progress
