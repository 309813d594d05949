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
CROPS = ("CenterCrop", "ThreeCrop", "TenCrop")

Clip = tuple[int, int, float | None]


@dataclass(frozen=True, slots=True)
class Config:
    """model, img_norm_cfg, test_cfg: what is assigned to these names; {} where nothing is. clips:
    (frames, stride, frame rate or None) of every `SampleFrames`. crops: `crop_size` and
    `short_side` of its test, {} where they cannot be read."""

    model: Mapping[str, Any] = field(default_factory=dict)
    img_norm_cfg: Mapping[str, Any] = field(default_factory=dict)
    test_cfg: Mapping[str, Any] = field(default_factory=dict)
    clips: frozenset[Clip] = frozenset()
    crops: Mapping[str, int] = field(default_factory=dict)

    def part(self, name: str) -> dict[str, Any]:
        """A dict of the model, {} where it has none of this name."""
        found = self.model.get(name)
        return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1)
def read_config(text: str) -> Config:
    """An empty one where there is no text, or one that cannot be read, which is told."""
    try:
        tree = ast.parse(text if len(text) < MAX_CONFIG else "")
        named = {name: _assigned(tree, name) for name in ("model", "img_norm_cfg", "test_cfg")}
        dicts = {name: value for name, value in named.items() if isinstance(value, dict)}
        crops = _crops(_assigned(tree, "test_pipeline"))
        return Config(**dicts, clips=frozenset(_clips(tree)), crops=crops)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        logger.warning("a config of mmaction2 in the weights file cannot be read; it is left out")
    return Config()


def said_of_input(checkpoint: Checkpoint) -> dict[str, Any]:
    """Fields of `InputSpec`: mean and std in 0..1, the config's or those of the published configs;
    frames, stride and frame rate, if the config samples all its clips alike; the crop of its test.

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
        **config.crops,
    }
    if len(sizes := {(frames, stride) for frames, stride, _ in config.clips}) == 1:
        said["num_frames"], said["sampling_rate"] = next(iter(sizes))
    # At a frame rate its clips are spread as PySlowFast's, else they go in steps of whole frames.
    rates = {rate for *_, rate in config.clips}
    if rates <= {None}:
        said["sampling_rule"] = "stride"
    elif len(rates) == 1:
        said |= {"sampling_rule": "pyslowfast", "target_fps": rates.pop()}
    return said


def said_of_output(checkpoint: Checkpoint) -> tuple[str, bool | None]:
    """The function from logits to probabilities, and whether a video has several classes; "" and
    None if the config does not say.

    average_clips: "prob" is the mean of probabilities over the views, "score" that of logits.
    """
    config = read_config(checkpoint.python_recipe)
    head, loss = config.part("cls_head"), config.part("cls_head").get("loss_cls")
    # Before version 1 it stands beside the head, or beside the model.
    places = (head, config.part("test_cfg"), config.test_cfg)
    average = next(filter(None, (place.get("average_clips") for place in places)), None)
    mean = "_of_mean" if average == "score" else ""
    binary = isinstance(loss, dict) and loss.get("type") == "BCELossWithLogits"
    if binary or head.get("multi_class") is True:
        return f"sigmoid{mean}", True
    return (f"softmax{mean}" if average in ("prob", "score") else ""), None


def _are_numbers(value: Any) -> bool:
    items = value if isinstance(value, list | tuple) else ()
    return len(items) == 3 and all(type(n) in (int, float) and 0 <= n < 1e6 for n in items)


def _assigned(tree: ast.Module, name: str) -> Any:
    """The value of `model = dict(...)`; None where nothing is assigned to the name."""
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return _value(statement.value)  # type: ignore[attr-defined]
    return None


def _crops(pipeline: Any) -> dict[str, int]:
    """Of `dict(type='Resize', scale=(-1, 256))` and `dict(type='CenterCrop', crop_size=224)`, if
    both are there and the crop fits."""
    crop = side = 0
    for step in pipeline if isinstance(pipeline, list) else []:
        kind = step.get("type") if isinstance(step, dict) else None
        if kind in CROPS:
            crop = _size(step.get("crop_size"))
        elif kind == "Resize" and isinstance(scale := step.get("scale"), list) and -1 in scale:
            side = _size([length for length in scale if length != -1])
    return {"crop_size": crop, "short_side": side} if 0 < crop <= side else {}


def _size(value: Any) -> int:
    """Of `224` or `(224, 224)`; 0 for everything else."""
    sizes = value if isinstance(value, list) else [value]
    is_one = len({*map(str, sizes)}) == 1 and type(sizes[0]) is int and 0 < sizes[0] < 10_000
    return sizes[0] if is_one else 0


def _is_sampling(call: ast.Call) -> bool:
    types = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
    return any(isinstance(kind, ast.Constant) and kind.value == "SampleFrames" for kind in types)


def _clips(tree: ast.Module) -> set[Clip]:
    """Of every `dict(type='SampleFrames', clip_len=8, frame_interval=8)`. Clips of one frame are a
    TSN's segments, and left out."""
    clips = set()
    for node in ast.walk(tree):
        step = _value(node) if isinstance(node, ast.Call) and _is_sampling(node) else None
        if isinstance(step, dict):
            length, stride = step.get("clip_len"), step.get("frame_interval", 1)
            rate = step.get("target_fps")
            rate = float(rate) if isinstance(rate, int | float) and 0 < rate < 1000 else None
            if type(length) is int and type(stride) is int and length > 1 and stride > 0:
                clips.add((length, stride, rate))
    return clips


def _value(node: ast.expr) -> Any:
    """Constants, negative numbers, lists and dicts, those of `dict(...)` too; None for everything
    else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand)
        return -value if type(value) in (int, float) else None
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key): _value(item) for key, item in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    return None
