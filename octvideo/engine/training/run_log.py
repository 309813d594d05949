"""A run's log: console lines, a progress bar, TensorBoard; metrics.jsonl and timing.jsonl."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch import Tensor
from tqdm import tqdm

from octvideo.engine.training.board import Board
from octvideo.engine.training.records import Clock, JsonLines, as_json, content_of
from octvideo.engine.training.state import Position
from octvideo.errors import logger
from octvideo.files import write_atomically

_BEGINNING = Position(1, 0, 0, 0, 0, 0)
STARVED = 0.3  # share of an epoch spent waiting for data above which the log gives advice


def clip_strip(clip: Tensor) -> Tensor:
    """(3, T, H, W) -> (3, H, T*W), frames side by side; an image (3, H, W) stays as it is."""
    return clip if clip.ndim == 3 else clip.transpose(1, 2).flatten(2)


def starvation_verdict(clock: Clock) -> str | None:
    """Advice for an epoch that waited for data; None if it hardly did."""
    if clock.data_share < STARVED or clock.data < 1:
        return None
    return f"data {clock.data_share:.0%}: raise DATA_LOADER.NUM_WORKERS or run `octvideo resize`"


def cut_back(metrics: str, timing: str, metrics_bytes: int, at: Position) -> None:
    """Truncate both files to the point from which a run resumes, where metrics.jsonl had
    metrics_bytes. Warn if it no longer has: nothing else tells how training went until there."""
    # By their places too: where the file was gone, a run that was killed since has begun another.
    kept = list(_until(at, content_of(metrics)[:metrics_bytes]))
    if sum(len(line) for line, _ in kept) < metrics_bytes:
        left = f"no longer whole (it ends at step {kept[-1][1].get('step')})" if kept else "gone"
        logger.warning(
            "%s: %s since the checkpoint of step %d was saved; what is missing is lost, and the"
            " record %s in epoch %d",
            metrics, left, at.step, "goes on" if kept else "begins", at.epoch,
        )  # fmt: skip
    _write(metrics, kept)
    _write(timing, _until(at, content_of(timing)))


def _until(at: Position, content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines up to a position, and their records."""
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line)
            if record["_type"] == "train_iter":
                is_before = record["step"] <= at.step
            else:  # of an epoch that is done
                is_before = record["epoch"] < at.epoch
        except (ValueError, KeyError, TypeError):
            continue
        if is_before and line.endswith(b"\n"):
            yield line, record


def _write(path: str, records: Iterable[tuple[bytes, dict[str, Any]]]) -> None:
    content = b"".join(line for line, _ in records)
    write_atomically(path, lambda file: file.write(content))


class RunLog:
    """Rank 0's record of a training run. Other ranks have `enabled` False and write nothing."""

    def __init__(
        self,
        output_dir: str,
        *,
        enabled: bool = True,
        tensorboard: bool = False,
        metrics_bytes: int = 0,
        at: Position = _BEGINNING,
    ) -> None:
        """metrics_bytes, at: of the checkpoint that is resumed; later records are cut."""
        self.enabled = enabled
        self.clips_shown = False
        self.bar: tqdm[Any] | None = None
        if enabled:
            metrics, timing = f"{output_dir}/metrics.jsonl", f"{output_dir}/timing.jsonl"
            cut_back(metrics, timing, metrics_bytes, at)
            self.metrics, self.timing = JsonLines(metrics), JsonLines(timing)
        has_board = enabled and tensorboard
        self.board = Board(f"{output_dir}/tensorboard", at.step) if has_board else None

    def start_epoch(self, at: Position) -> None:
        if self.enabled:
            # disable=None: no bar where stderr is not a terminal; lines stand in for it.
            title = f"epoch {at.epoch}/{at.max_epoch}"
            self.bar = tqdm(
                desc=title, initial=at.iteration, total=at.iterations, disable=None, leave=False
            )

    def tick(self, metrics: dict[str, float], clock: Clock) -> None:
        """Advance the progress bar by one step."""
        if self.bar is not None and not self.bar.disable:
            with suppress(OSError):  # the terminal may be gone, which stops no training
                self.bar.set_postfix_str(_summary(metrics, clock.rates()), refresh=False)
                self.bar.update()

    def train_iter(self, at: Position, metrics: dict[str, float], clock: Clock) -> None:
        """Means over the last LOG_PERIOD steps, NaN if all were skipped; in JSON that is null."""
        if not self.enabled:
            return
        rates = clock.rates()
        eta = str(timedelta(seconds=int(rates["dt"] * (at.total_steps - at.step))))
        place = {"epoch": at.epoch, "iter": at.iteration, "step": at.step}
        self.metrics.write({"_type": "train_iter", **place, **metrics})
        self.timing.write({"_type": "train_iter", **place, **rates, "eta": eta})
        where = {
            "epoch": f"{at.epoch}/{at.max_epoch}",
            "iter": f"{at.iteration}/{at.iterations}",
            "eta": eta,
        }
        self._json_stats("train_iter", where, metrics, rates)
        if self.bar is not None and self.bar.disable:
            logger.info(
                "epoch {epoch}  {iter}  %s  eta {eta}".format(**where), _summary(metrics, rates)
            )
        self._scalars("Train", at.step, metrics)

    def train_epoch(self, at: Position, metrics: dict[str, float], clock: Clock) -> None:
        if not self.enabled:
            return
        self._close_bar()
        rates = clock.rates()
        self.metrics.write({"_type": "train_epoch", "epoch": at.epoch, "step": at.step, **metrics})
        self.timing.write(
            {"_type": "train_epoch", "epoch": at.epoch, "seconds": clock.seconds, **rates}
        )
        self._json_stats("train_epoch", {"epoch": f"{at.epoch}/{at.max_epoch}"}, metrics, rates)
        logger.info(
            "epoch %d/%d done in %.0f s  %s",
            at.epoch,
            at.max_epoch,
            clock.seconds,
            _summary(metrics, rates),
        )
        if verdict := starvation_verdict(clock):
            logger.warning(verdict)

    def validation(self, at: Position, metrics: dict[str, float], is_best: bool) -> None:
        if not self.enabled:
            return
        self.metrics.write({"_type": "val_epoch", "epoch": at.epoch, "step": at.step, **metrics})
        self._json_stats("val_epoch", {"epoch": f"{at.epoch}/{at.max_epoch}"}, metrics)
        values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        logger.info(
            "epoch %d/%d validation  %s%s",
            at.epoch,
            at.max_epoch,
            values,
            "  (best so far)" if is_best else "",
        )
        self._scalars("Val", at.step, metrics)

    def clips(self, inputs: Tensor, step: int, count: int = 4) -> None:
        """The first clips of a run's first uint8 batch as strips; later batches are ignored."""
        if self.board is not None and not self.clips_shown:
            for i, clip in enumerate(inputs[:count]):
                self.board.add_image(f"Train/clip_{i}", clip_strip(clip), step)
            self.clips_shown = True

    def secure(self) -> int:
        """Flush everything written so far to the disk; returns the size of metrics.jsonl."""
        if self.board is not None:
            self.board.flush()  # a run that is killed repeats no step before its checkpoint
        if not self.enabled:
            return 0
        size = self.metrics.secure()
        self.timing.secure()
        return size

    def close(self) -> None:
        self._close_bar()
        if self.enabled:
            self.metrics.close()
            self.timing.close()
        if self.board is not None:
            self.board.close()

    def _close_bar(self) -> None:
        if self.bar is not None:
            with suppress(OSError):
                self.bar.close()

    def _json_stats(self, kind: str, *parts: dict[str, Any]) -> None:
        """PySlowFast's line, for the tools that read its logs."""
        record: dict[str, Any] = {"_type": kind}
        for part in parts:
            record |= part
        logger.debug("json_stats: %s", as_json(record))

    def _scalars(self, prefix: str, step: int, metrics: dict[str, float]) -> None:
        if self.board is not None:
            for name, value in metrics.items():
                self.board.add_scalar(f"{prefix}/{name.replace('top', 'Top')}", value, step)


def _summary(metrics: dict[str, float], rates: dict[str, float]) -> str:
    return (
        f"loss {metrics['loss']:.4f}  top-1 {100 - metrics['top1_err']:.1f} %  lr"
        f" {metrics['lr']:.2g}  data {rates['data_share']:.0%}  {rates['clips_per_second']:.1f}"
        f" clips/s  {rates['memory_gb']:.1f} GB"
    )
