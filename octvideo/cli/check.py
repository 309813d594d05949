"""Decode every file of a list once; write lists of the good and the bad files, and an index for
training.

    octvideo check lists/kinetics400/train.csv

Writes train_checked/good.csv and bad.csv (path, reason) beside the list, and train.index.csv, which
training uses to decode without probing each file first. good.csv is read under the settings of its
list. All cores are used; a file that hangs or crashes a decoder is listed as bad, and the check
continues. After an interruption, or after lines were added to the list, the same command resumes.
Run it again after files were edited: training compares sizes alone, so that a data set may be
copied; this command also compares the times of change.
"""

import argparse
from pathlib import Path

from octvideo.cli.list_options import add_list_options, add_worker_options
from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.check import check_list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="LIST")
    add_list_options(parser)
    parser.add_argument(
        "--separator", help="DATA.PATH_LABEL_SEPARATOR; by default spaces, tabs or a comma"
    )
    parser.add_argument("--frame-template", default="", help="DATA.FRAME_TEMPLATE")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="of good.csv and bad.csv; by default LIST_checked",
    )
    add_worker_options(parser, 60.0)


def run(args: argparse.Namespace) -> None:
    videos = read_list(
        args.list,
        format=args.format,
        path_prefix=args.path_prefix,
        separator=args.separator,
        frame_template=args.frame_template,
    )
    result = check_list(
        videos,
        args.out,
        num_workers=args.workers,
        timeout_seconds=args.timeout,
        separator=args.separator,
    )

    print(f"{result.good} good: {result.good_list}")
    print(f"{result.bad} bad: {result.bad_list}")
    print(f"{result.damaged} of the good are damaged; column `problems` says how: {result.index}")
