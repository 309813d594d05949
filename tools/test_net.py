"""Test a checkpoint on all views of every video of a list.

    python tools/test_net.py --cfg configs/demo/oct_i3d.yaml                  the newest checkpoint of its run
    python tools/test_net.py --cfg ... TEST.CHECKPOINT_FILE_PATH weights.pyth TEST.NUM_ENSEMBLE_VIEWS 5
    python tools/test_net.py --checkpoint runs/demo/oct_i3d/checkpoints/best.pyth --list val.csv
    torchrun --nproc_per_node 8 tools/test_net.py --cfg ...

A checkpoint of this package holds its settings, so that it needs no --cfg. The same command continues a test that was
interrupted. Results go to OUTPUT_DIR: results.json, predictions.csv, scores.npz, report.html.
"""

import argparse

from octvideo.assembly import final_test, settings_of
from octvideo.checkpoint import Checkpoint
from octvideo.config import add_config_arguments, load_config
from octvideo.engine.distributed import processes
from octvideo.errors import exit_on_user_error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_config_arguments(parser, required=False)
    parser.add_argument(
        "--checkpoint", default="", metavar="FILE", help="instead of TEST.CHECKPOINT_FILE_PATH"
    )
    parser.add_argument(
        "--list", default="", metavar="FILE", help="instead of test.csv in DATA.PATH_TO_DATA_DIR"
    )
    args = parser.parse_intermixed_args()
    if not (args.cfg or args.checkpoint):
        parser.error("give --cfg or --checkpoint")
    overrides = [*args.opts, *args.settings]
    checkpoint = Checkpoint.read(args.checkpoint) if args.checkpoint else ""
    cfg = load_config(args.cfg, overrides) if args.cfg else settings_of(checkpoint, overrides)

    with processes(silence_seconds=cfg.DATA_LOADER.TIMEOUT) as procs:
        final_test(cfg, procs, checkpoint, args.list)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
