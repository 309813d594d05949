"""Download Kinetics into shards that are ready to train from.

    octvideo fetch kinetics400 --split val train --out kinetics400 --shards
    octvideo train --cfg kinetics400/oct_i3d DATA.LIST_FORMAT=shards DATA.PATH_TO_DATA_DIR=kinetics400

The CVDF's archives are processed one after another while the next ones are downloaded: an archive
is unpacked as a stream, each video is checked, resized to short side 256 with a keyframe every 12
frames and written into shards, and the archive is deleted. The disk never holds more than a few
archives beside the result. Downloads are resumed; after any interruption the same command
continues, and it fetches again what was broken. report.txt of each split lists missing, broken and
replaced videos.
"""

import argparse
from pathlib import Path

from octvideo.cli.list_options import add_encoding_options, encoding_of
from octvideo.data.lists.class_names import read_class_names
from octvideo.data.prepare.fetch import CVDF, DATASETS, Fetch, Plan
from octvideo.data.prepare.parallel import processes_of
from octvideo.data.prepare.shard import bytes_of
from octvideo.data.shards.shard_set import ShardSet
from octvideo.files import shipped_folder

# Measured on generated 10 s videos of 340 x 256 and of 1280 x 720 on a busy 2-core Xeon, 2026-11-27
# (benchmarks/fetch_cost.py): CPU seconds to check one and encode it with the default options, and
# bytes of the result.
_SECONDS_PER_VIDEO = (1.4, 4.5)
_BYTES_PER_VIDEO = 0.9e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument(
        "--split", nargs="+", default=["val", "train"], choices=("train", "val", "test")
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--shards", action="store_true", required=True, help="the form of the result"
    )
    add_encoding_options(parser, 256, "pixels (256); 0: stored unchanged")
    parser.add_argument("--size", default="1GB", help="of a shard (1GB)")
    parser.add_argument("--archives", type=int, default=2, help="archives to download ahead (2)")
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    parser.add_argument("--mirror", default=CVDF, help=f"by default {CVDF}")
    parser.add_argument("--dry-run", action="store_true", help="only print the time and the size")


def run(args: argparse.Namespace) -> None:
    # A subset of the classes keeps the order of its data set, not of another one that has them too.
    lists = sorted(
        shipped_folder("data_lists").glob("*_classes.txt"),
        key=lambda path: (not path.stem.startswith(args.dataset), path),
    )
    fetch = Fetch(
        args.dataset,
        args.out,
        class_lists={p.stem: read_class_names(p) for p in lists},
        mirror=args.mirror,
        encoding=encoding_of(args),
        max_bytes=bytes_of(args.size),
        num_archives=args.archives,
        num_workers=args.workers,
        after_archive=lambda *state: print(progress(*state), flush=True),
    )
    plans = fetch.plan(args.split)
    for plan in plans:
        print(estimate(plan, processes_of(args.workers)), flush=True)
    if args.dry_run:
        return
    for report in fetch.run(plans):
        print(str(report).splitlines()[0])
    print(f"everything is named in report.txt of each split below {args.out}")


def estimate(plan: Plan, cores: int) -> str:
    """One line: the bytes, hours and disk space of a split."""
    videos = len(plan.annotations)
    low, high = (videos * seconds / 3600 for seconds in _SECONDS_PER_VIDEO)
    largest = plan.num_bytes / max(len(plan.archives), 1)
    return (
        f"{plan.split}: {videos} videos in {len(plan.archives)} archives,"
        f" {plan.num_bytes / 1e9:.1f} GB to download ({plan.num_bytes / 1e8 / 3600:.1f} h at 100"
        f" MB/s); about {videos * _BYTES_PER_VIDEO / 1e9:.0f} GB of shards, {low:.1f} to"
        f" {high:.1f} core hours to make them, from videos of 340 x 256 to 1280 x 720"
        f" ({low / cores:.1f} to {high / cores:.1f} h on {cores} cores); beside them the disk holds a few"
        f" archives of {largest / 1e9:.1f} GB. Assumed: {_BYTES_PER_VIDEO / 1e6:g} MB per video, the"
        " size of generated videos at --short-side 256 --crf 20; a line after each archive estimates"
        " from the videos so far"
    )


def progress(plan: Plan, shards: ShardSet, num_archives: int) -> str:
    """One line after an archive: what is stored, and the size of the split at this rate."""
    size = sum(shard.num_bytes for shard in shards.shards) / 1e9
    in_all = size * len(plan.annotations) / max(shards.num_videos, 1)
    return (
        f"{plan.split}: {num_archives} of {len(plan.archives)} archives, {shards.num_videos} videos"
        f" in {size:.2f} GB of shards; all {len(plan.annotations)} will take about {in_all:.2f} GB"
    )
