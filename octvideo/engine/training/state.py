"""A run's options (TrainOptions), position (Progress) and end (TrainSummary). Plain values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from octvideo.engine.training.records import Tally
from octvideo.errors import ConfigError, DataError


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
    # consecutive steps that mixed precision may skip for a loss or gradient of inf or nan
    max_skipped: int = 20
    ema_decay: float = 0.0
    # before validations and checkpoints; with ema_decay those of the average
    precise_bn_batches: int = 0
    precise_bn_first: int = 0  # before the first step, of frozen batch norms too
    channels_last: bool = False
    compile: bool = False

    def best_of(self, metrics: Mapping[str, float]) -> float:
        """The value of best_metric. Raises ConfigError if a validation does not measure it."""
        if self.best_metric not in metrics:
            raise ConfigError(
                f"validation measures {', '.join(metrics) or 'nothing'}, not {self.best_metric}, by"
                " which best.pyth is chosen; name one of them as best_metric"
            )
        return metrics[self.best_metric]


Metrics = dict[str, float]


def _nothing(*metrics: Metrics) -> None:
    pass


@dataclass(frozen=True)
class Callbacks:
    """Functions that rank 0 calls with plain numbers, so that other tools can follow a run
    (docs/own_data.md).

    on_step: after each optimizer step; epoch, step, lr, grad_norm, and loss, top1_err, top5_err of
    its clips, NaN or infinite for a step that was skipped.
    on_epoch: after each epoch and its checkpoint; the means over the clips of steps that were not
    skipped, and val_top1_err, val_loss, ... if it was validated. Errors are in per cent. An
    exception in a callback ends the run.
    on_start: before the first step, without numbers; a run that is there has been resumed by then.
    """

    on_step: Callable[[Metrics], object] = _nothing
    on_epoch: Callable[[Metrics], object] = _nothing
    on_start: Callable[[], object] = _nothing


@dataclass
class Progress:
    """The position of training, between two optimizer steps.

    epoch: completed epochs. samples: completed samples of the next epoch, over all ranks, so that a
    run with another batch size resumes at the right one. step: completed optimizer steps.
    metrics_bytes: size of metrics.jsonl.
    window, total: sums since the last line of metrics.jsonl and since the start of the epoch.
    """

    epoch: int = 0
    samples: int = 0
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = math.inf
    metrics_bytes: int = 0
    window: Tally = field(default_factory=Tally)
    total: Tally = field(default_factory=Tally)

    @classmethod
    def from_dict(cls, values: dict[str, Any], plan: "Plan", batch_samples: int) -> "Progress":
        """The progress in a checkpoint. 0.1.0 counted batches; batch_samples: samples of a global
        batch of the run that saved it."""
        if "batch" in values:
            values = dict(values)
            samples = values.pop("batch") * batch_samples
            step = values["epoch"] * plan.steps_per_epoch + samples // plan.step_samples
            values |= {"samples": samples, "step": step}
        return cls(
            **values | {"window": Tally(**values["window"]), "total": Tally(**values["total"])}
        )


@dataclass(frozen=True)
class TrainSummary:
    """finished: False after a signal. best: lowest validation value, None without validation.

    stopped_by: the signal's name, "" if another process received it or none came.
    """

    finished: bool
    epochs: int
    best: float | None
    checkpoint: str | None
    stopped_by: str = ""

    @property
    def exit_status(self) -> int:
        """The exit status by convention: 130 after Ctrl-C, 143 after another signal."""
        if self.finished:
            return 0
        return 130 if self.stopped_by == "SIGINT" else 143


@dataclass(frozen=True)
class Position:
    """The step just completed. epoch, iteration (of this epoch) and step count from 1."""

    epoch: int
    max_epoch: int
    iteration: int
    iterations: int
    step: int
    total_steps: int


@dataclass(frozen=True)
class Plan:
    """The number of optimizer steps of a run, and the position of a Progress among them.

    batch_samples: samples of a batch, over all ranks; accum_steps batches make a step. A limit of 0
    does not count.
    """

    steps_per_epoch: int
    batch_samples: int
    accum_steps: int
    epoch_limit: int
    step_limit: int

    @classmethod
    def of(cls, options: TrainOptions, num_batches: int, batch_samples: int) -> "Plan":
        """num_batches: batches of an epoch, of batch_samples each. Batches that do not fill a last
        step are left out."""
        steps = num_batches // options.accum_steps
        if steps == 0:
            raise DataError(
                f"{num_batches} batches make no step of {options.accum_steps}: lower"
                " TRAIN.BATCH_SIZE"
            )
        epochs = 0 if options.max_iter else options.max_epoch
        return cls(steps, batch_samples, options.accum_steps, epochs, options.max_iter)

    @property
    def step_samples(self) -> int:
        return self.batch_samples * self.accum_steps

    def is_finished(self, progress: Progress) -> bool:
        if self.step_limit:
            return progress.step >= self.step_limit
        return progress.epoch >= self.epoch_limit

    def epochs_done(self, progress: Progress) -> float:
        """Completed epochs with their fraction, for a schedule in epochs."""
        steps = progress.epoch * self.steps_per_epoch + progress.samples / self.step_samples
        return steps / self.steps_per_epoch

    def steps(self, progress: Progress, ends: Sequence[int]) -> list[list[int]]:
        """The remaining steps of the epoch: where each batch of a step ends, of the batches that
        end at `ends`."""
        by_step = groupby(ends, key=lambda end: -(-end // self.step_samples))
        steps = [list(batches) for number, batches in by_step if number <= self.steps_per_epoch]
        return steps[: self.step_limit - progress.step] if self.step_limit else steps

    def position(self, progress: Progress) -> Position:
        iteration = min(progress.samples // self.step_samples, self.steps_per_epoch)
        if self.step_limit:
            left = max(self.step_limit - progress.step, 0)
        else:
            whole = max(self.epoch_limit - progress.epoch, 0) * self.steps_per_epoch
            left = max(whole - iteration, 0)
        return Position(
            epoch=progress.epoch + 1,
            max_epoch=progress.epoch + math.ceil((left + iteration) / self.steps_per_epoch),
            iteration=iteration,
            iterations=min(self.steps_per_epoch, iteration + left),
            step=progress.step,
            total_steps=progress.step + left,
        )
