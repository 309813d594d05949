"""Train a network on a folder of videos or by a config, then test it on all views and write a
report.

    octvideo train my_videos                            my_videos/<class>/<video>: the rest is chosen and printed
    octvideo train my_videos --probe                    only the classifier, on features: minutes on a CPU
    octvideo train my_videos --model i3d_r50 --alpha .1 --size small --epochs 20 DATA.RANDOM_FLIP=false
    octvideo train my_videos --dry-run                  print the plan and the time it would take

    octvideo train --cfg configs/demo/oct_i3d.yaml
    octvideo train --cfg configs/kinetics400/oct_i3d.yaml --dry-run     two steps of each kind on generated data
    octvideo train --cfg configs/kinetics400/i3d.yaml OCTCONV.ALPHA=0.2 TRAIN.BATCH_SIZE 32
    torchrun --nproc_per_node 8 -m octvideo train --cfg configs/kinetics400/oct_i3d.yaml

The same command continues an interrupted run. Settings: octvideo/config/defaults.py; files:
configs/README.md.
"""

import argparse
import sys

from octvideo.assembly import dry_run, final_test, ranks, train
from octvideo.cli.unused import refuse_unused
from octvideo.config import add_config_arguments, load_config
from octvideo.errors import ConfigError

OF_FOLDER = (
    *("--model", "--alpha", "--size", "--weights", "--epochs", "--probe", "--views", "--out"),
    "--no-check",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="?",
        default="",
        metavar="FOLDER",
        help="class folders of videos, or a folder of train.csv, val.csv and class_names.txt",
    )
    add_config_arguments(parser, required=False)
    own = parser.add_argument_group("of a FOLDER")
    own.add_argument("--model", default="", help="a video network (octvideo doctor models)")
    own.add_argument(
        "--alpha", type=float, help="octave ratio: the share of channels at half resolution"
    )
    own.add_argument("--size", default="", help="of the input: small, medium (CPU) or large (GPU)")
    own.add_argument(
        "--weights",
        default="",
        help="auto (Kinetics, else image weights, else none), none, a file, or a public network",
    )
    own.add_argument("--epochs", type=int, help="1 or more; by default 30")
    own.add_argument("--probe", action="store_true", help="train only the classifier, on features")
    own.add_argument("--views", default="", help="clips x crops of the test: 10x3, of a probe 3x1")
    own.add_argument(
        "--out", default="", metavar="RUN", help="the run's folder; by default runs/FOLDER/..."
    )
    own.add_argument("--no-check", action="store_true", help="do not decode every file first")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and train nothing"
    )


def run(args: argparse.Namespace) -> None:
    if bool(args.data) == bool(args.cfg):
        got = "both" if args.data else "neither"
        raise ConfigError(
            f"give a FOLDER of videos or --cfg FILE (got {got}); with --cfg, DATA.PATH_TO_DATA_DIR"
            " names the lists"
        )
    if args.data:
        _train_on_folder(args)
        return
    reason = "it is of a FOLDER; with --cfg write settings, such as OCTCONV.ALPHA=0.1"
    refuse_unused(args, OF_FOLDER, reason)
    cfg = load_config(args.cfg, args.settings)

    with ranks(cfg) as procs:
        if args.dry_run:
            dry_run(cfg, procs)
            return
        if cfg.TRAIN.ENABLE and (status := train(cfg, procs).exit_status):
            sys.exit(status)
        if cfg.TEST.ENABLE:
            final_test(cfg, procs)


def _train_on_folder(args: argparse.Namespace) -> None:
    from octvideo.runs.fit import run_recipe
    from octvideo.runs.recipe import Recipe

    if args.epochs is not None and args.epochs < 1:
        raise ConfigError(f"--epochs {args.epochs}: give 1 or more (--dry-run trains nothing)")
    recipe = Recipe(
        args.data,
        model=args.model,
        alpha=args.alpha,
        size=args.size,
        weights=args.weights,
        epochs=args.epochs or 0,
        probe=args.probe,
        views=args.views,
        out=args.out,
        check=not args.no_check,
        overrides=tuple(args.settings),
    )
    if status := run_recipe(recipe, only_estimate=args.dry_run).exit_status:
        sys.exit(status)
