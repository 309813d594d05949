"""The official OctConv checkpoints (MXNet) in the names of this package.

Three spellings of one tensor: by symbol, by structure (gluon), by prefix (older gluon files).

    arg:L2_B01_conv1_conv-h2h_weight    L1_B0.conv1.conv_h2h.weight    R50_L1_B0_conv1-h2h_weight
    aux:L2_B01_conv1_bn-h_moving_mean   L1_B0.bn1.bn_h.running_mean    R50_L1_B0_bn1-h_running_mean

Stages count from 2 and blocks from 1 by symbol; from 1 and 0 in gluon.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from octvideo.errors import CheckpointError
from octvideo.layers import OctConv2d
from octvideo.layers.octave import Downsample
from octvideo.weights.mxnet_params import Array, read_params

FamilyName = Literal["resnet", "densenet", "mobilenet_v1", "mobilenet_v2"]

FIELDS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"} | {
    field: field for field in ("weight", "bias")
}
# Symbol: mean 124, 117, 104, scale .0167; gluon: mean and std of each channel; of an input in 0..255.
SYMBOL_MEAN, SYMBOL_STD = (124 / 255, 117 / 255, 104 / 255), (1 / (255 * 0.0167),) * 3
GLUON_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
GLUON_STD = (58.393 / 255, 57.12 / 255, 57.375 / 255)

# What the numbered layers of a block are called here; a DenseNet's transition has no number.
ROLES: dict[FamilyName, dict[str, str]] = {
    "resnet": {"1": "reduce", "2": "spatial", "3": "expand", "4": "shortcut"},
    "densenet": {"1": "reduce", "2": "spatial", "": ""},
    "mobilenet_v1": {"1": "depthwise", "2": "pointwise"},
    "mobilenet_v2": {"1": "expand", "2": "depthwise", "3": "project"},
}
PREFIX = re.compile(r"^(?:arg:|aux:)?(?:[A-Z]+\d+_(?!B\d|Trans))?")
BLOCK = re.compile(r"L(\d)_(?:B(\d+)|Trans)[._](.+)")
FILLERS = {"moving", "running", "block"}
GROUPS = {"h": "high", "l": "low"}
PATHS = {"h2h", "h2l", "l2h", "l2l"}


@dataclass(frozen=True, slots=True)
class OfficialName:
    """A name taken apart. stage: 0 outside of blocks. block: None in a transition. words: what is left, in order.

    group: "h2h" .. "l2l", "h", "l" or "" (plain).
    """

    stage: int
    block: int | None
    words: tuple[str, ...]
    group: str
    field: str

    @classmethod
    def parse(cls, name: str) -> "OfficialName":
        bare = PREFIX.sub("", name)
        match = BLOCK.fullmatch(bare)
        stage, block, rest = (int(match[1]), match[2], match[3]) if match else (0, None, bare)
        words = [word for word in re.split(r"[._-]", rest) if word not in FILLERS]
        field = FIELDS.get(words.pop())
        if field is None or not words:
            raise CheckpointError(f"{name} is no parameter of an official OctConv network")
        group = words.pop() if words[-1] in GROUPS or words[-1] in PATHS else ""
        return cls(stage, None if block is None else int(block), tuple(words), group, field)

    @property
    def number(self) -> str:
        """Which layer of its block: the digit in conv2, bn4a, fc1; "" in a transition."""
        digits = re.findall(r"\d", " ".join(self.words[:2]))
        return digits[0] if digits else ""

    @property
    def is_norm(self) -> bool:
        return self.words[-1].startswith("bn")


@dataclass(frozen=True, slots=True)
class OfficialWeights:
    """state: in the names of this package. mean, std: of an RGB input in 0..1."""

    state: dict[str, Tensor]
    bn_eps: float
    downsample: Downsample
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_official(model: nn.Module, path: str | Path) -> None:
    """Fill an image network with an official checkpoint: `.params`, or the `.tar` that holds one.

    The network must be the file's, like `create_model("resnet50", alpha=0.25)`. Raises CheckpointError, and leaves the
    network as it was, for a damaged file, for one that does not fit, and where BN eps or the way of taking strides
    differ, with the option to change.
    """
    weights = read_official(path)
    _check_fit(model, weights.state, str(path))
    _check_assumptions(model, weights, str(path))
    model.load_state_dict(weights.state, strict=False)


def read_official(path: str | Path) -> OfficialWeights:
    """The weights of an official checkpoint, and what they assume. Raises CheckpointError as `load_official` does."""
    arrays = read_params(path)
    by_symbol = any(name.startswith(("arg:", "aux:")) for name in arrays)
    state = to_state(arrays)
    return OfficialWeights(
        state=state,
        bn_eps=1e-4 if by_symbol else 1e-5,
        downsample="pool" if any(name.endswith(".h2l.weight") for name in state) else "stride",
        mean=SYMBOL_MEAN if by_symbol else GLUON_MEAN,
        std=SYMBOL_STD if by_symbol else GLUON_STD,
    )


def _check_assumptions(model: nn.Module, weights: OfficialWeights, source: str) -> None:
    eps = {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    if eps != {weights.bn_eps}:
        raise CheckpointError(
            f"{source}: was trained with a BN eps of {weights.bn_eps:g}, the network has {min(eps):g}; "
            f"build it with bn_eps={weights.bn_eps:g}"
        )
    # The stem stands before the pair and is strided everywhere.
    strided = {n: m for n, m in model.named_modules() if isinstance(m, OctConv2d) and m.stride[-1] == 2}
    strided = {name: module for name, module in strided.items() if not name.startswith("stem.")}
    if any(module.downsample != weights.downsample for module in strided.values()):
        raise CheckpointError(
            f"{source}: downsamples by {weights.downsample}; build the network with downsample={weights.downsample!r}"
        )
    in_residual = {name.split(".")[-2] for name in strided if name.startswith("res")} - {"shortcut"}
    is_deep = any(name.startswith("stem.before.") for name in weights.state)
    if in_residual - {"expand" if is_deep else "spatial"}:
        raise CheckpointError(
            f"{source}: has the strides of its stages at the {'last 1x1' if is_deep else '3x3'}; "
            f"build the network with stride_1x1=False, stride_last={is_deep}"
        )


def _check_fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """`state` must name every parameter and BN average of `model` and nothing else, in its shapes."""
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    wrong = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{source}: {name} is {tuple(state[name].shape)}, in the network {tuple(own[name].shape)} "
            f"(and {len(wrong) - 1} more differ); build the network with the file's name, alpha, width and num_classes"
        )
    if own.keys() != state.keys():
        lacks, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise CheckpointError(
            f"{source}: is of another network: it lacks {len(lacks)} tensors ({', '.join(lacks[:2])}) "
            f"and has {len(extra)} more ({', '.join(extra[:2])})"
        )


def to_state(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Official names and arrays to this package's names and float32 tensors."""
    names = {name: OfficialName.parse(name) for name in arrays}
    places = _Places(list(names.values()))
    state: dict[str, Tensor] = {}
    squeezes: dict[str, dict[str, Tensor]] = {}
    for name, parsed in names.items():
        tensor = torch.from_numpy(arrays[name].astype(np.float32))
        place = places.find(name, parsed)
        if place.endswith((".squeeze.weight", "gate_high.weight", "gate_low.weight", "head.fc.weight")):
            tensor = tensor.flatten(1)
        if place.endswith(".squeeze.weight"):
            squeezes.setdefault(place, {})[parsed.group] = tensor
        elif place in state:
            raise CheckpointError(f"{name} names a tensor that the file holds already")
        elif not re.search(r"whiten\.\w+\.(weight|bias)$", place):
            state[place] = tensor
    # By symbol the squeeze has a matrix for each group; sorted, high (h2h) comes before low (l2h).
    return state | {place: torch.cat([parts[g] for g in sorted(parts)], 1) for place, parts in squeezes.items()}


class _Places:
    """Where the tensors of one file belong: what can be known only from all of its names."""

    def __init__(self, names: Sequence[OfficialName]) -> None:
        in_blocks = [name for name in names if name.stage]
        self.family = _family(in_blocks)
        self.by_symbol = min((name.stage for name in in_blocks), default=1) == 2
        self.is_deep = any(_stem_layer(name.words) == 2 for name in names if not name.stage)
        order = sorted({(name.stage, name.block or 0) for name in in_blocks})
        self.order = {block: number for number, block in enumerate(order, start=1)}

    def find(self, name: str, parsed: OfficialName) -> str:
        """Our name of the tensor. Raises CheckpointError where the networks have no such layer."""
        place = self._in_block(parsed) if parsed.stage else self._outside(parsed)
        if place is None:
            raise CheckpointError(f"{name} is no parameter of an official {self.family}")
        return f"{place}.{parsed.field}"

    def _in_block(self, name: OfficialName) -> str | None:
        block = self._block(name)
        if name.words[0] == "se":
            gate = "gate_low" if name.group in ("l", "h2l") else "gate_high"
            return f"{block}.excite.{'squeeze' if name.number == '1' else gate}"
        role = ROLES[self.family].get(name.number)
        if role is None:
            return None
        return f"{block}.{role}.{_layer(name)}".replace("..", ".")

    def _block(self, name: OfficialName) -> str:
        first = 1 if self.by_symbol else 0
        stage = name.stage if self.by_symbol else name.stage + 1
        if self.family.startswith("mobilenet"):
            return f"blocks.block{self.order[name.stage, name.block or 0]}"
        if self.family == "resnet":
            return f"res{stage}.block{(name.block or 0) - first}"
        if not name.number:
            return f"stages.transition{stage}"
        # In gluon a stage's transition is its block 0.
        has_transition = not self.by_symbol and name.stage > 1
        return f"stages.dense{stage}.layer{(name.block or 0) - first - has_transition}"

    def _outside(self, name: OfficialName) -> str | None:
        words = name.words
        if words[0] in ("classifier", "classifer"):
            return "head.fc"
        if words[0] == "tail":
            is_conv = words[-1] == "conv" or (words[-1] == "0" and name.field == "weight" and self._tail_has_conv)
            plain = "conv" if is_conv else "bn"
            return f"tail.{plain}" if self._tail_has_conv else "tail.high"
        if words[0] == "stem2" or (words[0] == "conv2" and len(words) == 2 and words[1][0] in "cb"):
            return f"stem.pool.block.{ROLES['resnet'][words[1][-1]]}.{_layer(name)}"
        if words[0] in ("conv2", "bn2"):
            return f"stem.pool.{'bn' if words[-1] in ('1', 'bn2') else 'conv'}"
        layer = _stem_layer(words)
        if layer is None:
            return None
        if self.family == "densenet":
            return f"stem.{_layer(name)}"
        kind = "bn" if name.is_norm or words[-1] in ("1", "4", "7") else "conv"
        return f"stem.{kind}" if not self.is_deep or layer == 2 else f"stem.before.{layer}.{kind}"

    @property
    def _tail_has_conv(self) -> bool:
        return self.family == "mobilenet_v2"


def _family(names: Sequence[OfficialName]) -> FamilyName:
    numbers = {name.number for name in names if name.words[0] != "se"}
    if "" in numbers:
        return "densenet"
    if "4" in numbers:
        return "resnet"
    return "mobilenet_v2" if "3" in numbers else "mobilenet_v1"


def _layer(name: OfficialName) -> str:
    """conv.h2h .. conv.l2l, bn.high, bn.low, whiten.high, whiten.low."""
    if not name.is_norm:
        return f"conv.{name.group or 'h2h'}"
    return f"{'whiten' if name.words[0].endswith('a') else 'bn'}.{GROUPS[name.group or 'h']}"


def _stem_layer(words: Sequence[str]) -> int | None:
    """Which of the stem's convolutions: conv1.0, conv1.3, conv1.6 and stem_conv1, 2, 3 are 0, 1, 2."""
    if words[0] == "stem":
        return int(words[1][-1]) - 1
    if words[0] not in ("conv1", "bn1"):
        return None
    return int(words[1]) // 3 if len(words) == 2 and words[1].isdigit() else 0
