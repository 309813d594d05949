"""Options that would change nothing are refused: whoever writes one believes that it does."""

import argparse
from collections.abc import Collection

from octvideo.errors import ConfigError


def given_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """The options, as "--top-k", whose values are not their defaults; not those of a parser's
    sub-commands."""
    return [
        action.option_strings[0]
        for action in parser._actions
        if action.option_strings and getattr(args, action.dest, action.default) != action.default
    ]


def refuse_unused(args: argparse.Namespace, options: Collection[str], reason: str) -> None:
    """Raise ConfigError if one of these options was given.

    args: with `given`, as `run_command` fills it. reason: where the options have an effect.
    """
    unused = [option for option in args.given if option in options]
    if unused:
        raise ConfigError(f"{', '.join(unused)}: without effect here; {reason}")
