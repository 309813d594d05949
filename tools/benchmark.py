"""Does the octave pay on this machine? Times beside multiply-adds, measured in turns.

    python tools/benchmark.py --model i3d_r50 --alpha 0 .1 .2 .5
    python tools/benchmark.py --model i3d_r50 --alpha 0 .5 --engine openvino --threads 1 --rounds 15
    python tools/benchmark.py --model i3d_r50 --alpha 0 .1 .2 .5 --train --input 8 112 112 --batch 2 --memory-saving

    python tools/benchmark.py --model i3d_r50 --alpha 0 .1 --engine openvino --layers
    python tools/benchmark.py --model i3d_r50 --alpha 0 --against pytorchvideo

The first alpha is what the others are held to. GPU timing is not in this tool: it measures the CPU.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from octvideo.complexity import align
from octvideo.deploy.benchmark import ENGINES, Case, compare, compare_layers, verdict
from octvideo.errors import exit_on_user_error
from octvideo.layers import WIDTH_RULES
from octvideo.models.registry import MODELS


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="i3d_r50")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.5])
    parser.add_argument("--input", type=int, nargs="+", metavar="N", help="T H W, or H W; by default the model's own")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--train", action="store_true", help="forward and backward instead of inference")
    parser.add_argument("--memory-saving", action="store_true", help="that form of the octave, with --train")
    parser.add_argument("--width-rule", choices=WIDTH_RULES, help="how widths are split; by default the network's own")
    parser.add_argument("--engine", default="eager", choices=ENGINES)
    parser.add_argument("--bf16", action="store_true", help="under autocast, with engine eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", action="store_true", help="also a table of every layer's time")
    parser.add_argument("--against", choices=["pytorchvideo"], help="also its network of this name, eager")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def layer_table(cases: list[Case], rounds: int) -> str:
    """Milliseconds of each layer for each alpha, and of all together."""
    times = compare_layers(cases, rounds)
    times["all"] = [sum(column) for column in zip(*times.values(), strict=True)]
    rows = [(name, *(f"{1e3 * t:.2f}" for t in row)) for name, row in times.items()]
    return align([("layer, ms", *(case.label for case in cases)), *rows], numbers=range(1, 1 + len(cases)))


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    shape = (3, *args.input) if args.input else MODELS[args.model].input_shape
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
        )
        for alpha in args.alpha
    ]
    if args.against:
        cases.append(Case(args.model, 0.0, shape, args.batch, args.train, source=args.against, bf16=args.bf16))
    measured = compare(cases, args.rounds)
    header = ("alpha", "ms", "ratio", "fastest", "multiply-adds", "saved MB" if args.train else "")
    saved = [f"{case.saved_megabytes():.0f}" if args.train else "" for case in cases]
    rows = [
        (
            m.case.label,
            f"{1e3 * m.seconds:.0f}",
            f"{m.ratio:.3f}",
            f"{m.best_ratio:.3f}",
            f"{m.macs_ratio:.3f}",
            s,
        )
        for m, s in zip(measured, saved, strict=True)
    ]
    print(align([header, *rows], numbers=range(6)))
    print(verdict(measured))
    if args.layers:
        print(layer_table([case for case in cases if case.source == "octvideo"], args.rounds))
    if args.json:
        args.json.write_text(json.dumps([asdict(m) for m in measured], indent=1) + "\n")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
