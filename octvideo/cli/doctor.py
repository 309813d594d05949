"""Check the machine, the networks and a checkpoint before a run.

octvideo doctor env                                    versions, devices, missing parts, known problems
octvideo doctor models 'i3d*'                          networks with their parameters and GFLOPs
octvideo doctor weights '*k400'                        public networks that are fetched by name
octvideo doctor checkpoint best.pyth                   its network, classes, preprocessing, epoch
octvideo doctor checkpoint weights.pyth --cfg my.yaml  and how training would use it: load, inflate, split
"""

import argparse

import octvideo
from octvideo.assembly import build_model
from octvideo.assembly.weights import start_lines
from octvideo.config import load_config
from octvideo.doctor import checkpoint_lines, environment_lines
from octvideo.engine.log import setup_logging
from octvideo.weights.pretrained import table_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("env")
    for kind in ("weights", "models"):
        pattern = kinds.add_parser(kind)
        pattern.add_argument("pattern", nargs="?", default="*", help="of names; else all")
    checkpoint = kinds.add_parser("checkpoint")
    checkpoint.add_argument("file")
    checkpoint.add_argument("--cfg", help="a config; shows how its network would load the file")


def run(args: argparse.Namespace) -> None:
    if args.kind == "weights":
        print("\n".join(table_lines(args.pattern)))
        return
    if args.kind == "models":
        print(octvideo.list_models(args.pattern))
        return
    for line in environment_lines() if args.kind == "env" else checkpoint_lines(args.file):
        print(line)
    if args.kind == "checkpoint" and args.cfg:
        setup_logging()
        cfg = load_config(args.cfg)
        print("\n".join(start_lines(cfg, build_model(cfg), args.file)))
