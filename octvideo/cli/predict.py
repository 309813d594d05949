"""Name what happens in videos.

octvideo predict --checkpoint best.pyth clip.mp4
octvideo predict --model i3d_r50_k400 clip.mp4                          a public network
octvideo predict --checkpoint best.pyth clip.mp4 --output named.mp4     classes drawn over time
octvideo predict --checkpoint best.pyth folder --output scores.csv      a row per video as it is done
octvideo predict --checkpoint best.pyth list.txt --output scores.jsonl --features features.npz
octvideo predict --checkpoint best.pyth clip.mp4 --json                 for programs

A run over a folder or a list that was stopped or killed continues with the same command; a video that cannot be read is
a row that says why.
"""

import argparse
import json
import sys
from pathlib import Path

import octvideo
from octvideo.cli.features import add_network_argument, add_run_arguments, videos_argument
from octvideo.errors import ConfigError
from octvideo.predict import (
    FEATURES,
    PREDICTIONS,
    How,
    OutputFiles,
    check_suffix,
    videos_of,
    write_named_video,
)
from octvideo.predict import run as run_videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    add_run_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="an .mp4 of one video with its classes, or rows: .csv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--features",
        type=Path,
        metavar="NPZ",
        help="also save the pooled features (.npz or .parquet), from the same passes",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per video on stdout")
    parser.add_argument(
        "--views", default="10x3", help="clips x crops per video; 1x1 is 30 times as fast as 10x3"
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="as TEST.OPTIMIZE: pays for many videos or a long one",
    )
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument(
        "--window-seconds", type=float, default=2.0, help="of the classes drawn over time"
    )
    parser.add_argument("--stride-seconds", type=float, default=1.0)


def run(args: argparse.Namespace) -> None:
    path = videos_argument(args)
    draws = args.output is not None and args.output.suffix.lower() == ".mp4"
    if draws and Path(path).is_dir():
        raise ConfigError(
            f"--output {args.output}: an .mp4 is made of one video; for a folder write a .csv"
        )
    if args.output and not draws and args.output.suffix.lower() not in PREDICTIONS:
        raise ConfigError(
            f"--output {args.output}: write an .mp4 of one video, or rows as {', '.join(PREDICTIONS)}"
        )
    if args.features:
        check_suffix(args.features, FEATURES)

    recognizer, videos = octvideo.load(args.checkpoint), videos_of(path)
    if args.optimize:
        recognizer.optimize()
    if draws:
        windows = {"window_seconds": args.window_seconds, "stride_seconds": args.stride_seconds}
        first = Path(videos[0].path)
        write_named_video(recognizer, first, args.output, top_k=args.top_k, **windows)
    if not draws or args.features:
        top_k = None if draws else args.top_k
        how = How(args.views, top_k, bool(args.features), args.workers, args.batch)
        files = OutputFiles(None if draws else args.output, args.features, not args.overwrite)
        for video in run_videos(recognizer, videos, how, files):
            if video.problem and args.features:
                print(f"left out: {video.path}: {video.problem}", file=sys.stderr)
            if not draws:
                print(json.dumps(video.as_dict()) if args.json else video.as_text(), flush=True)
    for written in filter(None, (args.output, args.features)):
        print(f"written: {written}", file=sys.stderr)
