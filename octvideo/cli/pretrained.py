"""List the public networks that `octvideo.load` and --model fetch by name.

octvideo pretrained
octvideo pretrained '*k400'
"""

import argparse

from octvideo.weights.pretrained import table_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help="of names; by default all")


def run(args: argparse.Namespace) -> None:
    print("\n".join(table_lines(args.pattern)))
