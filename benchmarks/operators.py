"""Where the time of a network goes, by kind of operation: convolutions, and what the octave adds to
them.

    python benchmarks/operators.py --alpha 0 .5 [--engine eager|torch|openvino] [--rounds 5]
    python benchmarks/operators.py --alpha 0 .5 --train [--memory-saving] --input 8 112 112 --batch 2

Milliseconds per call and how often the operation runs, the largest first; of rounds in turns the
fastest one.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from octvideo.complexity import align
from octvideo.deploy.benchmark import Case
from octvideo.deploy.engines import openvino_times
from octvideo.errors import exit_on_user_error
from octvideo.models.registry import input_shape_of

ENGINES = ("eager", "torch", "openvino")
Operations = dict[str, tuple[float, int]]  # seconds and calls


def profiled(case: Case) -> Callable[[], Operations]:
    """Run it again and see what each operation took."""
    case.check()
    if case.engine == "openvino":
        times = openvino_times(case.create(), case.example())
        return lambda: (times(), of_openvino(times.request.profiling_info))[1]
    call = case.make()
    call()

    def run() -> Operations:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            call()
        return {
            event.key: (event.self_cpu_time_total / 1e6, event.count)
            for event in found.key_averages()
        }

    return run


def of_openvino(nodes: list) -> Operations:
    """By the kind of node; what was fused into another has run in no time."""
    seconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for node in nodes:
        if taken := node.real_time.total_seconds():
            seconds[node.node_type] += taken
            calls[node.node_type] += 1
    return {kind: (seconds[kind], calls[kind]) for kind in seconds}


def total(operations: Operations) -> float:
    return sum(seconds for seconds, _ in operations.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="i3d_r50")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--width-rule", help="how widths are split; by default the network's own")
    parser.add_argument(
        "--input",
        type=int,
        nargs="+",
        metavar="N",
        help="T H W, or H W; by default the model's own",
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--memory-saving", action="store_true")
    parser.add_argument("--engine", default="eager", choices=ENGINES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--top", type=int, default=16, metavar="N", help="operations to print")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = (3, *args.input) if args.input else input_shape_of(args.model)
    common = {"train": args.train, "engine": args.engine, "width_rule": args.width_rule}
    cases = [
        Case(
            args.model,
            alpha,
            shape,
            args.batch,
            memory_saving=args.memory_saving and alpha > 0,
            **common,
        )
        for alpha in dict.fromkeys(args.alpha)
    ]
    runs = [profiled(case) for case in cases]
    rounds = (in_turn(runs) for _ in range(args.rounds))
    fastest = [min(column, key=total) for column in zip(*rounds, strict=True)]
    names = {name for operations in fastest for name in operations}
    ordered = sorted(
        names, key=lambda name: -max(operations.get(name, (0, 0))[0] for operations in fastest)
    )
    rows = [(name[:60], *cells(name, fastest)) for name in ordered[: args.top]]
    rows.append(("all", *(f"{1e3 * total(operations):.1f}" for operations in fastest)))
    print(
        align(
            [("ms (calls)", *(f"alpha {case.alpha:g}" for case in cases)), *rows],
            numbers=range(1, 1 + len(runs)),
        )
    )


def in_turn(runs: Sequence[Callable[[], Operations]]) -> list[Operations]:
    return [run() for run in runs]


def cells(name: str, networks: Sequence[Operations]) -> list[str]:
    return [cell(operations.get(name)) for operations in networks]


def cell(found: tuple[float, int] | None) -> str:
    return f"{1e3 * found[0]:.1f} ({found[1]})" if found else ""


if __name__ == "__main__":
    with exit_on_user_error():
        main()
