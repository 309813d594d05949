"""What a run is told (TrainOptions), where it stands (Progress), how it ended (TrainSummary). Plain values all."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from octvideo.engine.training.records import Tally
from octvideo.errors import DataError


@dataclass(frozen=True)
class TrainOptions:
    """Periods count epochs. 0 or None switches an option off."""

    output_dir: str
    max_epoch: int
    max_iter: int = 0  # optimizer steps; takes the place of max_epoch
    eval_period: int = 1
    checkpoint_period: int = 1
    checkpoint_minutes: float = 0.0
    safetensors: bool = False  # best.safetensors beside best.pyth
    keep_checkpoints: int = 3
    auto_resume: bool = True
    best_metric: str = "top1_err"  # of what validate returns; the lowest is best
    log_period: int = 10
    tensorboard: bool = False
    accum_steps: int = 1
    clip_grad_value: float = 0.0
    clip_grad_norm: float = 0.0
    scale_momentum: bool = True
    amp_dtype: torch.dtype | None = None
    max_skipped: int = (
        20  # steps in a row that mixed precision may skip for an infinite loss or gradient
    )
    ema_decay: float = 0.0
    precise_bn_batches: int = 0  # before validations and checkpoints
    precise_bn_first: int = 0  # the same before the first step, of frozen batch norms too
    channels_last: bool = False
    compile: bool = False


@dataclass
class Progress:
    """Where training stands, between two optimizer steps.

    epoch: whole epochs done. batch: this rank's batches done of the next one. metrics_bytes: size of metrics.jsonl.
    window, total: sums since the last line of metrics.jsonl and since the epoch's start.
    """

    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = math.inf
    metrics_bytes: int = 0
    window: Tally = field(default_factory=Tally)
    total: Tally = field(default_factory=Tally)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        return cls(
            **values | {"window": Tally(**values["window"]), "total": Tally(**values["total"])}
        )


@dataclass(frozen=True)
class TrainSummary:
    """finished: False after SIGTERM or Ctrl-C. best: lowest validation value, None without validation."""

    finished: bool
    epochs: int
    best: float | None
    checkpoint: str | None


@dataclass(frozen=True)
class Position:
    """The step that has just been done. epoch, iteration (of this epoch) and step count from 1."""

    epoch: int
    max_epoch: int
    iteration: int
    iterations: int
    step: int
    total_steps: int


@dataclass(frozen=True)
class Plan:
    """How many optimizer steps there will be, and which one a Progress stands for."""

    steps_per_epoch: int
    total_steps: int
    accum_steps: int

    @classmethod
    def of(cls, options: TrainOptions, num_batches: int) -> "Plan":
        """num_batches: of an epoch. A rest that makes no whole step is left out."""
        steps = num_batches // options.accum_steps
        if steps == 0:
            raise DataError(
                f"{num_batches} batches make no step of {options.accum_steps}: lower TRAIN.BATCH_SIZE"
            )
        return cls(steps, options.max_iter or options.max_epoch * steps, options.accum_steps)

    @property
    def max_epoch(self) -> int:
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def position(self, progress: Progress) -> Position:
        before = progress.epoch * self.steps_per_epoch
        iteration = progress.batch // self.accum_steps
        return Position(
            epoch=progress.epoch + 1,
            max_epoch=self.max_epoch,
            iteration=iteration,
            iterations=min(self.steps_per_epoch, self.total_steps - before),
            step=before + iteration,
            total_steps=self.total_steps,
        )
