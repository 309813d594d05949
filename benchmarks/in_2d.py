"""Networks on a CPU in 3D, in 2D, and in 2D with PyTorch's own gradients of depthwise kernels.

    python benchmarks/in_2d.py ptv:i3d_r50 ptv:csn_r101 [--alpha 0 0.25] [--pixels 64 112] [--bf16]
    python benchmarks/in_2d.py x3d_xs --train --alpha 0 0.25 --pixels 64 112 182 --frames 8 --batch 4

One thread, kernels channels-last in every form, inference or a training step (forward and backward
pass), with --bf16 under autocast. The forms take turns. Prints a markdown table: the fastest of
--rounds in milliseconds, and how many times as long the other forms take as 2D.
"""

import argparse
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

from octvideo import create_model
from octvideo.deploy.timing import interleaved
from octvideo.layers import compute_in_2d
from octvideo.models.registry import input_shape_of

FORMS = ("3D", "2D, PyTorch's gradients", "2D")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.0])
    parser.add_argument("--pixels", type=int, nargs="+", default=[112])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    forms = FORMS if args.train else ("3D", "2D")
    print(
        f"| network | alpha | pixels | {' | '.join(forms)} | to 2D |\n{'|---' * (4 + len(forms))}|"
    )
    cases = [(n, a, p) for n in args.networks for a in args.alpha for p in args.pixels]
    for name, alpha, pixels in cases:
        channels, _, height, _ = input_shape_of(name)
        clips = torch.randn(args.batch, channels, args.frames, min(height, pixels), pixels)
        model = create_model(name, alpha=alpha, num_classes=10).train(args.train)
        calls = {form: partial(step, model, clips, form, args.train, args.bf16) for form in forms}
        ms = [1e3 * min(seconds) for seconds in interleaved(calls, args.rounds).values()]
        times = " | ".join(f"{m:.0f}" for m in ms)
        ratios = ", ".join(f"{m / ms[-1]:.2f}" for m in ms[:-1])
        print(f"| {name} | {alpha:g} | {pixels} | {times} | {ratios} |", flush=True)


def step(model: nn.Module, clips: Tensor, form: str, train: bool, bf16: bool) -> None:
    compute_in_2d(model, form != "3D")
    theirs = patch("octvideo.layers.conv3d_as_2d.has_fast_gradients", return_value=False)
    with (
        theirs if "PyTorch" in form else nullcontext(),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        torch.set_grad_enabled(train),
    ):
        loss = model(clips).float().square().mean()
    if train:
        model.zero_grad()
        loss.backward()


if __name__ == "__main__":
    main()
