"""The trainer: epochs of steps, validation, checkpoints; exact to the bit across interruptions.

At a checkpoint, metrics.jsonl is flushed to the disk first, its size goes into the checkpoint, and
the checkpoint is written atomically. A run that resumes from it truncates metrics.jsonl to that
size and repeats the steps after it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import Optimizer

from octvideo.checkpoint import Checkpoint
from octvideo.engine.distributed import ALONE, Processes
from octvideo.engine.training.ema import ModelAverage
from octvideo.engine.training.losses import Loss
from octvideo.engine.training.optim import Schedule
from octvideo.engine.training.precise_bn import measure_bn_statistics
from octvideo.engine.training.prefetch import OnDevice
from octvideo.engine.training.records import Clock, Tally
from octvideo.engine.training.run_log import RunLog
from octvideo.engine.training.signals import Stopped, StopRequest
from octvideo.engine.training.snapshots import Identity, Snapshots
from octvideo.engine.training.state import (
    Callbacks,
    Plan,
    Position,
    Progress,
    TrainOptions,
    TrainSummary,
)
from octvideo.engine.training.step import Mix, StepOutcome, Stepper, copy_all
from octvideo.errors import DataError, OctvideoError, logger

if TYPE_CHECKING:
    from octvideo.data.loading.batch import Batch
    from octvideo.data.loading.loader import Loader

Validate = Callable[[nn.Module], Mapping[str, float]]


class Trainer:
    """Trains `model` in place. Arguments of all ranks are equal but for loader and `procs`."""

    def __init__(
        self,
        model: nn.Module,
        loader: "Loader",
        optimizer: Optimizer,
        schedule: Schedule,
        options: TrainOptions,
        *,
        loss: Loss,
        prepare: Callable[[Tensor], Tensor],
        validate: Validate | None = None,
        mix: Mix | None = None,
        frozen: Sequence[nn.Module] = (),
        procs: Processes = ALONE,
        about: Checkpoint | None = None,
        identity: Identity | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        """The model is on its device and the optimizer holds its parameters.

        prepare: uint8 inputs on the device -> normalized float. mix: blends (inputs, targets) of a
        training batch.
        frozen: modules kept in evaluation mode. about: what every checkpoint says of network, input
        and data.
        identity: compares it with that of a checkpoint before training resumes from it.
        """
        self.model, self.loader, self.optimizer, self.schedule = model, loader, optimizer, schedule
        self.options, self.validate, self.frozen = options, validate, frozen
        self.procs, self.callbacks = procs, callbacks or Callbacks()
        self.step = Stepper(model, optimizer, loss, prepare, options, self.procs, mix)
        # After the stepper, which gives every rank the parameters of rank 0.
        self.ema = ModelAverage(model, options.ema_decay) if options.ema_decay else None
        self.plan = Plan.of(options, len(loader), loader.batch_samples)
        parts = model, optimizer, self.step.scaler, self.ema
        about = about or Checkpoint()
        self.snapshots = Snapshots(options, self.procs, *parts, self.plan, identity, about)
        self.progress = Progress()
        self.stop = StopRequest()
        # Silent until `resume` knows where training starts.
        self.log = RunLog(options.output_dir, enabled=False)
        self.window_clock, self.epoch_clock = Clock(), Clock()

    # --- the run ---

    def train(self) -> TrainSummary:
        """Train to the end, or to SIGTERM or Ctrl-C; a checkpoint is saved at the last step."""
        goes_on = self.resume()
        if goes_on and self.plan.is_finished(self.progress):
            limit = "MAX_ITER" if self.plan.step_limit else "MAX_EPOCH"
            logger.info(
                "finished: nothing to train; raise SOLVER.%s or choose another OUTPUT_DIR", limit
            )
        finished = True
        with self.stop:
            try:
                if self.options.precise_bn_first and not goes_on:
                    self.measure_bn_first()
                while not self.plan.is_finished(self.progress):
                    self.train_epoch()
                    self.end_epoch()
            except Stopped:
                finished = False
                reason = self.stop.signal_name or "a signal to another process"
                saved = self.snapshots.last_saved or "nothing, as no step was done"
                logger.info("stopped by %s: saved %s; the same command continues", reason, saved)
            finally:
                self.log.close()
        best = None if math.isinf(self.progress.best) else self.progress.best
        stopped_by = "" if finished else self.stop.signal_name or ""
        return TrainSummary(
            finished, self.progress.epoch, best, self.snapshots.last_saved, stopped_by
        )

    def train_epoch(self) -> None:
        done = self.progress
        batches = OnDevice(self.loader.epoch(done.epoch, done.samples), self.procs.device)
        self.log.start_epoch(self.position())
        self.set_training_mode()
        self.window_clock, self.epoch_clock = Clock(), Clock()
        steps = self.plan.steps(done, self.loader.ends(done.samples))
        sizes = [*map(len, steps), 0]
        for ends, following in zip(steps, sizes[1:], strict=True):
            group = self.fetch(batches, len(ends))
            self.log.clips(group[0].inputs, done.step)
            by_step = self.schedule.per_iteration
            lr = self.schedule.lr(done.step if by_step else self.plan.epochs_done(done))
            prefetch = partial(self.prefetch, batches, following)
            outcome = self.step(group, lr, while_busy=prefetch)
            self.account(group, ends[-1], outcome)
            self.report(lr, outcome)

    def end_epoch(self) -> None:
        """Precise batch norm, validation, best.pyth, checkpoint; repeated after an interruption."""
        self.agree_to_go_on()
        at, before, trained = self.position(), self.capture(), self.epoch_metrics()
        last, validated = at.epoch == at.max_epoch, dict[str, float]()
        evaluates = self.validate is not None and (
            last or is_due(at.epoch, self.options.eval_period)
        )
        saves = last or is_due(at.epoch, self.options.checkpoint_period)
        measures = self.options.precise_bn_batches > 0 and (evaluates or saves)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        try:
            self.log.train_epoch(at, trained, self.epoch_clock)
            if measures or evaluates:
                validated = self.measure_and_validate(at, measures, evaluates)
        except (Stopped, DataError):  # no video of the validation can be read
            copy_all(buffers, list(self.model.buffers()))  # a measurement may have begun
            self.snapshots.save(before)
            raise
        done = self.progress
        best = min(done.best, validated.get(self.options.best_metric, math.inf))
        counts = done.step, done.skipped, done.skipped_in_a_row, best
        self.progress = Progress(done.epoch + 1, 0, *counts)
        if best < done.best:
            self.snapshots.save_best(self.capture())
        if saves:
            self.snapshots.save(self.capture())
        if self.procs.is_main:
            found = trained | {f"val_{name}": value for name, value in validated.items()}
            self.callbacks.on_epoch({"epoch": at.epoch, "step": at.step} | found)

    def capture(self) -> Checkpoint:
        """The state of the whole run; metrics.jsonl is flushed up to it."""
        self.progress.metrics_bytes = self.log.secure()
        return self.snapshots.capture(self.progress)

    # --- a step ---

    def prefetch(self, batches: OnDevice, count: int) -> None:
        """Read the batches of the next step. Only idle time of the GPU is waiting for data."""
        for clock in (self.window_clock, self.epoch_clock):
            clock.computed()
        if batches.prefetch(count):
            for clock in (self.window_clock, self.epoch_clock):
                clock.got_data()

    def fetch(self, batches: OnDevice, count: int) -> "list[Batch]":
        """The batches of one step. An error of the loader is raised after a checkpoint is saved."""
        group: list[Batch] = []
        error = None
        try:
            group = [batches.next() for _ in range(count)]
        except DataError as reason:
            error = reason
        self.window_clock.got_data()
        self.epoch_clock.got_data()
        self.agree_to_go_on(error)
        return group

    def agree_to_go_on(self, error: DataError | None = None) -> None:
        """On all ranks together: save a checkpoint when one is due, when a rank has a signal, or
        when a rank cannot read its data, or all ranks too many files; in the last three cases
        stop."""
        due, news = self.procs.is_main and self.snapshots.is_due(), self.loader.has_news
        stop, failed, due, news = self.procs.any_of(
            self.stop.signal_name is not None, error is not None, due, news
        )
        if news:
            try:
                self.loader.share_bad(self.procs.gather)
            except DataError as reason:
                error, failed = error or reason, True
        if stop or failed or due:
            self.snapshots.save(self.capture())
        if failed:
            raise error or DataError("stopped: another process could not read its data")
        if stop:
            raise Stopped

    def account(self, group: "list[Batch]", end: int, outcome: StepOutcome) -> None:
        """Advance the progress by one step, to sample `end`; stop if numbers are not finite."""
        done = self.progress
        done.samples = end
        done.step += 1
        if outcome.trouble is not None:
            done.skipped += 1
            done.skipped_in_a_row += 1
            self.check_patience(group, outcome.trouble)
        else:
            done.skipped_in_a_row = 0
            done.window.add(outcome.tally)
            done.total.add(outcome.tally)
            if self.ema is not None:
                self.ema.update(self.model)
        for clock in (self.window_clock, self.epoch_clock):
            clock.did_step(int(outcome.tally.clips))

    def check_patience(self, group: "list[Batch]", trouble: str) -> None:
        """fp32 stops at once, mixed precision after max_skipped skipped steps in a row. Raises
        OctvideoError."""
        allowed = self.options.max_skipped if self.options.amp_dtype is not None else 0
        own = [path for batch in group for path in batch.paths]
        names = list(chain.from_iterable(self.procs.gather(own)))
        at = self.position()
        where = (
            f"the {trouble} is not finite at epoch {at.epoch}, iteration {at.iteration}, files"
            f" {', '.join(names)}"
        )
        if self.progress.skipped_in_a_row > allowed:
            saved = self.snapshots.last_saved or "none yet"
            raise OctvideoError(
                f"{where}; last checkpoint: {saved}; lower SOLVER.BASE_LR or look at these files"
            )
        logger.warning("%s: step skipped (%d in a row)", where, self.progress.skipped_in_a_row)

    def report(self, lr: float, outcome: StepOutcome) -> None:
        """Log a line every log_period steps and at the end of the epoch."""
        at, window = self.position(), self.progress.window
        rates = {"lr": lr, "grad_norm": outcome.grad_norm}
        metrics = window.means() | rates
        self.log.tick(metrics, self.window_clock)
        if at.iteration % self.options.log_period == 0 or at.iteration == at.iterations:
            self.log.train_iter(at, metrics, self.window_clock)
            self.progress.window, self.window_clock = Tally(), Clock()
        if self.procs.is_main:
            found = outcome.tally.means() | rates
            self.callbacks.on_step({"epoch": at.epoch, "step": at.step} | found)

    # --- the end of an epoch ---

    def measure_bn(self, num_batches: int) -> None:
        count = min(num_batches, len(self.loader))
        batches = self.loader.epoch(self.progress.epoch)
        inputs = (self.step.as_network_input(next(batches).inputs) for _ in range(count))
        with self.step.autocast():
            measure_bn_statistics(self.model, inputs, count, self.procs)

    def measure_and_validate(
        self, at: Position, measures: bool, evaluates: bool
    ) -> dict[str, float]:
        """Precise batch norm and validation, of the moving average if there is one; {} without a
        validation. Raises Stopped, with weights and average as they were."""
        found = dict[str, float]()
        with self.ema.applied(self.model) if self.ema is not None else nullcontext():
            # Only here, where no weights are being exchanged, may a signal interrupt.
            with self.stop.leave_at_once():
                self.procs.share_buffers(self.model)
                if measures:
                    self.measure_bn(self.options.precise_bn_batches)
                if evaluates:
                    found = self.run_validation(at)
            if measures and self.ema is not None:
                self.ema.load_state_dict(self.model.state_dict())
        return found

    def run_validation(self, at: Position) -> dict[str, float]:
        """Validate the model as it is, and log the metrics."""
        assert self.validate is not None
        self.model.eval()
        metrics = dict(self.validate(self.model))
        value = self.options.best_of(metrics)
        self.log.validation(at, metrics, value < self.progress.best)
        return metrics

    # --- the beginning ---

    def resume(self) -> bool:
        """Resume from the newest whole checkpoint, False if there is none; opens the log."""
        self.snapshots.open_folder()
        found = self.snapshots.resume()
        self.progress = found or Progress()
        if self.procs.is_main:  # not below `stop`: a rehearsal ends here, and signals with it
            self.callbacks.on_start()
        self.log = RunLog(
            self.options.output_dir,
            enabled=self.procs.is_main,
            tensorboard=self.options.tensorboard,
            metrics_bytes=self.progress.metrics_bytes,
            at=self.position(),
        )
        return found is not None

    def measure_bn_first(self) -> None:
        """Measure batch norm statistics of the initial weights, of frozen modules too."""
        self.model.train()
        with self.stop.leave_at_once():
            self.measure_bn(self.options.precise_bn_first)
        logger.info("batch norm statistics measured before the first step")
        if self.ema is not None:
            self.ema.load_state_dict(self.model.state_dict())

    # --- where training stands ---

    def position(self) -> Position:
        return self.plan.position(self.progress)

    def set_training_mode(self) -> None:
        self.model.train()
        for module in self.frozen:
            module.eval()

    def epoch_metrics(self) -> dict[str, float]:
        lr = self.optimizer.param_groups[0]["lr"]
        return self.progress.total.means() | {"lr": lr, "skipped": self.progress.skipped}


def is_due(epoch: int, period: int) -> bool:
    return period > 0 and epoch % period == 0
