"""Re-encode a folder of videos for fast training: small frames and dense keyframes.

    octvideo resize VIDEOS SMALL_VIDEOS --short-side 256

Writes H.264 mp4 files to the same places below SMALL_VIDEOS: short side 256 (smaller videos keep
their size), a keyframe every 12 frames, without audio; frame k is the original's frame k. All
cores are used. After an interruption the same command continues: a file gets its name when it is
complete. Other options, or other videos of the same names, need another folder. At the end, the
decoding times before and after are printed. Make the lists again from SMALL_VIDEOS (octvideo
lists).
"""

import argparse
from pathlib import Path

from octvideo.cli.list_options import add_encoding_options, add_worker_options
from octvideo.data.prepare.resize import measure_gain, resize_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="VIDEOS")
    parser.add_argument("target", type=Path, metavar="SMALL_VIDEOS")
    add_encoding_options(parser, 256, "pixels (256)")
    add_worker_options(parser, 600.0)


def run(args: argparse.Namespace) -> None:
    result = resize_folder(
        args.source,
        args.target,
        short_side=args.short_side,
        gop=args.gop,
        crf=args.crf,
        num_workers=args.workers,
        timeout_seconds=args.timeout,
    )

    print(
        f"{len(result.pairs)} videos in {args.target}, {result.kept} of them from before;"
        f" {len(result.failed)} failed"
    )
    for path, cause in result.failed.items():
        print(f"  {path}: {cause}")
    if result.pairs:
        print(measure_gain(result.pairs))
