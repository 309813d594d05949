"""Save what the classifier sees of each video, pooled over time and space: (videos, channels) in an .npz.

octvideo features --checkpoint best.pyth --video folder --output features.npz
"""

import argparse
import sys
from pathlib import Path

import octvideo
from octvideo.errors import ConfigError
from octvideo.predict import save_features, videos_of
from octvideo.recognizer import Recognizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    parser.add_argument(
        "--video", required=True, help="a video, its http(s) address, or a folder of videos"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="NPZ")
    parser.add_argument("--views", default="1x1", help="clips x crops per video (1x1)")


def add_network_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        "--model",
        required=True,
        help="a file that training wrote, or a public network, as i3d_r50_k400 "
        "(`octvideo pretrained` lists them)",
    )


def run(args: argparse.Namespace) -> None:
    check_npz(args.output, "--output")
    recognizer, videos = octvideo.load(args.checkpoint), videos_of(args.video)
    save(args.output, recognizer, videos, args.views)
    print(f"written: {args.output}", file=sys.stderr)


def check_npz(path: Path, option: str) -> None:
    if path.suffix.lower() != ".npz":
        raise ConfigError(f"{option} {path}: features are written to an .npz")


def save(path: Path, recognizer: Recognizer, videos: list[Path], views: str) -> None:
    for line in save_features(path, recognizer, videos, views=views):
        print(f"left out: {line}", file=sys.stderr)
