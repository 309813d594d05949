"""Test a checkpoint on all views of every video of a list.

    octvideo test --cfg configs/demo/oct_i3d.yaml                  the newest checkpoint of its run
    octvideo test --cfg ... TEST.CHECKPOINT_FILE_PATH weights.pyth TEST.NUM_ENSEMBLE_VIEWS 5
    octvideo test --checkpoint runs/demo/oct_i3d/checkpoints/best.pyth --list val.csv
    octvideo test --checkpoint runs/demo/oct_i3d/checkpoints/best.pyth --diagnose     does time matter?
    octvideo test --cfg configs/kinetics400/i3d.yaml --checkpoint i3d_r50_k400    a public network by its name
    torchrun --nproc_per_node 8 -m octvideo test --cfg ...

A checkpoint of this package or the name of a public network needs no --cfg. The same command
continues an interrupted test. Results go to OUTPUT_DIR: results.json, predictions.csv, scores.npz,
report.html. Without --cfg it is that of the checkpoint's training, else runs/test/<name of the file>.
"""

import argparse

from octvideo.assembly import final_test, ranks, settings_of
from octvideo.config import add_config_arguments, load_config
from octvideo.errors import ConfigError
from octvideo.weights.pretrained import read_and_hash


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "--checkpoint",
        default="",
        metavar="FILE",
        help="a file or a public network; by default TEST.CHECKPOINT_FILE_PATH",
    )
    parser.add_argument(
        "--list", default="", metavar="FILE", help="by default test.csv in DATA.PATH_TO_DATA_DIR"
    )
    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="also test shuffled, reversed and repeated frames (TEST.DIAGNOSE)",
    )


def run(args: argparse.Namespace) -> None:
    if not (args.cfg or args.checkpoint):
        raise ConfigError("nothing to test: give --cfg FILE or --checkpoint FILE")
    checkpoint = read_and_hash(args.checkpoint) if args.checkpoint else None
    settings = args.settings + ["TEST.DIAGNOSE=true"] * args.diagnose
    cfg = (
        load_config(args.cfg, settings)
        if args.cfg or checkpoint is None
        else settings_of(checkpoint, settings)
    )
    if args.diagnose and cfg.DATA.MULTI_LABEL:
        raise ConfigError(
            "--diagnose: compares top-1 of one class per video (DATA.MULTI_LABEL is true); leave it"
            " out"
        )

    with ranks(cfg) as procs:
        final_test(cfg, procs, checkpoint or "", args.list)
