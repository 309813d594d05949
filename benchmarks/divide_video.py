"""What dividing a vanilla video network costs: the error of an octave network's features on clips
of real videos.

    python benchmarks/divide_video.py vanilla.pyth VIDEO ... [--alpha 0.1 0.25] [--size 112] [--frames 8]

vanilla.pyth: a checkpoint of a C2D, I3D or Slow network at alpha 0. The first half of the clips
sorts the channels, the other half measures. Prints a row per alpha and way: the relative error
after each stage, before any training.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.data import normalize, probe, read_frames
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--alpha", nargs="+", type=float, default=[0.1, 0.25])
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--frames", type=int, default=8)
    args = parser.parse_args()

    checkpoint = Checkpoint.read(args.checkpoint)
    weights, seen = read_video_weights(checkpoint), checkpoint.input
    clips = [
        middle_clip(path, args.frames, args.size, list(seen.mean), list(seen.std))
        for path in args.videos
    ]
    sorting, measuring = torch.cat(clips[::2]), torch.cat(clips[1::2])
    print(f"| alpha | low channels | way down | {' | '.join(STAGES)} |")
    print("|---" * (3 + len(STAGES)) + "|")
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
                print(f"| {alpha:g} | {channels} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
