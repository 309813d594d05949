"""Compare the time of octave and vanilla networks on this machine with their multiply-adds.

    octvideo benchmark --model i3d_r50 --alpha 0 .1 .2 .5
    octvideo benchmark --model i3d_r50 --alpha 0 .5 --engine openvino --threads 1 --rounds 15
    octvideo benchmark --model i3d_r50 --alpha 0 .5 --train --input 8 112 112 --batch 2 --memory-saving
    octvideo benchmark --model i3d_r50 --alpha 0 .1 --engine openvino --layers
    octvideo benchmark --model i3d_r50 --alpha 0 --against pytorchvideo
    octvideo benchmark --device cuda --train --bf16 --compile --batch 16

The other alphas are compared with the first one. The networks are timed in turns; more rounds are
run if the first ones do not show which network is faster. "95 %" is the interval of each ratio's
median, as wide as it has to be because the rounds end when they show something.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from octvideo.cli.unused import refuse_unused
from octvideo.complexity import align
from octvideo.deploy.benchmark import (
    COMPILED,
    ENGINES,
    Case,
    Measured,
    compare,
    compare_layers,
    verdict,
)
from octvideo.errors import ConfigError
from octvideo.files import require_place, write_atomically
from octvideo.layers import WIDTH_RULES
from octvideo.models.registry import input_shape_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="i3d_r50")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.5])
    parser.add_argument(
        "--input",
        type=int,
        nargs="+",
        metavar="N",
        help="T H W, or H W; by default the model's own",
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--train", action="store_true", help="forward and backward instead of inference"
    )
    parser.add_argument(
        "--memory-saving", action="store_true", help="with --train: the octave's memory-saving form"
    )
    parser.add_argument(
        "--width-rule",
        choices=WIDTH_RULES,
        help="how channels are split; by default as in the network",
    )
    parser.add_argument("--engine", default="eager", choices=ENGINES)
    parser.add_argument(
        "--bf16", action="store_true", help="with engine eager: under bfloat16 autocast"
    )
    parser.add_argument(
        "--compile",
        nargs="?",
        const="network",
        default="",
        choices=COMPILED[1:],
        help="with engine eager: torch.compile of the network (default), or of its blocks one by one",
    )
    parser.add_argument(
        "--device", default="cpu", choices=["cpu", "cuda"], help="cuda is timed by CUDA events"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", action="store_true", help="also a table of every layer's time")
    parser.add_argument(
        "--against",
        choices=["pytorchvideo"],
        help="also time pytorchvideo's network of this name, eager",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")


def layer_table(cases: list[Case], rounds: int) -> str:
    """A table of the milliseconds of each layer, and of all layers, for each alpha."""
    times = compare_layers(cases, rounds)
    times["all"] = [sum(column) for column in zip(*times.values(), strict=True)]
    rows = [["layer, ms", *(case.label for case in cases)]]
    for name, row in times.items():
        rows.append([name, *(f"{1e3 * seconds:.2f}" for seconds in row)])
    return align(rows, numbers=range(1, 1 + len(cases)))


def table_row(m: Measured) -> tuple[str, ...]:
    return (
        m.case.label,
        f"{1e3 * m.seconds:.1f}",
        f"{m.spread:.0%}",
        f"{m.clips_per_second:.1f}",
        f"{m.ratio:.3f}",
        f"{m.low:.3f}-{m.high:.3f}",
        f"{m.best_ratio:.3f}",
        f"{m.macs_ratio:.3f}",
        f"{m.megabytes:.0f}" if m.megabytes is not None else "",
    )


def run(args: argparse.Namespace) -> None:
    if not args.train:
        refuse_unused(args, ["--memory-saving"], "it is of training; give --train")
    if min(args.threads, args.rounds, args.batch) < 1:
        raise ConfigError(
            f"--threads {args.threads}, --rounds {args.rounds}, --batch {args.batch}: each is 1 or"
            " more"
        )
    if args.input and min(args.input) < 1:
        raise ConfigError(f"--input {' '.join(map(str, args.input))}: each is 1 or more")
    if args.json:
        require_place(args.json)
    torch.set_num_threads(args.threads)
    usual = input_shape_of(args.model)
    shape = (usual[0], *args.input) if args.input else usual
    cases = [
        Case(
            args.model,
            alpha,
            shape,
            args.batch,
            args.train,
            memory_saving=args.memory_saving and alpha > 0,
            engine=args.engine,
            width_rule=args.width_rule,
            bf16=args.bf16,
            compiled=args.compile,
            device=args.device,
        )
        for alpha in dict.fromkeys(args.alpha)
    ]
    if args.layers:
        cases[0].check_layers()
    if args.against:
        first = cases[0]
        cases.append(
            replace(
                first,
                alpha=0.0,
                source=args.against,
                engine="eager",
                compiled="",
                width_rule=None,
            )
        )
    measured = compare(cases, args.rounds)
    memory = f"{cases[0].memory} MB" if cases[0].memory else ""
    header = (
        "alpha",
        "ms",
        "spread",
        "clips/s",
        "ratio",
        "95 %",
        "fastest",
        "multiply-adds",
        memory,
    )
    print(align([header, *map(table_row, measured)], numbers=range(9)))
    print(verdict(measured))
    if args.layers:
        print(layer_table([case for case in cases if case.source == "octvideo"], args.rounds))
    if args.json:
        rows = json.dumps([m.plain() for m in measured], indent=1, allow_nan=False) + "\n"
        write_atomically(str(args.json), lambda file: file.write(rows.encode()))
