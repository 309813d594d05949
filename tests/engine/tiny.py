"""A training run small enough to be killed fifty times: stub network, stub loader, real Trainer.

As a program, `python tiny.py OUTPUT_DIR [key=value ...]`, also under torchrun. Keys: those of
TrainOptions, dropout, sync (batch norm), seconds (per batch), silence (of a lost rank), fail_rank
and fail_at (a DataError), hang_rank and hang_at (a file that is read for ever), die_once (SIGKILL
of rank 1 at a batch), stop_rank and stop_in (SIGSTOP when it calls this function of
`octvideo.engine.process_group`).
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from octvideo.data.loading.batch import Batch
from octvideo.data.reading import reading, stuck_here
from octvideo.engine import liveness, process_group
from octvideo.engine.distributed import Processes
from octvideo.engine.log import setup_logging
from octvideo.engine.process_group import backend_of, processes
from octvideo.engine.training.adapt import synchronize_batch_norm
from octvideo.engine.training.losses import make_loss
from octvideo.engine.training.optim import Schedule, make_optimizer
from octvideo.engine.training.rng import seed_all
from octvideo.engine.training.state import TrainOptions
from octvideo.engine.training.trainer import Trainer
from octvideo.errors import DataError, exit_on_user_error

CLASSES = 3


class TinyNet(nn.Sequential):
    """Convolution, batch norm, dropout (so that random numbers matter), classifier."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__(
            nn.Conv3d(3, 4, (1, 3, 3), bias=False),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(4, CLASSES),
        )


def sample(epoch: int, index: int, shape: tuple[int, ...] = (3, 2, 6, 6)) -> Tensor:
    """A uint8 clip whose brightness pattern tells its class, index % CLASSES."""
    noise = torch.Generator().manual_seed(1000 * epoch + index)
    clip = torch.randint(0, 120, shape, generator=noise)
    clip[index % CLASSES] += 100
    return clip.to(torch.uint8)


class TinyLoader:
    """Global batches are the same for any world_size; `fail_at` batch of epoch 1 gives up with a
    DataError."""

    has_news = False

    def __init__(
        self,
        batches: int = 6,
        batch_size: int = 4,
        rank: int = 0,
        world_size: int = 1,
        **faults: Any,
    ) -> None:
        self.batches, self.batch_size, self.rank, self.world_size = (
            batches,
            batch_size,
            rank,
            world_size,
        )
        self.fail_at, self.seconds = faults.get("fail_at"), faults.get("seconds", 0.0)
        self.hang_at = faults.get("hang_at")

    def __len__(self) -> int:
        return self.batches

    @property
    def batch_samples(self) -> int:
        return self.batch_size * self.world_size

    def ends(self, start_sample: int = 0) -> list[int]:
        first = start_sample // self.batch_samples
        return [(n + 1) * self.batch_samples for n in range(first, self.batches)]

    def epoch(self, epoch: int, start_sample: int = 0) -> Iterator[Batch]:
        torch.rand(1)  # as DataLoader does when it starts
        for number in range(start_sample // self.batch_samples, self.batches):
            if epoch == 1 and number == self.fail_at:
                raise DataError("5 of 20 files are bad, more than DATA.MAX_BAD_RATIO allows")
            time.sleep(self.seconds)
            if number == self.hang_at:
                with reading("clip_of_a_dead_server.mp4"):
                    time.sleep(1000)
            first = (number * self.world_size + self.rank) * self.batch_size
            indices = list(range(first, first + self.batch_size))
            yield Batch(
                inputs=torch.stack([sample(epoch, i) for i in indices]),
                targets=torch.tensor([i % CLASSES for i in indices]),
                indices=torch.tensor(indices),
                paths=[f"clip_{i}.mp4" for i in indices],
            )


def prepare(inputs: Tensor) -> Tensor:
    return inputs.float() / 255 - 0.45


def validate(model: nn.Module) -> dict[str, float]:
    inputs = torch.stack([sample(99, i) for i in range(12)])
    with torch.no_grad():
        guesses = model(prepare(inputs)).argmax(1)
    wrong = (guesses != torch.arange(12) % CLASSES).float().mean()
    return {"top1_err": 100 * float(wrong)}


def make_trainer(
    output_dir: Path | str,
    *,
    model: nn.Module | None = None,
    loader: Any = None,
    procs: Processes | None = None,
    lr: float = 0.1,
    method: Any = "sgd",
    parts: dict[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """parts: keyword arguments of Trainer; options: of TrainOptions."""
    procs = procs or Processes()
    seed_all(7)
    model = model if model is not None else TinyNet()
    chosen = TrainOptions(str(output_dir), **{"max_epoch": 3, "log_period": 2} | options)
    loader = loader or TinyLoader(
        rank=procs.rank, world_size=procs.world_size, batch_size=8 // procs.world_size
    )
    seed_all(7 + procs.rank)
    return Trainer(
        model,
        loader,
        make_optimizer(model, lr=lr, method=method),
        Schedule("cosine", base_lr=lr, length=chosen.max_epoch, warmup=1, warmup_start_lr=0.01),
        chosen,
        **{"loss": make_loss(), "prepare": prepare, "validate": validate, "procs": procs}
        | (parts or {}),
    )


@contextlib.contextmanager
def group_of_one(device: torch.device) -> Iterator[None]:
    """This process is the only rank of a process group."""
    store = dist.HashStore()
    dist.init_process_group(backend_of(device), store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class DyingLoader(TinyLoader):
    """Rank 1 is killed before its n-th batch, once: a file remembers."""

    def __init__(self, n: int, memory: Path, **options: Any) -> None:
        super().__init__(**options)
        self.n, self.memory, self.given = n, memory, 0

    def epoch(self, epoch: int, start_sample: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(epoch, start_sample):
            self.given += 1
            if self.rank == 1 and self.given == self.n and not self.memory.exists():
                self.memory.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def main(output_dir: str, *settings: str) -> None:
    values: dict[str, Any] = {
        key: _number(text) for key, text in (setting.split("=") for setting in settings)
    }
    options = {f.name: values[f.name] for f in fields(TrainOptions) if f.name in values}
    torch.set_num_threads(1)
    silence = values.get("silence", 120)
    liveness.START_SECONDS = silence
    if os.environ.get("RANK") == str(values.get("stop_rank")):
        stop_in(values["stop_in"])
    trouble = partial(stuck_here, silence)
    with exit_on_user_error(), processes("cpu", silence_seconds=silence, trouble=trouble) as procs:
        if procs.is_main:
            with contextlib.suppress(OSError):
                Path(output_dir).mkdir(parents=True, exist_ok=True)
        procs.barrier()
        setup_logging(output_dir if Path(output_dir).is_dir() else None, procs.is_main)
        size = {
            "rank": procs.rank,
            "world_size": procs.world_size,
            "batch_size": 8 // procs.world_size,
        }
        faults = {"seconds": values.get("seconds", 0)}
        with contextlib.suppress(OSError):
            (Path(output_dir) / f"pid_{procs.rank}").write_text(str(os.getpid()))
        if procs.rank == values.get("fail_rank"):
            faults["fail_at"] = values["fail_at"]
        if procs.rank == values.get("hang_rank"):
            faults["hang_at"] = values["hang_at"]
        loader = TinyLoader(**size, **faults)
        if "die_once" in values:
            loader = DyingLoader(values["die_once"], Path(output_dir) / "died", **size, **faults)
        seed_all(7)
        model = TinyNet(values.get("dropout", 0.2))
        if values.get("sync"):
            synchronize_batch_norm(model, procs.device)
        summary = make_trainer(
            output_dir, model=model, loader=loader, procs=procs, **options
        ).train()
        print(f"rank {procs.rank}: finished {summary.finished}", flush=True)


def stop_in(name: str) -> None:
    """This process stops when it calls that function."""
    module = dist if name == "init_process_group" else process_group

    def stop(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    setattr(module, name, stop)


def _number(text: str) -> float | int | str:
    if text.replace(".", "").isdigit():
        return float(text) if "." in text else int(text)
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])
