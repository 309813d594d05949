"""CIFAR-10: residual networks trained as vanilla and as octave networks, beside a published
replication.

    python benchmarks/cifar10.py run small FOLDER runs/cifar10     FOLDER holds cifar-10-batches-py
    python benchmarks/cifar10.py record small FOLDER runs/cifar10  what a run under way has so far
    python benchmarks/cifar10.py time                              seconds per epoch of all networks
    python benchmarks/cifar10.py write                             the tables of docs/results_cifar10.md
    python benchmarks/cifar10.py pack FOLDER PACK.npz              the pictures for cifar10_gpu.py
    python benchmarks/cifar10.py take DIR/epochs.jsonl             the runs that it did

What is compared stands in cifar_studies.py. `run` does the runs that are not done, in the order of
the seeds, and the same command continues an interrupted series; it ends with what `record` does:
every run, whole or not, is put into --results with its curve by epoch, and the tables are written.
The test pictures are validated on after each epoch, and the last epoch counts, not the best.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cifar_studies import COMMON, STUDIES, Study
from cifar_tables import write_page
from graph_training import computes_bf16
from packs import encoded, joined
from torch import nn

from octvideo.assembly.model import build_model
from octvideo.assembly.recipe import build_optimizer
from octvideo.complexity import count
from octvideo.data.images import cifar10
from octvideo.errors import ConfigError, exit_on_user_error
from octvideo.files import read_json_lines
from octvideo.layers import channels_last
from octvideo.report.environment import environment
from octvideo.study import Sweep, run_sweep
from octvideo.study.sweep import check_runs
from octvideo.study.tables import write_runs

REPO = Path(__file__).resolve().parent.parent
PAGE = REPO / "docs" / "results_cifar10.md"
PICTURES, ROUNDS = 50_000, 7
Run = dict[str, Any]
Step = Callable[[], float]


# --- Runs and records


def sweep_of(study: Study, data: str, seeds: Iterable[int]) -> Sweep:
    words = [*COMMON, *study.settings, f"RNG_SEED={','.join(map(str, seeds))}"]
    if not computes_bf16(torch.device("cpu")):
        words.append("TRAIN.MIXED_PRECISION=False")
    folder = [f"DATA.PATH_TO_DATA_DIR={data}"] if data else []
    return Sweep.of(str(REPO / study.recipe), [*words, *folder], study.rows)


def records_of(study: Study, sweep: Sweep, out: Path) -> Iterator[Run]:
    """The runs of the sweep in `out` that have an epoch."""
    for variant, repetition in product(sweep.variants, sweep.repetitions):
        path = out / "runs" / variant.folder(repetition) / "metrics.jsonl"
        curve = curve_of(path)
        if curve:
            cfg = sweep.settings(variant, repetition)
            day = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
            yield {
                "study": study.name,
                "row": variant.row,
                "seed": cfg.RNG_SEED,
                "epochs": cfg.SOLVER.MAX_EPOCH,
                "date": str(day),
                "machine": "CPU" if cfg.TRAIN.MIXED_PRECISION else "CPU, fp32",
                "curve": curve,
            }


def curve_of(path: Path) -> list[list[float]]:
    """By epoch: training loss and top-1, with crops and flips and while the weights move, then test
    loss and top-1."""
    train: dict[int, list[float]] = {}
    curve: dict[int, list[float]] = {}
    for line in read_json_lines(path):
        if line.get("_type") == "train_epoch":
            train[line["epoch"]] = [round(line["loss"], 4), round(100 - line["top1_err"], 2)]
        elif line.get("_type") == "val_epoch" and line["epoch"] in train:
            test = [round(line["loss"], 4), round(100 - line["top1_err"], 2)]
            curve[line["epoch"]] = train[line["epoch"]] + test
    return [curve[epoch] for epoch in sorted(curve)]


def records_of_gpu(path: Path) -> list[Run]:
    """The runs of cifar10_gpu.py; of an epoch that was repeated, the last time."""
    runs: dict[tuple[Any, ...], Run] = {}
    for line in read_json_lines(path):
        about = {key: line[key] for key in ("study", "row", "seed", "epochs", "machine")}
        day = str(datetime.fromtimestamp(path.stat().st_mtime, UTC).date())
        run = runs.setdefault(key_of(about), about | {"curve": []}) | {"date": day}
        run["curve"][line["epoch"] - 1 :] = [[*line["train"], *line["test"]]]
        runs[key_of(about)] = run
    return list(runs.values())


def read_records(results: Path) -> Run:
    path = results / "cifar10.json"
    return json.loads(path.read_text()) if path.is_file() else {"runs": []}


def write_records(results: Path, content: Run) -> None:
    head = {key: value for key, value in content.items() if key != "runs"}
    write_runs(results / "cifar10.json", head, content["runs"])


def key_of(run: Run) -> tuple[Any, ...]:
    return run["study"], run["row"], run["seed"]


def record(found: list[Run], results: Path) -> None:
    """Put the runs in place of records of the same runs that had no more epochs."""
    content = read_records(results)
    content.setdefault("environment", environment())
    runs = {key_of(run): run for run in content["runs"]}
    for run in found:
        had = runs.get(key_of(run))
        if had is None or len(run["curve"]) >= len(had["curve"]):
            runs[key_of(run)] = run
    order = list(STUDIES)
    content["runs"] = sorted(runs.values(), key=lambda run: order.index(run["study"]))
    write_records(results, content)


def pack(folder: str, path: Path) -> None:
    """Write the pictures as one file of PNG files, for cifar10_gpu.py."""
    arrays = {}
    for split in cifar10.BATCHES:
        images, labels = cifar10.read_split(Path(folder), split)
        data, ends = joined(encoded(image, "png") for image in images)
        arrays |= {f"{split}_bytes": data, f"{split}_ends": ends}
        arrays[f"{split}_labels"] = np.array(labels, np.uint8)
    np.savez(path, **arrays)


# --- Time


def measure(study: Study, rounds: int = ROUNDS) -> dict[str, Run]:
    """Multiply-adds, parameters and seconds per epoch of a study's networks, which take their steps
    in turns.

    Seconds are CPU seconds of one thread by the median step, without reading and validation; times:
    how many times those of the first network, the median, lowest and highest of the rounds.
    """
    torch.set_num_threads(1)
    sweep = sweep_of(study, "", [1])
    costs: dict[str, Run] = {}
    steps: dict[str, Step] = {}
    for variant in sweep.variants:
        cfg = sweep.settings(variant)
        model, side = build_model(cfg), cfg.DATA.TRAIN_CROP_SIZE * study.upscale
        cost = count(model, (3, side, side))
        costs[variant.row] = {"macs": cost.macs, "parameters": cost.parameters}
        steps[variant.row] = step_of(cfg, model, side)
    taken: dict[str, list[float]] = {row: [] for row in steps}
    for row, step in [*steps.items()] * (rounds + 1):
        taken[row].append(step())
    _, *vanilla = taken[next(iter(steps))]
    for row, cost in costs.items():
        _, *seconds = taken[row]  # the first step prepares
        times = [own / other for own, other in zip(seconds, vanilla, strict=True)]
        cost["epoch_seconds"] = round(statistics.median(seconds), 1)
        cost["times"] = [round(t, 3) for t in (statistics.median(times), min(times), max(times))]
    return costs


def step_of(cfg: Any, model: nn.Module, side: int) -> Step:
    """A training step on random pictures; it returns the CPU seconds of an epoch of such steps."""
    batch = cfg.TRAIN.BATCH_SIZE
    optimizer = build_optimizer(cfg, channels_last(model.train(), True))
    inputs = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(batch) % cfg.MODEL.NUM_CLASSES

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=cfg.TRAIN.MIXED_PRECISION):
            logits = model(inputs)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        return (time.process_time() - start) * (PICTURES // batch)

    return step


def measure_all(studies: Iterable[Study], results: Path) -> None:
    """Each study is written as soon as it is measured."""
    for study in studies:
        content = read_records(results)
        content.setdefault("costs", {})[study.name] = measure(study)
        write_records(results, content)


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--results", type=Path, default=REPO / "benchmarks" / "results")
    shared.add_argument("--page", type=Path, default=PAGE, help="whose tables are written")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("run", "record"):
        sub = kinds.add_parser(kind, parents=[shared])
        sub.add_argument("study", choices=[s.name for s in STUDIES.values() if s.where == "CPU"])
        sub.add_argument("data", help="folder of cifar-10-batches-py")
        sub.add_argument("out", type=Path)
        sub.add_argument(
            "--rows", nargs="+", metavar="ROW", help="some networks of the study alone"
        )
        sub.add_argument("--seeds", type=int, nargs="+")
        sub.add_argument("--jobs", type=int, default=1, help="runs beside each other (1)")
    times = kinds.add_parser("time", parents=[shared])
    times.add_argument("studies", nargs="*", default=list(STUDIES), metavar="STUDY")
    kinds.add_parser("write", parents=[shared])
    taken = kinds.add_parser("take", parents=[shared])
    taken.add_argument("epochs", type=Path, help="epochs.jsonl of cifar10_gpu.py")
    packed = kinds.add_parser("pack")
    packed.add_argument("data", help="folder of cifar-10-batches-py")
    packed.add_argument("file", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    if args.kind == "pack":
        folder = cifar10.find_batches(Path(args.data))
        pack(str(folder or args.data), args.file)
        return
    if args.kind == "time":
        measure_all((STUDIES[name] for name in args.studies), args.results)
    elif args.kind == "take":
        record(records_of_gpu(args.epochs), args.results)
    elif args.kind in ("run", "record"):
        follow(args, STUDIES[args.study])
    write_page(args.page, read_records(args.results))


def follow(args: argparse.Namespace, study: Study) -> None:
    """Do the runs of a study, unless only their records are wanted, and record them."""
    if unknown := sorted(set(args.rows or ()) - study.rows.keys()):
        rule = f"{study.name} has {', '.join(study.rows)}"
        raise ConfigError(f"--rows {', '.join(unknown)}: {rule}")
    study = replace(study, rows={row: study.rows[row] for row in args.rows or study.rows})
    out = args.out.resolve() / study.name
    sweep = sweep_of(study, str(Path(args.data).resolve()), args.seeds or study.seeds)
    check_runs(sweep, out)
    try:
        if args.kind == "run":
            run_sweep(sweep, out, jobs=args.jobs, report=lambda line: print(line, flush=True))
    finally:
        record(list(records_of(study, sweep, out)), args.results)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
