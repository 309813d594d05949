"""Does the cost grow with the work? Time against frames, size and batch, beside the multiply-adds.

    python benchmarks/cost.py --model i3d_r50 --alpha .5 [--engine eager|torch|openvino|onnxruntime] [--rounds 5]

The last column is the time of a multiply-add relative to that of the whole table: 1 everywhere is a
linear cost.
"""

import argparse
from dataclasses import replace

import torch

from octvideo.complexity import align
from octvideo.deploy.benchmark import ENGINES, Case
from octvideo.deploy.timing import interleaved
from octvideo.errors import exit_on_user_error

SIZES = (  # frames, height and width, batch
    (8, 112, 1), (8, 112, 4), (8, 160, 1), (8, 224, 1), (8, 256, 1), (16, 224, 1), (32, 224, 1), (32, 256, 1),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="i3d_r50")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--engine", default="eager", choices=ENGINES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = Case(args.model, args.alpha, (3, 8, 112, 112), engine=args.engine)
    cases = [replace(base, input_shape=(3, t, size, size), batch=batch) for t, size, batch in SIZES]
    calls = {case: case.make() for case in cases}
    times = {case: min(t) for case, t in interleaved(calls, args.rounds).items()}
    work = {case: case.batch * case.macs() for case in cases}
    per_mac = sum(times.values()) / sum(work.values())
    rows = [
        (
            "{} x {} x {}, batch {}".format(*case.input_shape[1:], case.batch),
            f"{work[case] / 1e9:.1f}",
            f"{1e3 * seconds:.0f}",
            f"{seconds / work[case] / per_mac:.2f}",
        )
        for case, seconds in times.items()
    ]
    print(align([("input", "GMACs", "ms", "of linear"), *rows], numbers=range(1, 4)))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
