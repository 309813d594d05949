"""Re-encode a folder of videos for fast training: small frames and dense keyframes.

    octvideo resize VIDEOS SMALL_VIDEOS --short-side 256

Writes H.264 mp4 files to the same places below SMALL_VIDEOS: short side 256 (smaller videos keep
their size), a keyframe every 12 frames, without audio; frame k is the original's frame k. All
cores are used. After an interruption the same command continues: a file gets its name when it is
complete. At the end, the decoding times before and after are printed. Make the lists again from
SMALL_VIDEOS (octvideo lists).
"""

import argparse
from pathlib import Path

from octvideo.data.prepare.resize import measure_gain, resize_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="VIDEOS")
    parser.add_argument("target", type=Path, metavar="SMALL_VIDEOS")
    parser.add_argument("--short-side", type=int, default=256, help="pixels (256)")
    parser.add_argument("--gop", type=int, default=12, help="frames from keyframe to keyframe (12)")
    parser.add_argument(
        "--crf", type=int, default=20, help="0 to 51, larger is smaller and worse (20)"
    )
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one file (600)")


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
