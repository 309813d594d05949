"""Settings from a YAML file, its bases and the command line, checked before anything is built.

    cfg = load_config("configs/kinetics400/oct_i3d.yaml", ["OCTCONV.ALPHA=0.2"])

A file may name what it builds on (`_BASE_: other.yaml`, relative to itself). Files are read as
plain data: a YAML tag that would make a Python object is refused.
"""

import logging
import math
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from octvideo.config.arguments import (
    COMMAND_LINE,
    add_config_arguments,
    no_value,
    parse_with_settings,
    setting_pairs,
)
from octvideo.config.check import first_problem, without_effect
from octvideo.config.defaults import AUTO, CHOICES, DEFAULTS, ITEMS, Tree
from octvideo.config.pyslowfast import (
    ADVICE,
    ALIASES,
    LAUNCHER,
    LEAVE_OUT,
    NO_EFFECT,
    NORMALIZATION,
    ONLY,
    OTHER_TASKS,
    of_one_machine,
)
from octvideo.config.yaml_text import parse_settings, parse_value, python_value, read_settings
from octvideo.errors import ConfigError, did_you_mean, to_a_screen
from octvideo.files import is_local, shipped_folder

__all__ = [
    "add_config_arguments",
    "config_from_text",
    "leaves",
    "load_config",
    "parse_with_settings",
    "setting_pairs",
]

BASE = "_BASE_"
MAX_CHAIN = 20
ARGUMENTS = "arguments"

logger = logging.getLogger(__name__)


def load_config(path: str, overrides: Sequence[str] = (), **settings: Any) -> CfgNode:
    """The frozen settings of a file, changed by overrides (`KEY VALUE` and `KEY=VALUE`, mixed),
    then by `settings`.

    path: a file, or the name of an installed config: `load_config("kinetics400/i3d",
    OCTCONV={"ALPHA": 0.1})`. Raises ConfigError, one line that names the file, for an unknown key,
    a wrong type or a contradiction.
    """
    path = find_config(path)
    # configs/demo/c2d.yaml -> runs/demo/c2d: the run of one file is never resumed by another.
    folder, name = posixpath.split(posixpath.splitext(path)[0])
    if is_local(path) and posixpath.basename(folder) == "..":
        folder = posixpath.abspath(folder)
    output = posixpath.join("runs", posixpath.basename(folder), name)
    return _merge(_files(path, including=(), read=set()), path, overrides, settings, output)


def config_from_text(
    text: str, source: str, overrides: Sequence[str] = (), output: str = ""
) -> CfgNode:
    """The settings that a checkpoint holds (`cfg.dump()`); `source`: the file, for messages.
    output: for an OUTPUT_DIR that neither they nor the overrides name."""
    return _merge([(source, parse_settings(text, source))], source, overrides, output=output)


def _merge(
    files: Iterable[tuple[str, Tree]],
    source: str,
    overrides: Sequence[str],
    settings: Tree | None = None,
    output: str = "",
) -> CfgNode:
    """The files one over the other, then overrides and settings, checked. A contradiction within
    the files is blamed on `source`, one that its overrides cause on them. output: for an OUTPUT_DIR
    that is empty in the end."""
    cfg = CfgNode(DEFAULTS)
    # Setting of NORMALIZATION -> the file of PySlowFast's that set it last; None if another did.
    given: dict[str, str | None] = {}
    for path, tree in files:
        given |= _merge_tree(cfg, tree, path)
    of_file, said = cfg.clone(), [key for key, _ in leaves(settings or {})]
    words = {key: _of_text(key, text) for key, text in setting_pairs(overrides)}
    said += words
    given |= dict.fromkeys(_merge_tree(cfg, words, COMMAND_LINE))
    given |= _merge_tree(cfg, settings or {}, ARGUMENTS)
    theirs = {key: path for key, path in given.items() if path is not None}
    cfg.OUTPUT_DIR = cfg.OUTPUT_DIR or output
    problem = first_problem(cfg) or without_effect(cfg, words, DEFAULTS)
    if problem and problem != first_problem(of_file):
        changes = COMMAND_LINE if overrides else ARGUMENTS
        source = f"{changes}, over {source}"
    if problem:
        raise ConfigError(f"{source}: {problem}")
    if cfg.DATA.REVERSE_INPUT_CHANNEL != of_file.DATA.REVERSE_INPUT_CHANNEL:
        _warn_of_normalization(cfg, source, [*theirs, *said])
    _reverse_normalization(cfg, theirs)
    cfg.freeze()
    return cfg


def _of_text(key: str, text: str) -> Any:
    """The value of a setting on the command line, where only a text may be empty: `KEY=$A` with A
    unset is a mistake."""
    default = _default(key)
    if isinstance(default, str):
        return text
    if default is not None and not text.strip():
        raise no_value(key)
    return parse_value(text)


# --- Files


def _files(path: str, including: tuple[str, ...], read: set[str]) -> Iterator[tuple[str, Tree]]:
    """A file's bases, then the file, each with its settings. read: the files so far; a base of two
    counts once, first."""
    if path in including:
        raise ConfigError(f"{path}: {BASE} goes in a circle: {' -> '.join((*including, path))}")
    if len(including) > MAX_CHAIN:
        raise ConfigError(f"{path}: the chain of {BASE} is longer than {MAX_CHAIN}; merge some")
    if path in read:
        return
    read.add(path)
    tree = read_settings(path)
    bases = tree.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(
            f"{path}: {BASE} is {bases!r}; it takes the name of a file, or a list of names"
        )
    for base in bases:
        found = find_config(base, beside=posixpath.dirname(path))
        yield from _files(found, (*including, path), read)
    yield path, tree


def find_config(path: str, beside: str = "") -> str:
    """A path, if it exists; else the installed config of that name, with or without configs/ and
    .yaml.

    beside: the folder of relative paths. Raises ConfigError if neither exists.
    """
    here = posixpath.join(beside, path)
    if not is_local(here) or Path(here).exists():
        return here
    folder, name = shipped_folder("configs"), path.removeprefix("configs/").removesuffix(".yaml")
    files = {p.relative_to(folder).with_suffix("").as_posix(): p for p in folder.rglob("*.yaml")}
    if name in files:
        return str(files[name])
    names = sorted(files)
    advice = did_you_mean(name, names, "give the path of a file, or one of the names in configs/")
    raise ConfigError(
        f"{here}: there is no such file, nor an installed config of that name; {advice}"
    )


# --- Merging


def _merge_tree(cfg: CfgNode, tree: Tree, source: str) -> dict[str, str | None]:
    """Set every value of a file, and log a line for those without effect. They tell a file of
    PySlowFast's: each setting of `NORMALIZATION` in the file -> `source`, or None for another file.
    """
    unused = [
        _ignored_part(key) for key, value in leaves(tree) if not _set(cfg, key, value, source)
    ]
    if launcher := [key for key in unused if key in LAUNCHER]:
        command = f"torchrun --nproc_per_node {tree.get('NUM_GPUS', 1)} -m octvideo train ..."
        logger.warning(
            "%s: not used: %s; start a process per GPU with %s",
            source,
            ", ".join(launcher),
            command,
        )
        if line := of_one_machine(cfg, dict(leaves(tree))):
            logger.warning("%s: %s", source, line)
    if rest := sorted(set(unused) - set(LAUNCHER)):
        logger.warning("%s: without effect here, ignored: %s", source, to_a_screen(", ".join(rest)))
    return {key: source if unused else None for key, _ in leaves(tree) if key in NORMALIZATION}


def _reverse_normalization(cfg: CfgNode, theirs: dict[str, str]) -> None:
    """PySlowFast normalizes before it reverses the channels; this package normalizes them in the
    order that the network sees. theirs: setting -> the file of PySlowFast's that set it."""
    for key, source in theirs.items() if cfg.DATA.REVERSE_INPUT_CHANNEL else ():
        name = key.partition(".")[2]
        given = cfg.DATA[name]
        if given != given[::-1]:
            cfg.DATA[name] = given[::-1]
            logger.warning(
                "%s: as PySlowFast's, with DATA.REVERSE_INPUT_CHANNEL its %s %s is %s here",
                source, key, given, given[::-1],
            )  # fmt: skip


def _warn_of_normalization(cfg: CfgNode, source: str, known: Collection[str]) -> None:
    """Warn where the order of channels is changed for a mean of a file that may go with the other.
    known: settings that are right, or are put right."""
    for key in NORMALIZATION:
        given = cfg.DATA[key.partition(".")[2]]
        if key not in known and given != given[::-1]:
            reverse = cfg.DATA.REVERSE_INPUT_CHANNEL
            logger.warning(
                "%s: with DATA.REVERSE_INPUT_CHANNEL %s its %s %s is taken as %s first; set it too"
                " if it is not",
                source, reverse, key, given, "blue" if reverse else "red",
            )  # fmt: skip


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`SECTION.NAME` and the value of each setting."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _default(key: str) -> Any:
    """The default of a setting, the tree of a section; None for an unknown key."""
    node: Any = DEFAULTS
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return None
        node = node[part]
    return node


def _set(cfg: CfgNode, key: str, value: Any, source: str) -> bool:
    """Set a value, None being the default; False for a setting that is known but has no effect
    here."""
    if key in ONLY:
        value = python_value(value) if isinstance(value, str) else value
        if value is not None:
            _check_choice(key, value, ONLY[key], source)
        return True
    if _ignored_part(key):
        return False
    default = _default(key)
    if default is None:
        raise ConfigError(f"{source}: there is no setting {key}; {_nearest(key)}")
    if isinstance(default, dict):
        if value is None:  # a section that a file leaves empty
            return True
        raise ConfigError(
            f"{source}: {key} is a section; set one of"
            f" {', '.join(f'{key}.{name}' for name in default)}"
        )
    if isinstance(value, str):
        value = ALIASES.get((key, value.lower()), value)
        value = value if isinstance(default, str) else python_value(value)
    if value is None:
        value = default
    if CHOICES.get(key) == AUTO:
        value = str(value).lower()  # `true` is a bool in YAML, and text on a command line
    example = ITEMS.get(key, default)
    try:
        value = _coerce(value, example)
    except (TypeError, ValueError):
        raise ConfigError(f"{source}: {key} is {value!r}; it takes {_describe(example)}") from None
    if key in CHOICES:
        _check_choice(key, value, CHOICES[key], source)
    section, _, name = key.rpartition(".")
    (cfg[section] if section else cfg)[name] = value
    return True


def _ignored_part(key: str) -> str:
    """AVA.FRAME_LIST_DIR -> AVA; "" for a setting that has an effect."""
    if key in LAUNCHER:
        return key
    section = key.partition(".")[0]
    if section in OTHER_TASKS:
        return section
    return next((name for name in NO_EFFECT if key == name or key.startswith(name + ".")), "")


def _check_choice(key: str, value: Any, choices: tuple[Any, ...], source: str) -> None:
    if value not in choices:
        advice = ADVICE.get(key, LEAVE_OUT if key in ONLY else "")
        raise ConfigError(
            f"{source}: {key} is {value!r}; it takes"
            f" {' or '.join(repr(choice) for choice in choices)}{advice and '; '}{advice}"
        )


def _nearest(key: str) -> str:
    known = [name for name, _ in leaves(DEFAULTS)]
    upper = key.upper()
    same_name = [name for name in known if name.rpartition(".")[2] == upper.rpartition(".")[2]]
    return did_you_mean(upper, same_name[:1] or known, "octvideo/config/defaults.py lists them all")


# --- Types


def _coerce(value: Any, example: Any) -> Any:
    """The value as the example's type. 1 is a float, `true` a bool, YAML's text "1e-4" a number;
    lists are as deep as the example's."""
    if not isinstance(example, list):
        return _coerce_leaf(value, type(example))
    if not isinstance(value, list | tuple):
        raise TypeError
    return [_coerce(entry, example[0]) for entry in value]


def _coerce_leaf(value: Any, kind: type) -> Any:
    if kind is float and not isinstance(value, bool):
        value = float(value)
        if not math.isfinite(value):
            raise ValueError
    if kind is bool and str(value).lower() in ("true", "false", "1", "0"):
        return str(value).lower() in ("true", "1")
    if type(value) is kind:
        return value
    raise TypeError


def _describe(example: Any) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
    }
    return names[type(example)] + (f", such as {example!r}" if example != "" else "")
