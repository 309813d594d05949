"""Save the features before the classifier, pooled over time and space: (videos, channels) in an
.npz.

    octvideo features --checkpoint best.pyth folder --output features.npz
    octvideo features --checkpoint best.pyth folder --output features.parquet --window-seconds 2 --stride-seconds 1

With --window-seconds a row belongs to a window, with its frames and seconds; `paths` names the
video of each row. The same command continues a run that was stopped or killed, and tries videos
that could not be read again.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import octvideo
from octvideo.cli.unused import refuse_unused
from octvideo.engine.distributed import Processes
from octvideo.errors import ConfigError
from octvideo.predict import (
    FEATURES,
    How,
    OutputFiles,
    check_suffix,
    ranks,
    save_window_features,
    videos_of,
)
from octvideo.predict import run as run_videos
from octvideo.recognizer import Recognizer
from octvideo.recognizer.load import is_exported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network_argument(parser)
    add_run_arguments(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="NPZ", help="an .npz or a .parquet"
    )
    parser.add_argument("--views", default="1x1", help="clips x crops per video (1x1)")
    parser.add_argument("--window-seconds", type=float, help="features over time instead of views")
    parser.add_argument("--stride-seconds", type=float, help="by default --window-seconds")


def add_network_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        "--model",
        required=True,
        help="a file that training wrote, or a public network, as i3d_r50_k400 "
        "(`octvideo pretrained` lists them)",
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "videos",
        nargs="?",
        help="a video, its http(s) address, a folder of videos, or a list (.txt)",
    )
    parser.add_argument("--video", help="another way to give VIDEOS")
    parser.add_argument(
        "--workers", type=int, help="processes that decode; by default one per core"
    )
    parser.add_argument(
        "--batch", type=int, default=8, help="views per forward pass, of one or several videos"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start over instead of continuing the files"
    )


def videos_argument(args: argparse.Namespace) -> str:
    """The videos, from the positional argument or --video. Raises ConfigError unless one is given."""
    if (args.videos is None) == (args.video is None):
        raise ConfigError("name a video, a folder or a list once, as in `octvideo predict folder`")
    return args.videos or args.video


def load_for(procs: Processes, checkpoint: str) -> Recognizer:
    """Of one process of several; an exported network runs on the CPU, whatever the machine has."""
    return octvideo.load(checkpoint, device=None if is_exported(checkpoint) else procs.device)


def run(args: argparse.Namespace) -> None:
    path = videos_argument(args)
    check_suffix(args.output, FEATURES)
    if args.window_seconds is None and args.stride_seconds is not None:
        raise ConfigError("--stride-seconds is of windows; give --window-seconds too")
    if args.window_seconds is not None:
        reason = "windows of a video stream through one process"
        refuse_unused(args, ("--views", "--workers", "--batch"), reason)
    with ranks() as procs:
        recognizer, videos = load_for(procs, args.checkpoint), videos_of(path)
        if args.window_seconds is None:
            how = How(args.views, None, True, args.workers, args.batch)
            files = OutputFiles(None, args.output, not args.overwrite)
            found = run_videos(recognizer, videos, how, files, procs)
        else:
            seconds = args.window_seconds, args.stride_seconds
            found = save_window_features(
                recognizer, videos, args.output, *seconds, procs, resume=not args.overwrite
            )
        unread = 0
        for video in found:
            if video.problem:
                unread += 1
                print(f"left out: {video.path}: {video.problem}", file=sys.stderr)
        say_written(procs, [args.output], unread, len(videos))


def say_written(procs: Processes, files: Iterable[Path], unread: int, num_videos: int) -> None:
    """The last lines of a command, by rank 0. unread: videos that this process could not read."""
    total = sum(procs.gather(unread))
    again = "the same command tries them again"
    note = f" ({total} of {num_videos} videos could not be read; {again})" if total else ""
    for file in files if procs.is_main else ():
        print(f"written: {file}{note}", file=sys.stderr)
