"""YAML text as plain data, with bounds that are checked before aliases are expanded: a kilobyte of
them may expand to gigabytes."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from iopath.common.file_io import g_pathmgr

from octvideo.config.defaults import Tree
from octvideo.errors import ConfigError, first_line
from octvideo.expansion import expanded_size

MAX_BYTES = 2**18
MAX_NODES = 10_000  # every alias expanded; the largest file of configs/ has under 200
MAX_NUMBER = 100  # characters
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")  # 1e-3, 1.0e3: text in YAML 1.1
NOT_DECIMAL = re.compile(r"[-+]?(0[0-7_]*[1-7][0-7_]+|[\d_]+(:\d+)+(\.[\d_]*)?)")  # 010, 1:30


class _LimitError(yaml.YAMLError):  # type: ignore[misc]
    """More nodes or digits than settings ever need."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain data only, no key twice in one mapping, no more than MAX_NODES values."""

    num_nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise _LimitError(f"more than {MAX_NODES:,} values")
        return super().compose_node(parent, index)

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if expanded_size(node, _children) > MAX_NODES:
            raise _LimitError(f"more than {MAX_NODES:,} values when its aliases are expanded")
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        number = node.tag.rpartition(":")[2] in ("int", "float", "timestamp")
        if number and len(node.value) > MAX_NUMBER:
            _refuse(node, f"a number of {len(node.value):,} characters")
        if number and NOT_DECIMAL.fullmatch(node.value):
            _refuse(node, f"{node.value} is a number of base 8 or 60 in YAML; write it in decimal")
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if not isinstance(key, str):
                _refuse(
                    key_node,
                    f"{key_node.value!r} is read as {key!r}; put the setting's name in quotes",
                )
            if key in seen:
                _refuse(key_node, f"{key} is set twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _ValueLoader(_Loader):
    """Reads 1e-3 as a number, as Python does."""


class _ValueDumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes what `_ValueLoader` reads: the text "1e-3" in quotes."""


for _kind in (_ValueLoader, _ValueDumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _refuse(node: yaml.Node, problem: str) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def parse_settings(text: str, source: str) -> Tree:
    """The mapping that a YAML text holds; {} for an empty one. Raises ConfigError with `source`."""
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: more than {MAX_BYTES:,} bytes; settings take a few kilobytes")
    try:
        tree = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{line}: {error.problem}") from None
    except _LimitError as error:
        raise ConfigError(f"{source}: {error}; settings have a few hundred") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: this is not YAML text ({first_line(error)})") from None
    if not isinstance(tree or {}, dict):
        raise ConfigError(
            f"{source}: expected settings such as `OCTCONV:`, found {type(tree).__name__} at"
            " the top"
        )
    return tree or {}


def parse_value(text: str) -> Any:
    """A single value of the command line; the text itself if it is no YAML."""
    try:
        return yaml.load(text, _ValueLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def value_text(value: Any) -> str:
    """A value that `parse_value` reads again."""
    text = yaml.dump([value], Dumper=_ValueDumper, default_flow_style=True, width=10**6)
    return str(text).strip()[1:-1]


def python_value(text: str) -> Any:
    """What yacs, which reads PySlowFast's files, makes of a text: `(0.9, 0.999)` is a list, `None`
    no value, `1e-3` a number. Any other text stays as it is."""
    if text == "None":
        return None
    if EXPONENT.match(text):
        return float(text)
    if text.startswith("(") and text.endswith(")"):
        value = parse_value(f"[{text[1:-1]}]")
        return value if isinstance(value, list) else text
    return text


def read_settings(path: str) -> Tree:
    """Raises ConfigError for what is no regular file of at most MAX_BYTES."""
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"{path}: is not a file; configs/README.md lists the files")
    if path.endswith(".py"):
        raise ConfigError(
            f"{path}: is a program, and none is run; docs/from_mmaction2.md has the settings of"
            " mmaction2's configs, and configs/README.md lists files"
        )
    try:
        with g_pathmgr.open(path, "r") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        )
        raise ConfigError(
            f"{path}: cannot be read ({reason}); configs/README.md lists the files"
        ) from None
    return parse_settings(text, path)
