"""Settings on a command line, between the other arguments of a command."""

import argparse
import itertools
import re
from collections.abc import Collection, Iterator, Sequence

from octvideo.config.defaults import DEFAULTS
from octvideo.config.pyslowfast import LAUNCHER, OTHER_TASKS
from octvideo.errors import ConfigError
from octvideo.files import is_there

COMMAND_LINE = "command line"


def add_config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """--cfg FILE, and settings wherever they stand; read with `parse_with_settings`."""
    parser.add_argument(
        "--cfg",
        required=required,
        default="",
        metavar="FILE",
        help="a config file, or the name of one that is installed, as kinetics400/oct_i3d; "
        "KEY=VALUE or KEY VALUE changes a setting of it",
    )
    parser.add_argument("--opts", action="store_true", help="may stand before settings")
    parser.set_defaults(settings=[])


def parse_with_settings(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> argparse.Namespace:
    """The arguments; `args.settings` are the words of all settings, in their order. Where a
    sub-command takes none, no word is one: the folders of a sweep are named like settings. Raises
    ConfigError for a word that may be either."""
    named = _sub_command(parser, words) or parser
    if named.get_default("settings") is None:
        return parser.parse_args(words)
    with_value = {
        option
        for action in named._actions
        if action.nargs is None
        for option in action.option_strings
    }
    rest, settings = split_settings(words, with_value, takes_paths=_takes_paths(named, words))
    args = parser.parse_args(rest)
    args.settings = settings
    return args


def _sub_command(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> argparse.ArgumentParser | None:
    kinds: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            kinds |= action.choices
    return next((kinds[word] for word in words if word in kinds), None)


def _takes_paths(parser: argparse.ArgumentParser, words: Sequence[str]) -> bool:
    """Whether some word may be a path; a FOLDER stands in the place of --cfg."""
    has_cfg = any(word.partition("=")[0] == "--cfg" for word in words)
    return any(
        not action.option_strings
        and not isinstance(action, argparse._SubParsersAction)
        and not (has_cfg and action.nargs == "?")
        for action in parser._actions
    )


def split_settings(
    words: Sequence[str], options_with_value: Collection[str] = (), *, takes_paths: bool = False
) -> tuple[list[str], list[str]]:
    """["in.pth", "OCTCONV.ALPHA", ".1", "--fast", "A.B=1"] -> ["in.pth", "--fast"],
    ["OCTCONV.ALPHA", ".1", "A.B=1"].

    KEY=VALUE is a setting whatever KEY is, so that a misspelled one is named, unless it is a file
    or folder and KEY no name; KEY VALUE is where KEY is, or begins with, a name that settings have.
    The value of an option is no setting. takes_paths: raise ConfigError for a setting that is a
    file or folder, too, or in a folder that is there.
    """
    rest: list[str] = []
    settings: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word in options_with_value:
            rest += [word, *itertools.islice(remaining, 1)]
            continue
        is_assignment = _is_assignment(word)
        if not is_assignment and not _is_key(word):
            rest.append(word)
            continue
        if takes_paths and _is_path(word):
            setting = word.replace("=", " ", 1) if is_assignment else f"{word}=VALUE"
            raise ConfigError(
                f"{COMMAND_LINE}: {word} may be a setting or a path; write ./{word} for"
                f" the path, {setting} for the setting"
            )
        settings += [word] if is_assignment else [word, next(remaining, "")]
    return rest, settings


def _is_assignment(word: str) -> bool:
    key = re.match(r"[A-Za-z0-9_.]+(?==)", word)
    return key is not None and (_is_key(key[0]) or not _is_path(word))


def _is_path(word: str) -> bool:
    """Whether it is there, or could be written in a folder that is."""
    first, slash, _ = word.partition("/")
    return is_there(word) or (bool(slash) and is_there(first))


def _is_key(word: str) -> bool:
    section, dot, _ = word.partition(".")
    tree = DEFAULTS.get(section)
    if tree is None:
        return word in LAUNCHER or (bool(dot) and section in OTHER_TASKS)
    return bool(dot) == isinstance(tree, dict) and word.isupper()


def setting_pairs(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """["A.B", "1", "C=2"] -> ("A.B", "1"), ("C", "2")."""
    rest = iter(tokens)
    for token in rest:
        key, equals, value = token.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_.]+", key):
            raise ConfigError(
                f"{COMMAND_LINE}: {token!r} is not a setting; write KEY VALUE or KEY=VALUE"
            )
        if not equals:
            value = next(rest, "")
            if not value:
                raise no_value(key)
        yield key, value


def no_value(key: str) -> ConfigError:
    return ConfigError(f"{COMMAND_LINE}: {key} has no value; write {key} VALUE or {key}=VALUE")
