"""Clips per second of a training step on generated clips, by number of processes: what
synchronizing costs.

    python benchmarks/scaling.py --ranks 1 2 --repeats 3
    python benchmarks/scaling.py --ranks 1 2 4 8 --model i3d_r50 --crop 224 --batch 8 --amp       # GPUs

Every process trains on `--batch` clips of its own per step (weak scaling) that are made once, so no
data loading is in the figures. On the CPU the processes share the cores: 2 ranks with half the
threads each. Runs are interleaved. Where other work disturbs the clock, compare CPU seconds per
clip with `--threads 1`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from octvideo import create_model
from octvideo.data.loading.batch import Batch
from octvideo.data.transforms import normalize
from octvideo.engine.distributed import Processes
from octvideo.engine.process_group import processes
from octvideo.engine.threads import set_threads
from octvideo.engine.training.losses import make_loss
from octvideo.engine.training.optim import Schedule, make_optimizer
from octvideo.engine.training.records import Clock
from octvideo.engine.training.state import TrainOptions
from octvideo.engine.training.step import Stepper


def generated(args: argparse.Namespace) -> Iterator[Batch]:
    clips = torch.randint(0, 256, (args.batch, 3, 8, args.crop, args.crop), dtype=torch.uint8)
    batch = Batch(
        clips, torch.arange(args.batch), torch.arange(args.batch), ["generated"] * args.batch
    )
    while True:
        yield batch


def measure(args: argparse.Namespace, procs: Processes) -> tuple[float, float]:
    """Clips per second of all processes together, CPU seconds per clip; the first steps warm up."""
    set_threads(0, procs.local_world_size)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = (
        create_model(args.model, alpha=args.alpha, num_classes=400, crop_size=args.crop)
        .to(procs.device)
        .train()
    )
    options = TrainOptions("", 1, amp_dtype=torch.bfloat16 if args.amp else None)
    step = Stepper(
        model,
        make_optimizer(model, lr=0.01),
        make_loss(),
        lambda x: normalize(x, (0.45,) * 3, (0.225,) * 3),
        options,
        procs,
    )
    batches = generated(args)
    lr = Schedule("cosine", base_lr=0.01, length=1).lr(0)
    for _ in range(args.warmup):
        step([next(batches)], lr)
    clock, cpu = Clock(), time.process_time()
    for _ in range(args.steps):
        clips = step([next(batches)], lr).tally.clips
        clock.did_step(int(clips))
    cpu_seconds = procs.total(torch.tensor(time.process_time() - cpu)).item()
    return clock.rates()["clips_per_second"], cpu_seconds / clock.clips


def launch(ranks: int) -> tuple[float, float]:
    """This program under torchrun; the figures that rank 0 writes."""
    with tempfile.NamedTemporaryFile("r") as result:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(ranks),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, *sys.argv, "--result", result.name], check=True, env=environment)
        rate, cpu = result.read().split()
        return float(rate), float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="i3d_r26")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--threads", type=int, default=0, help="per process (0: the cores, shared out)"
    )
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.result is not None:
        with processes() as procs:
            rate, cpu = measure(args, procs)
            if procs.is_main:
                args.result.write_text(f"{rate} {cpu}")
        return
    figures: dict[int, list[tuple[float, float]]] = {ranks: [] for ranks in args.ranks}
    for _ in range(args.repeats):
        for ranks in args.ranks:
            figures[ranks].append(launch(ranks))
    for ranks, runs in figures.items():
        rates, cpus = zip(*runs, strict=True)
        print(
            f"{ranks} process(es): {statistics.median(rates):.2f} clips/s"
            f" ({min(rates):.2f}-{max(rates):.2f}), {statistics.median(cpus):.3f} CPU s per clip"
            f" ({min(cpus):.3f}-{max(cpus):.3f})"
        )


if __name__ == "__main__":
    main()
