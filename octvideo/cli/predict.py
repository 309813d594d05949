"""Name what happens in videos.

octvideo predict --checkpoint runs/demo/oct_i3d/checkpoints/best.pyth --video clip.mp4
octvideo predict --model i3d_r50_k400 --video clip.mp4                                  a public network
octvideo predict --checkpoint best.pyth --video clip.mp4 --output named.mp4     classes drawn over time
octvideo predict --checkpoint best.pyth --video folder --output scores.csv      a line per video
octvideo predict --checkpoint best.pyth --video folder --features features.npz
octvideo predict --checkpoint best.pyth --video clip.mp4 --json                 for programs
"""

import argparse
import json
import sys
from pathlib import Path

import octvideo
from octvideo.cli.features import add_network_argument, check_npz, save
from octvideo.errors import ConfigError
from octvideo.predict import name_videos, videos_of, write_named_video, write_scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    parser.add_argument(
        "--video", required=True, help="a video, its http(s) address, or a folder of videos"
    )
    parser.add_argument(
        "--output", type=Path, help="an .mp4 of one video with its classes, or a .csv of scores"
    )
    parser.add_argument(
        "--features", type=Path, metavar="NPZ", help="also save the pooled features"
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
    draws = args.output is not None and args.output.suffix.lower() == ".mp4"
    if args.output and not draws and args.output.suffix.lower() != ".csv":
        raise ConfigError(
            f"--output {args.output}: write an .mp4 of one video, or a .csv of scores"
        )
    if args.features:
        check_npz(args.features, "--features")
    if draws and Path(args.video).is_dir():
        raise ConfigError(
            f"--output {args.output}: an .mp4 is made of one video; for a folder write a .csv"
        )

    recognizer, videos = octvideo.load(args.checkpoint), videos_of(args.video)
    if args.optimize:
        recognizer.optimize()
    if draws:
        windows = {"window_seconds": args.window_seconds, "stride_seconds": args.stride_seconds}
        write_named_video(recognizer, videos[0], args.output, top_k=args.top_k, **windows)
    else:
        named = []
        for video in name_videos(recognizer, videos, views=args.views, top_k=args.top_k):
            print(json.dumps(video.as_dict()) if args.json else video.as_text(), flush=True)
            named.append(video)
        if args.output:
            write_scores(args.output, named)
    if args.features:
        save(args.features, recognizer, videos, args.views)
    for path in filter(None, (args.output, args.features)):
        print(f"written: {path}", file=sys.stderr)
