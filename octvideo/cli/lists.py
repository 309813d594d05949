"""Write train.csv, val.csv, test.csv, class_names.txt and report.txt for a data set.

    octvideo lists kinetics VIDEOS --csv train.csv validate.csv test.csv --out lists/kinetics400
    octvideo lists folders  VIDEOS --shares .8 .1 .1 --seed 0 --out lists/mine    (VIDEOS/<class>/<video>)
    octvideo lists ucf101   VIDEOS --splits ucfTrainTestlist --fold 1 --out lists/ucf101
    octvideo lists hmdb51   VIDEOS --splits testTrainMulti_7030_splits --fold 1 --out lists/hmdb51

The report counts the videos that were found, missing, duplicated, or in both train and test, and
the clips of each class. An earlier list whose split has no video now is renamed to NAME.csv.old.
Formats: data_lists/README.md.
"""

import argparse
from itertools import product
from pathlib import Path

from octvideo.data.lists.class_names import read_class_names
from octvideo.data.prepare.kinetics import kinetics_lists, read_annotations
from octvideo.data.prepare.make_lists import SPLITS, DatasetLists, write_lists
from octvideo.data.prepare.splits import folder_lists, hmdb51_lists, ucf101_lists
from octvideo.files import require_another_file, shipped_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("kinetics", "folders", "ucf101", "hmdb51"):
        sub = kinds.add_parser(kind)
        sub.add_argument("videos", type=Path, metavar="VIDEOS")
        sub.add_argument("--out", type=Path, required=True, metavar="FOLDER")
        sub.add_argument(
            "--relative-to",
            type=Path,
            metavar="FOLDER",
            help="a prefix to remove from the paths (DATA.PATH_PREFIX)",
        )
        if kind == "kinetics":
            sub.add_argument(
                "--csv", type=Path, nargs="+", required=True, help="official annotation files"
            )
            sub.add_argument(
                "--replacements", type=Path, help="a folder whose files replace broken ones"
            )
            sub.add_argument(
                "--class-names",
                type=Path,
                help="in label order; by default alphabetical, as Kinetics",
            )
        elif kind == "folders":
            sub.add_argument(
                "--shares",
                type=float,
                nargs=3,
                default=(0.8, 0.1, 0.1),
                metavar=("TRAIN", "VAL", "TEST"),
            )
            sub.add_argument("--seed", type=int, default=0)
        else:
            sub.add_argument(
                "--splits", type=Path, required=True, help="the folder of official split files"
            )
            sub.add_argument("--fold", type=int, default=1, choices=(1, 2, 3))
            sub.add_argument(
                "--val-share",
                type=float,
                default=0.0,
                help="share of train to hold out; 0: val is a copy of test",
            )


def make(args: argparse.Namespace) -> DatasetLists:
    if args.kind == "kinetics":
        for split, path in product(SPLITS, args.csv):
            require_another_file(args.out / f"{split}.csv", path)
        annotations = [annotation for path in args.csv for annotation in read_annotations(path)]
        names = read_class_names(args.class_names) if args.class_names else None
        known = {
            path.stem: read_class_names(path)
            for path in sorted(shipped_folder("data_lists").glob("*_classes.txt"))
        }
        return kinetics_lists(
            annotations, args.videos, replacements=args.replacements, class_names=names, known=known
        )
    if args.kind == "folders":
        return folder_lists(args.videos, shares=args.shares, seed=args.seed)
    of_splits = ucf101_lists if args.kind == "ucf101" else hmdb51_lists
    return of_splits(args.videos, args.splits, fold=args.fold, val_share=args.val_share)


def run(args: argparse.Namespace) -> None:
    lists = make(args)
    written = write_lists(lists, args.out, relative_to=args.relative_to)
    print(lists.report())
    print(f"wrote {', '.join(map(str, written))}; everything is named in {args.out / 'report.txt'}")
