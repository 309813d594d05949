"""A training step in bf16 on a CPU: which form of the octave is fast, beside the vanilla network.

    python benchmarks/train_bf16.py [--alpha 0.1 0.5] [--input 8 112 112] [--batch 2] [--rounds 15]
    python benchmarks/train_bf16.py --profile      where a step of the vanilla network goes

One thread, forward and backward passes under autocast, all forms in turns. torch.compile takes a
block at a time, which needs minutes at the first run. Prints a markdown table: milliseconds, their
spread, and median ratios with 95 % intervals, to the eager vanilla network and to the vanilla
network in the same form.
"""

import argparse
import sys
import time
from dataclasses import replace
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from octvideo.deploy.benchmark import Case
from octvideo.deploy.timing import interleaved, interval_of_median, spread
from octvideo.models.registry import input_shape_of

FORMS = {
    "eager": {},
    "memory-saving": {"memory_saving": True},
    "compiled": {"compiled": "blocks"},
    "memory-saving, compiled": {"memory_saving": True, "compiled": "blocks"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="i3d_r50")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.1, 0.5])
    parser.add_argument("--input", type=int, nargs=3, default=[8, 112, 112], metavar="N")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="vanilla alone, eager and compiled")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = (input_shape_of(args.model)[0], *args.input)
    vanilla = Case(args.model, 0.0, shape, args.batch, train=True, bf16=True)
    if args.profile:
        for case in (vanilla, replace(vanilla, compiled="blocks")):
            print(f"compiled: {case.compiled or 'nothing'}\n{profile_of(case)}")
        return
    cases = {
        (alpha, form): replace(vanilla, alpha=alpha, **options)  # type: ignore[arg-type]
        for alpha in (0.0, *args.alpha)
        for form, options in FORMS.items()
        if alpha or "memory_saving" not in options
    }
    calls = {}
    for (alpha, form), case in cases.items():
        calls[alpha, form] = case.make()
        started = time.perf_counter()
        calls[alpha, form]()
        seconds = time.perf_counter() - started
        print(f"alpha {alpha:g}, {form}: {seconds:.0f} s for the first step", file=sys.stderr)
    print(table(interleaved(calls, args.rounds)))


def profile_of(case: Case) -> str:
    """The operators of one step that take the most time by themselves."""
    call = case.make()
    call(), call()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    return profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=20)


def table(times: dict[tuple[float, str], list[float]]) -> str:
    rows = [
        "| alpha | form | ms | spread | of eager vanilla | of vanilla in this form |",
        "|---" * 6 + "|",
    ]
    for (alpha, form), seconds in times.items():
        same = "compiled" if "compiled" in form else "eager"
        ratios = (ratio(seconds, times[0.0, other]) for other in ("eager", same))
        cells = (
            f"{alpha:g}",
            form,
            f"{1e3 * median(seconds):.0f}",
            f"{spread(seconds):.0%}",
            *ratios,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def ratio(seconds: list[float], others: list[float]) -> str:
    ratios = [mine / other for mine, other in zip(seconds, others, strict=True)]
    low, high = interval_of_median(ratios)
    return f"{median(ratios):.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
