"""Train what a config describes, and test it on all views when TEST.ENABLE is set.

    octvideo train --cfg configs/demo/oct_i3d.yaml
    octvideo train --cfg configs/kinetics400/oct_i3d.yaml --dry-run
    octvideo train --cfg configs/kinetics400/i3d.yaml OCTCONV.ALPHA=0.2 TRAIN.BATCH_SIZE 32
    torchrun --nproc_per_node 8 -m octvideo train --cfg configs/kinetics400/oct_i3d.yaml

The same command continues a run that was interrupted. Settings: octvideo/config/defaults.py; files: configs/README.md.
"""

import argparse
import sys

from octvideo.assembly import dry_run, final_test, train
from octvideo.config import add_config_arguments, load_config
from octvideo.engine.distributed import processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="two steps of each kind on generated data"
    )


def run(args: argparse.Namespace) -> None:
    cfg = load_config(args.cfg, args.settings)

    with processes(silence_seconds=cfg.DATA_LOADER.TIMEOUT) as procs:
        if args.dry_run:
            dry_run(cfg, procs)
            return
        if cfg.TRAIN.ENABLE and (status := train(cfg, procs).exit_status):
            sys.exit(status)
        if cfg.TEST.ENABLE:
            final_test(cfg, procs)
