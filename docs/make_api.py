"""Write docs/api.md from the docstrings of the public names.

python docs/make_api.py
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import cached_property
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

# Module -> names; none: all that the module calls public.
PAGE: dict[str, Sequence[str]] = {
    "octvideo": (),
    "octvideo.runs.fit": ("Run",),
    "octvideo.recognizer": (
        "load",
        "Recognizer",
        "Prediction",
        "NamedVideo",
        "Timeline",
        "WindowFeatures",
        "Window",
        "Event",
        "find_events",
        "LiveOptions",
    ),
    "octvideo.layers": (),
    "octvideo.models.video_options": ("VideoOptions",),
    "octvideo.models.slowfast": ("SlowFastOptions",),
    "octvideo.models.image_options": (
        "ImageOptions",
        "ImageResNetOptions",
        "DenseNetOptions",
        "MobileNetOptions",
    ),
    "octvideo.complexity": (
        "count",
        "count_twice",
        "stage_table",
        "Complexity",
        "StageCost",
        "LayerCost",
    ),
    "octvideo.data": (),
    "octvideo.data.lists.video_list": ("read_list", "write_list", "VideoList", "VideoEntry"),
    "octvideo.weights": (),
    "octvideo.deploy.engines": ("optimize",),
    "octvideo.deploy.fold": ("fold_batch_norm",),
    "octvideo.deploy.export": ("export_model",),
    "octvideo.deploy.roofline": ("predict", "predict_operators", "Prediction", "Kernel"),
    "octvideo.deploy.gpus": ("find_gpu", "Gpu"),
    "octvideo.deploy.operators": ("trace_operators", "Operator"),
    "octvideo.errors": (
        "OctvideoError",
        "ConfigError",
        "DataError",
        "ListError",
        "CheckpointError",
    ),
}
PROPERTIES = (property, cached_property)
HEAD = """# API

Written from the docstrings by `docs/make_api.py`. Tensors are (N, C, T, H, W); frames are uint8
(T, H, W, 3).
"""


def page() -> str:
    return "\n".join(
        [HEAD, *(section(import_module(module), names) for module, names in PAGE.items())]
    )


def section(module: Any, names: Sequence[str]) -> str:
    things = [(name, getattr(module, name)) for name in names or module.__all__]
    documented = [(name, thing) for name, thing in things if callable(thing)]
    # OctConv2d and OctConv3d are one entry.
    same_doc = groupby(documented, key=lambda pair: inspect.getdoc(pair[1]))
    entries = [entry(dict(group)) for _, group in same_doc]
    constants = [constant(name, thing) for name, thing in things if not callable(thing)]
    summary = inspect.cleandoc(module.__doc__).split("\n\n")[0]
    return "\n".join([f"## {module.__name__}\n\n{summary}\n", *entries, *constants])


def constant(name: str, keys: Iterable[str]) -> str:
    return f"`{name}`: {', '.join(f'`{key}`' for key in keys)}\n"


def entry(things: dict[str, Any]) -> str:
    """Names of one docstring: a heading, how the last is called, the docstring, and the methods of
    a class."""
    name, thing = list(things.items())[-1]
    methods = [
        f"- `.{call(name, method)}`: {' '.join(doc_of(method).split())}"
        for name, method in public(thing)
    ]
    parts = [
        f"### {', '.join(things)}",
        f"`{call(name, thing)}`",
        paragraphs(inspect.getdoc(thing) or ""),
        *methods[:1],
    ]
    return "\n\n".join(parts) + "".join(f"\n{method}" for method in methods[1:]) + "\n"


def public(thing: Any) -> Iterator[tuple[str, Any]]:
    """Methods and properties that have a docstring, those of a private base included, in the order
    of the source."""
    bases = thing.__mro__ if isinstance(thing, type) else ()
    for base in (base for base in bases if base is thing or base.__name__.startswith("_Oct")):
        for name, member in vars(base).items():
            is_method = isinstance(member, PROPERTIES) or inspect.isroutine(member)
            if is_method and doc_of(member) and not name.startswith("_"):
                yield name, member


def doc_of(member: Any) -> str:
    return getattr(member, "__doc__", None) or ""


def call(name: str, thing: Any) -> str:
    """`name(arguments) -> result` as the source spells it."""
    if isinstance(thing, PROPERTIES):
        return name
    if isinstance(thing, type):
        if is_dataclass(thing) or not hasattr(thing.__init__, "__code__"):
            fields = [
                ast.unparse(line) for line in node(thing).body if isinstance(line, ast.AnnAssign)
            ]
            return f"{name}({', '.join(fields)})"
        return f"{name}({arguments(node(thing.__init__))})"
    function = node(getattr(thing, "__func__", thing))
    return f"{name}({arguments(function)})" + (
        f" -> {ast.unparse(function.returns)}" if function.returns else ""
    )


def node(thing: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def arguments(function: Any) -> str:
    return re.sub(r"^(self|cls)(, )?", "", ast.unparse(function.args))


def paragraphs(doc: str) -> str:
    """A docstring as Markdown: `name: meaning` lines become a list, indented paragraphs stay
    code."""
    return "\n\n".join(map(paragraph, doc.split("\n\n")))


def paragraph(text: str) -> str:
    if text.startswith("    "):
        return text
    items = re.split(r"^(?=\w+(?:, \w+)*: )", text, flags=re.MULTILINE)
    if len(items) == 1:
        return text
    first, *rest = (" ".join(item.split()) for item in items)
    return "\n".join(
        [*filter(None, [first]), *(re.sub(r"^([\w, ]+):", r"- **\1**:", item) for item in rest)]
    )


if __name__ == "__main__":
    (Path(__file__).parent / "api.md").write_text(page())
