"""What dividing a vanilla video network costs: the error of an octave network's features on clips
of real videos.

    python benchmarks/divide_video.py vanilla.pyth VIDEO ... [--alpha 0.1 0.25 0.5] [--size 112] [--frames 8]
        [--probe TRAIN.csv TEST.csv]

vanilla.pyth: a checkpoint of a C2D, I3D, Slow or SlowFast network at alpha 0. Every other clip
sorts the channels, the rest measures. Prints a row per alpha and way: the relative error after each
stage, before any training. With --probe also the top-1 of a linear classifier on the frozen
features: trained on the one list of labeled videos, tested on the other, by which its penalty is
chosen too.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.data import normalize, probe, read_frames
from octvideo.data.lists.video_list import read_list
from octvideo.engine.linear import Array, Labels, fit_linear
from octvideo.models.network import pooled_features
from octvideo.weights.image_weights import read_video_weights
from octvideo.weights.sort_channels import smoothest_last
from octvideo.weights.split_effect import STAGES, stage_errors
from octvideo.weights.start import fill_from


def middle_clip(path: Path, frames: int, size: int, mean: list[float], std: list[float]) -> Tensor:
    """float (1, 3, frames, size, size): frames spread over the video, its middle square resized."""
    places = torch.linspace(0, probe(path).num_frames - 1, frames).long().tolist()
    clip = torch.from_numpy(read_frames(path, places)).permute(0, 3, 1, 2)
    top, left = ((side - min(clip.shape[2:])) // 2 for side in clip.shape[2:])
    square = clip[..., top : clip.shape[2] - top, left : clip.shape[3] - left].float()
    small = F.interpolate(square, (size, size), mode="bilinear", antialias=True)
    return normalize(small.round().byte().transpose(0, 1)[None], mean, std)


@dataclass(frozen=True, slots=True)
class Labeled:
    """clips: float (N, 3, T, H, W); labels (N,)."""

    clips: Tensor
    labels: Labels


@torch.no_grad()
def mean_features(model: nn.Module, clips: Tensor) -> Array:
    """(N, D): what the classifier would see."""
    means = [pooled_features(model.eval(), batch) for batch in clips.split(8)]
    return torch.cat(means).numpy()


def probe_accuracy(model: nn.Module, train: Labeled, test: Labeled) -> float:
    """Top-1 on `test` in per cent of a linear classifier on the frozen features."""
    linear = fit_linear(
        *(mean_features(model, train.clips), train.labels),
        *(mean_features(model, test.clips), test.labels),
        num_classes=int(train.labels.max()) + 1,
    )
    return linear.val_accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--alpha", nargs="+", type=float, default=[0.1, 0.25, 0.5])
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--probe", nargs=2, metavar=("TRAIN.csv", "TEST.csv"))
    args = parser.parse_args()

    checkpoint = Checkpoint.read(args.checkpoint)
    weights, seen = read_video_weights(checkpoint), checkpoint.input

    def read(paths: list[Path]) -> Tensor:
        mean, std = list(seen.mean), list(seen.std)
        return torch.cat([middle_clip(p, args.frames, args.size, mean, std) for p in paths])

    def read_labeled(path: str) -> Labeled:
        listed = list(read_list(path))
        labels = np.array([video.labels[0] for video in listed])
        return Labeled(read([Path(video.path) for video in listed]), labels)

    sorting, measuring = read(args.videos[::2]), read(args.videos[1::2])
    columns = [*STAGES, *(["probe"] if args.probe else [])]
    probed = [read_labeled(path) for path in args.probe or ()]
    if probed:
        vanilla = create_model(**checkpoint.network)
        fill_from(weights, vanilla, checkpoint.path)
        print(f"Probe of the vanilla network: {probe_accuracy(vanilla, *probed):.1f} %\n")
    print(f"| alpha | low channels | way down | {' | '.join(columns)} |")
    print("|---" * (3 + len(columns)) + "|", flush=True)
    for alpha in args.alpha:
        for channels in ("the last", "smoothest"):
            for way in ("pool", "stride"):
                options = {**checkpoint.network, "alpha": alpha, "downsample": way}
                model = create_model(**options)
                state = weights.state
                if channels == "smoothest":
                    state = smoothest_last(state, model, sorting, weights.assumes)
                given = type(weights)(state, weights.assumes, weights.layout)
                fill_from(given, model, checkpoint.path)
                errors = stage_errors(state, model, measuring, weights.assumes)
                cells = [f"{error.error:.2f}" for error in errors]
                if probed:
                    cells.append(f"{probe_accuracy(model, *probed):.1f}")
                print(f"| {alpha:g} | {channels} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
