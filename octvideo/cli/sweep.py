"""Train and test every combination of some settings, over several seeds, and write one table.

    octvideo sweep --cfg kinetics400/i3d OCTCONV.ALPHA=0,.1,.2 RNG_SEED=1,2,3 --out runs/alphas
    octvideo sweep --cfg mine.yaml OCTCONV.ALPHA=0,.1 SOLVER.BASE_LR=.01,.02 --out runs/rates --jobs 2
    octvideo sweep --cfg mine.yaml --rows networks.yaml --paired DATA.PATH_TO_DATA_DIR DATA.PATH_TO_DATA_DIR=fold1,fold2 --out runs/folds

A setting with several values, separated by commas, is varied; one with a single value holds for all
runs. --rows: networks that differ in more than one setting, as lines of a YAML file:

    I3D: []
    Oct-I3D .1, pooled: [OCTCONV.ALPHA=0.1, OCTCONV.DOWNSAMPLE=pool]

Every other network or combination is compared with the first one, by differences within a seed; the
values of a --paired setting, such as the folders of a cross-validation, repeat a run as seeds do.
In the table, +- is the standard deviation over all runs of a line. In brackets after the mean
difference stands Student's 95 % interval: over the seeds, or over the folds (values of the --paired
settings), of which each counts once, whatever its number of clips, with the mean over its seeds;
equal differences have none. Below the table stands which tests could not read all their videos.
The same command continues an interrupted sweep, and adds seeds or values to a finished one. A run
that was made with other settings, lists or start weights than the command now gives it is refused,
and so are results of another test than its own.
Written to --out: table.md, table.csv, table.tex, tradeoff.png, and runs/ with a folder per run, as
`octvideo train` writes it.
"""

import argparse
from pathlib import Path

from octvideo.config import add_config_arguments
from octvideo.errors import ConfigError
from octvideo.files import make_output_folder
from octvideo.study import Sweep, measure_times, read_rows, run_sweep, write_tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--rows", default="", metavar="FILE", help="networks and their settings")
    parser.add_argument(
        "--paired", action="append", default=[], metavar="KEY", help="a setting that repeats a run"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument(
        "--no-checkpoints", action="store_true", help="delete a run's checkpoints after its test"
    )
    parser.add_argument("--no-times", action="store_true", help="do not measure ms per view")


def run(args: argparse.Namespace) -> None:
    if args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: give 1 or more")
    sweep = Sweep.of(args.cfg, args.settings, read_rows(args.rows), args.paired)
    make_output_folder(str(args.out))
    counts = f"{len(sweep.variants)} networks x {len(sweep.repetitions)} repeats"
    print(f"{counts}, in {args.out}", flush=True)
    try:
        run_sweep(
            sweep,
            args.out,
            jobs=args.jobs,
            keep=not args.no_checkpoints,
            report=lambda line: print(line, flush=True),
        )
        if not args.no_times:
            measure_times(sweep, args.out)
    finally:
        if text := write_tables(sweep, args.out):
            print(f"\n{text}\n\nwritten: {args.out}, table.md, table.csv, table.tex, tradeoff.png")
