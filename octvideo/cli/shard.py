"""Write the videos of a list as shards: a few large tar files instead of many small ones.

    octvideo shard lists/train.csv --out shards/train --short-side 256
    octvideo shard lists/val.csv   --out s3://bucket/kinetics/val
    octvideo train --cfg ... DATA.LIST_FORMAT=shards DATA.PATH_TO_DATA_DIR=shards

The tar files have WebDataset's layout (000000000.mp4, 000000000.json with label, classes and path),
each with an index by which any video is read with one range of bytes. Videos stay in the order of
the list, so that training from the shards gives the curve of training from the files, to the bit.
Without --short-side the files are stored unchanged. All cores are used; after an interruption the
same command continues after the last complete shard. A video that cannot be read is listed in
bad.csv and counts as a bad file, as in a list.
"""

import argparse
from pathlib import Path

from octvideo.cli.list_options import (
    add_encoding_options,
    add_list_options,
    add_worker_options,
    encoding_of,
)
from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.shard import bytes_of, write_shards
from octvideo.data.video.index import index_path, read_index


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", metavar="LIST")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="local, or an address such as s3://..."
    )
    parser.add_argument("--size", default="1GB", help="of a shard: 500MB, 1GB (1GB)")
    add_encoding_options(parser, 0, "re-encode to this many pixels")
    add_list_options(parser)
    parser.add_argument("--name", default="", help="of the tar files; by default the list's")
    add_worker_options(parser, 600.0)


def run(args: argparse.Namespace) -> None:
    max_bytes, encoding = bytes_of(args.size), encoding_of(args)
    videos = read_list(args.list, format=args.format, path_prefix=args.path_prefix)
    index = index_path(args.list)
    result = write_shards(
        videos,
        args.out.rstrip("/"),
        name=args.name or Path(args.list).stem,
        max_bytes=max_bytes,
        encoding=encoding,
        index=read_index(index) if index.is_file() else None,
        num_workers=args.workers,
        timeout_seconds=args.timeout,
    )
    shards = result.shards.shards
    total = sum(shard.num_bytes for shard in shards)
    print(
        f"{len(videos) - len(result.bad)} videos in {len(shards)} shards ({total / 1e9:.2f} GB) in"
        f" {args.out}, {result.kept} of them from before; {len(result.bad)} cannot be read"
    )
    for path, cause in result.bad.items():
        print(f"  {path}: {cause}")
