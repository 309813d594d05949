"""Describe a bare weights file: its network, its classes, its input.

Names and shapes identify the network; the caller gives classes and input. Properties that shapes do
not show are those of its project: a C2D pools in time after res2, a stride is in the 3x3, a
SlowFast has the speed ratio of the settings in the file, else of the caller.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.data.lists.class_names import read_class_names
from octvideo.errors import CheckpointError, ConfigError, logger
from octvideo.models.network import HeadAct, config_of
from octvideo.models.video_options import BLOCKS
from octvideo.weights.assumptions import lookup, settings_in, warn_of_another_input
from octvideo.weights.convert import (
    build_each,
    count_blocks,
    find_alpha,
    first_match,
    require_names,
)
from octvideo.weights.layouts import MMACTION2, Layout, find_layout
from octvideo.weights.load import HEAD, is_classifier
from octvideo.weights.source import check_shapes, shapes_of
from octvideo.wrappers import check_finite, clear_names

# Class names that come with the package, a line each in the order of their labels.
CLASS_NAMES = {
    name: Path(__file__).with_name(f"{name}.txt")
    for name in ("kinetics400", "kinetics600", "something-something-v2", "charades", "imagenet")
}
Given = str | InputSpec | Mapping[str, Any]  # an input, as for `said_of`
KINETICS_INPUT = InputSpec(
    mean=(0.45,) * 3,
    std=(0.225,) * 3,
    sampling_rule="pyslowfast",
    target_fps=30.0,
    crop_size=256,
    short_side=256,
)
# pytorchvideo's networks average logits over the positions of the test window, others
# probabilities.
MEAN_FIRST = ("pytorchvideo",)
FAMILIES = ("c2d", "i3d", "slow", "slowfast")


def read_classes(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names of classes in the order of their labels: those of a data set in `CLASS_NAMES`, or a
    text file's, one a line, or a JSON's as of `read_class_names`, or as they are given. A text file
    may repeat a name, as lists of ImageNet do; a warning tells it.
    """
    if not isinstance(classes, str | Path):
        return tuple(classes)
    if str(classes).lower().endswith(".json"):
        return tuple(read_class_names(classes))
    path = CLASS_NAMES.get(str(classes)) or Path(classes)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"classes={str(classes)!r}: neither a data set whose names come with the package"
            f" ({', '.join(CLASS_NAMES)}) nor a text file with one name a line ({error})"
        ) from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        logger.warning(
            "%s: %r stands there %d times; a name of its own for each class would tell them apart",
            *(path, name, count),
        )
    return names


def said_of(given: Given) -> dict[str, Any]:
    """The fields of `InputSpec` that a caller says, equal to Kinetics' or not.

    given: "8x8" (frames x frame stride), or an `InputSpec` or its fields; without a mean an
    `InputSpec` says nothing of the channels' order. Raises ConfigError for what cannot be, and
    where frames or stride are not said.
    """
    what = f"input={given!r:.40}" if isinstance(given, str) else "input"
    values: dict[str, Any]
    if isinstance(given, InputSpec):
        values = given.as_dict()
        if given.mean is None:
            del values["reverse_channels"]
    elif isinstance(given, Mapping):
        values = {name: value for name, value in given.items() if value is not None}
    elif isinstance(given, str) and (match := re.fullmatch(r"(\d+)x(\d+)", given)):
        values = {"num_frames": int(match[1]), "sampling_rate": int(match[2])}
    else:
        raise ConfigError(
            f"input={given!r:.40}: write frames x frame stride, as in '8x8' or '32x2'"
        )
    seen = InputSpec.given(values, what)
    if not (seen.num_frames and seen.sampling_rate):
        raise ConfigError(f"{what}: say num_frames and sampling_rate, as in '8x8'")
    return {name: getattr(seen, name) for name in values}


def read_input(given: Given) -> InputSpec:
    """As of `said_of`, and as on Kinetics where it says nothing."""
    return replace(KINETICS_INPUT, **said_of(given))


def describe(
    checkpoint: Checkpoint,
    class_names: Sequence[str],
    given: Given,
    *,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    head_act: str = "",
) -> Checkpoint:
    """A bare file's weights as a checkpoint of this package, in float32.

    given: the input, as for `said_of`; what it does not say, the file's own settings decide, else
    it is as on Kinetics. name: of the network, as for `create_model`; "": identified by its shapes.
    options: properties that shapes do not show. head_act: by default that of the file's settings,
    else of its layout, a sigmoid for the classes of Charades. Raises CheckpointError if no video
    network fits, or if the number of classes differs from the classifier's.
    """
    check_finite(checkpoint.weights, checkpoint.path)
    layout = find_layout(checkpoint.weights)
    translated = layout.translate(checkpoint.weights, checkpoint)
    check_shapes(translated, checkpoint.path)
    state = {n: t.float() if t.is_floating_point() else t for n, t in translated.items()}
    if "head.fc.weight" in state:
        state["head.fc.weight"] = state["head.fc.weight"].flatten(1)
    assumes = layout.assumes(state, checkpoint)
    said, given = layout.said_of_input(checkpoint), said_of(given)
    warn_of_another_input(said, given, checkpoint.path)
    seen = replace(KINETICS_INPUT, **{**said, **given})
    trained, window = dict(assumes.options), _training_crop(checkpoint.recipe)
    if layout is MMACTION2:  # whose heads pool the whole map
        window = seen.crop_size
    if window:
        trained["crop_size"] = window
    network, expected = find_network(
        state, checkpoint.path, name, {**trained, **(options or {})}, assumes.archs
    )
    require_names(class_names, network, checkpoint.path)
    # Files from before torch 0.4.1, and converted ones, do not count their batches; nothing depends
    # on it.
    counters = {n: torch.tensor(0) for n in expected if n.endswith("num_batches_tracked")}
    act, several = layout.said_of_output(checkpoint)
    usual = "sigmoid" if tuple(class_names) == read_classes("charades") else "softmax"
    act = head_act or _of_layout(act or usual, layout)
    return Checkpoint(
        checkpoint.path,
        counters | state,
        network=network,
        class_names=tuple(class_names),
        input=seen,
        multi_label=act.startswith("sigmoid") if several is None else several,
        head_act=act,
        removed=checkpoint.removed,
    )


def _training_crop(recipe: str) -> int | None:
    """The crop whose window the test head of PySlowFast slides, as its settings in a file say."""
    size = lookup(settings_in(recipe), "DATA.TRAIN_CROP_SIZE")
    return size if type(size) is int and size > 0 else None


def known_head_act(
    checkpoint: Checkpoint, multi_label: bool, prefixes: Sequence[str] = ()
) -> str | None:
    """The activation of a checkpoint's logits in a test, as it or its layout says; else None.

    prefixes: texts to remove from the names. Raises CheckpointError for one that is not here.
    """
    if checkpoint.head_act and checkpoint.head_act not in get_args(HeadAct):
        raise CheckpointError(
            f"{checkpoint.path}: makes scores by {checkpoint.head_act!s:.40}; here there are"
            f" {', '.join(get_args(HeadAct))}: write one of them into its meta, as head_act"
        )
    layout = _layout_of(checkpoint, () if checkpoint.network else prefixes)
    said = "" if checkpoint.network else layout.said_of_output(checkpoint)[0]
    if checkpoint.head_act or not (said or layout.title in MEAN_FIRST):
        return checkpoint.head_act
    return _of_layout(said or ("sigmoid" if multi_label else "softmax"), layout)


def _of_layout(act: str, layout: Layout) -> str:
    is_first = layout.title in MEAN_FIRST and not act.endswith("_of_mean")
    return f"{act}_of_mean" if is_first else act


def input_of(checkpoint: Checkpoint, prefixes: Sequence[str] = ()) -> InputSpec:
    """The input of the training, as the file says it, in this package's words or in its project's.

    prefixes: texts to remove from the names.
    """
    if checkpoint.network:
        return checkpoint.input
    return InputSpec(**_layout_of(checkpoint, prefixes).said_of_input(checkpoint))


def _layout_of(checkpoint: Checkpoint, prefixes: Sequence[str]) -> Layout:
    return find_layout(clear_names(checkpoint.weights, prefixes)[0])


def find_network(
    state: Mapping[str, Tensor],
    source: str,
    name: str,
    options: Mapping[str, Any],
    archs: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """The `create_model` arguments of the video network that has these names and shapes, and the
    names of its tensors.

    archs: the candidates, without their depth; (): `FAMILIES`.
    """
    options = {**_seen(state), **options}
    names = [name] if name else _candidates(state, archs or FAMILIES)
    candidates = [(candidate, options) for candidate in names]
    if model := first_match(state, candidates):
        return dict(model.config), list(model.state_dict())  # type: ignore[arg-type]
    shapes = shapes_of(state)
    built = [(config_of(m)["name"], shapes_of(m.state_dict())) for m in build_each(candidates)]
    nearest = min(built, key=lambda row: len(row[1].items() ^ shapes.items()), default=None)
    reason = _difference(shapes, *nearest) if nearest else f"it holds {', '.join(list(state)[:3])}"
    raise CheckpointError(
        f"{source}: its names and shapes are not of {name or 'a video network in list_models()'}:"
        f" {reason}"
    )


Shapes = Mapping[str, tuple[int, ...]]


def _difference(found: Shapes, network: str, wanted: Shapes) -> str:
    """The first in which a file's shapes differ from those of the network that is nearest."""
    extra = [name for name in found if name not in wanted]
    missing = [name for name in wanted if name not in found]
    if extra:
        return f"{extra[0]} {found[extra[0]]} does not belong to {network} ({len(extra)} such)"
    if is_classifier(missing) and not any(map(HEAD.match, found)):
        return (
            f"it is a {network} without a classifier; train one from it"
            " (TRAIN.CHECKPOINT_FILE_PATH), or take the file that has it"
        )
    if missing:
        return f"it lacks {missing[0]} of {network} ({len(missing)} such)"
    name = next(name for name in wanted if found[name] != wanted[name])
    return f"{name} is {found[name]}, in {network} {wanted[name]}"


def _pathway(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _candidates(state: Mapping[str, Tensor], archs: Sequence[str]) -> Iterator[str]:
    blocks = count_blocks(_pathway(state, "slow.") or state)
    for depth in (depth for depth, numbers in BLOCKS.items() if numbers == blocks):
        yield from (f"{arch}_r{depth}" for arch in archs)


def _seen(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options that names and shapes show."""
    slow, fast = _pathway(state, "slow.") or dict(state), _pathway(state, "fast.")
    stem, classifier = slow.get("stem.conv.weight"), state.get("head.fc.weight")
    if stem is None:
        return {}
    seen: dict[str, Any] = {
        **({} if classifier is None else {"num_classes": len(classifier)}),
        "width_per_group": len(stem),
        "in_channels": stem.shape[1],
        "alpha": find_alpha(state),
    }
    location = _nonlocal_blocks(slow)
    if any(location):
        seen["nonlocal_location"] = location
    lateral = state.get("laterals.0.conv.h2h.weight")
    if lateral is None or "stem.conv.weight" not in fast:
        seen["num_block_temp_kernel"] = [
            max(usual, found)
            for usual, found in zip((3, 4, 6, 3), _temporal_blocks(slow), strict=True)
        ]
    else:
        seen["fusion_kernel_size"] = lateral.shape[2]
        seen["beta_inv"] = len(stem) // len(fast["stem.conv.weight"])
        seen["fusion_conv_channel_ratio"] = len(lateral) // lateral.shape[1]
        if (blocks := count_blocks(fast)) != count_blocks(slow):
            seen["depth_fast"] = next(
                (d for d, numbers in BLOCKS.items() if numbers == blocks), None
            )
        seen["num_block_temp_kernel_fast"] = _temporal_blocks(fast)
        seen["num_block_temp_kernel"] = [
            own or other
            for own, other in zip(_temporal_blocks(slow), _temporal_blocks(fast), strict=True)
        ]
        if any(fast_location := _nonlocal_blocks(fast)):
            seen["nonlocal_location_fast"] = fast_location
    return seen


def _nonlocal_blocks(pathway: Mapping[str, Tensor]) -> list[list[int]]:
    found: dict[str, set[int]] = {stage: set() for stage in "2345"}
    for name in pathway:
        if match := re.match(r"res([2-5])\.nonlocal(\d+)\.", name):
            found[match[1]].add(int(match[2]))
    return [sorted(blocks) for blocks in found.values()]


def _temporal_blocks(pathway: Mapping[str, Tensor]) -> list[int]:
    """Per stage res2..res5, in how many blocks the first convolution spans several frames."""
    counts = dict.fromkeys((2, 3, 4, 5), 0)
    for name, tensor in pathway.items():
        match = re.fullmatch(r"res([2-5])\.block\d+\.reduce\.conv\.h2h\.weight", name)
        if match and tensor.dim() == 5 and tensor.shape[2] > 1:
            counts[int(match[1])] += 1
    return list(counts.values())
