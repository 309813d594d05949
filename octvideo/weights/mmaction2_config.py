"""What mmaction2's config says: a Python text in its files, which is read as data and never run."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError, logger

_NORMALIZATION = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}  # of 0..255
MAX_CONFIG = 500_000  # characters; its longest config has 20,000


@dataclass(frozen=True, slots=True)
class Config:
    """model, img_norm_cfg: what is assigned to these names; {} where nothing is. clips: (frames,
    stride) of every `SampleFrames`."""

    model: Mapping[str, Any] = field(default_factory=dict)
    img_norm_cfg: Mapping[str, Any] = field(default_factory=dict)
    clips: frozenset[tuple[int, int]] = frozenset()

    def part(self, name: str) -> dict[str, Any]:
        """A dict of the model, {} where it has none of this name."""
        found = self.model.get(name)
        return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1)
def read_config(text: str) -> Config:
    """An empty one where there is no text, or one that cannot be read, which is told."""
    try:
        tree = ast.parse(text if len(text) < MAX_CONFIG else "")
        return Config(
            _assigned(tree, "model"), _assigned(tree, "img_norm_cfg"), frozenset(_clips(tree))
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        logger.warning("a config of mmaction2 in the weights file cannot be read; it is left out")
    return Config()


def said_of_input(checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of `InputSpec`: mean and std in 0..1, the config's or those of the published configs;
    frames and stride, if the config samples all its clips alike.

    Frames are RGB there, and reversed, if at all, before they are normalized. Raises
    CheckpointError for a mean and std that are no such numbers.
    """
    config = read_config(checkpoint.python_recipe)
    # Before version 1 the normalization is a step of the pipelines, all of which take it from here.
    given = config.part("data_preprocessor") or config.img_norm_cfg
    mean, std = (given.get(name, usual) for name, usual in _NORMALIZATION.items())
    if not (_are_numbers(mean) and _are_numbers(std) and 0 not in std):
        raise CheckpointError(
            f"{checkpoint.path}: mmaction2's normalization with mean={mean!r:.60},"
            f" std={std!r:.60}; each is three numbers of 0..255, std above 0: correct them in the"
            " config in its meta"
        )
    said = {
        "mean": tuple(value / 255 for value in mean),
        "std": tuple(value / 255 for value in std),
        "reverse_channels": True in (given.get("to_rgb"), given.get("to_bgr")),
        "sampling_rule": "stride",
    }
    if len(config.clips) == 1:
        num_frames, sampling_rate = next(iter(config.clips))
        said |= {"num_frames": num_frames, "sampling_rate": sampling_rate}
    return said


def said_of_output(checkpoint: Checkpoint) -> tuple[str, bool | None]:
    """The function from logits to probabilities, and whether a video has several classes; "" and
    None if the config does not say."""
    head = read_config(checkpoint.python_recipe).part("cls_head")
    loss = head.get("loss_cls")
    binary = isinstance(loss, dict) and loss.get("type") == "BCELossWithLogits"
    return ("sigmoid", True) if binary or head.get("multi_class") is True else ("", None)


def _are_numbers(value: Any) -> bool:
    items = value if isinstance(value, list | tuple) else ()
    return len(items) == 3 and all(type(n) in (int, float) and 0 <= n < 1e6 for n in items)


def _assigned(tree: ast.Module, name: str) -> dict[str, Any]:
    """`model = dict(...)`; {} for what is no dict."""
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            found = _value(statement.value)  # type: ignore[attr-defined]
            return found if isinstance(found, dict) else {}
    return {}


def _is_sampling(call: ast.Call) -> bool:
    types = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
    return any(isinstance(kind, ast.Constant) and kind.value == "SampleFrames" for kind in types)


def _clips(tree: ast.Module) -> set[tuple[int, int]]:
    """Of every `dict(type='SampleFrames', clip_len=8, frame_interval=8)`. Clips of one frame are a
    TSN's segments, and left out."""
    clips = set()
    for node in ast.walk(tree):
        step = _value(node) if isinstance(node, ast.Call) and _is_sampling(node) else None
        if isinstance(step, dict):
            length, stride = step.get("clip_len"), step.get("frame_interval", 1)
            if type(length) is int and type(stride) is int and length > 1 and stride > 0:
                clips.add((length, stride))
    return clips


def _value(node: ast.expr) -> Any:
    """Constants, lists and dicts, those of `dict(...)` too; None for everything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key): _value(item) for key, item in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    return None
