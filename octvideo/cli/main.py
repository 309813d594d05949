"""Find a command, parse its arguments and run it; a user's mistake ends in one line."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from octvideo.cli.unused import given_options
from octvideo.errors import did_you_mean, exit_on_user_error, to_a_screen

# Command -> its line in `octvideo --help`; octvideo/cli/<command>.py implements it.
COMMANDS = {
    "train": "train a network on a folder of videos or by a config, then test it",
    "test": "test a checkpoint on all views of every video of a list",
    "predict": "classify the actions in videos",
    "features": "save the pooled features of videos",
    "sweep": "train and test combinations of settings over seeds, one table",
    "serve": "classify the videos that clients send over HTTP",
    "export": "write a network as ONNX, OpenVINO or torch.export",
    "benchmark": "time octave networks beside vanilla ones on this machine",
    "complexity": "count parameters, multiply-adds and activations of a network",
    "lists": "write train.csv, val.csv and test.csv for a data set",
    "check": "decode every file of a list once and index it",
    "fetch": "download Kinetics into shards that are ready to train from",
    "shard": "write a list's videos into tar files that are read by ranges",
    "resize": "re-encode videos so that training reads them fast",
    "demo-data": "write a small synthetic data set",
    "visualize": "draw spectra, class activation maps, training clips, trade-offs",
    "convert": "read image weights of other projects",
    "inflate": "turn image weights into the weights of a video network",
    "pretrained": "list the public networks that are fetched by name",
    "doctor": "show versions, devices, networks and the contents of a checkpoint",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """`octvideo COMMAND ...`; arguments: by default sys.argv[1:]."""
    with exit_on_user_error():
        _main(arguments)


def _main(arguments: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
    elif words[0] == "--version":
        print(f"octvideo {import_module('octvideo').__version__}")
    elif words[0] in COMMANDS:
        run_command(words[0], words[1:], prog=f"octvideo {words[0]}")
    else:
        advice = did_you_mean(words[0], COMMANDS, "`octvideo --help` lists them all")
        print(f"error: there is no command {words[0]!r}; {advice}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    rows = [f"  {name:<12}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: octvideo COMMAND ...",
            "",
            *rows,
            "",
            "`octvideo COMMAND --help` shows the arguments of a command, with examples.",
        ]
    )


class _Parser(argparse.ArgumentParser):
    """Of a command, and of its sub-commands. An option has to be spelled out: after an abbreviated
    one the value would be taken for a setting where it looks like one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """The usage and one line, exit status 2. argparse puts words into some messages as they
        are."""
        super().error(to_a_screen(message))


def run_command(name: str, arguments: Sequence[str] | None = None, prog: str = "") -> None:
    """Run one command, as the scripts of tools/ do. prog: its name, by default the script's."""
    with exit_on_user_error():
        command = import_module(f"octvideo.cli.{name.replace('-', '_')}")
        parser = _Parser(
            prog=prog or f"python {os.path.relpath(sys.argv[0])}",
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(parser)
        words = list(sys.argv[1:] if arguments is None else arguments)
        if parser.get_default("settings") is None:
            args = parser.parse_args(words)
        else:  # Settings, KEY VALUE, may stand anywhere among the other arguments.
            from octvideo.config import parse_with_settings

            args = parse_with_settings(parser, words)
        args.given = given_options(parser, args)
        command.run(args)
