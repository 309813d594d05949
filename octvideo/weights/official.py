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
from octvideo.layers.octave import PATHS, Downsample
from octvideo.weights.constants import fold_shortcut_biases, fold_whitening
from octvideo.weights.mxnet_params import Array, read_params
from octvideo.weights.source import shapes_of
from octvideo.wrappers import check_finite

FamilyName = Literal["resnet", "densenet", "mobilenet_v1", "mobilenet_v2"]

NORM_FIELDS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
FIELDS = {"weight": "weight", "bias": "bias"} | NORM_FIELDS
# Symbol: mean 124, 117, 104, scale .0167; gluon: mean and std of each channel; of an input in
# 0..255.
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

# What a layer is called, within a block and outside of blocks.
LAYER = re.compile(r"(?:conv|bn)(?P<number>[1-4]?)(?P<whiten>a?)(?:_(?:conv|bn))?")
SE_LAYER = re.compile(r"se_(?:fc|conv)(?P<number>[12])")
TAIL = re.compile(r"tail_(?:conv|bn|0|1)")
STEM = re.compile(
    r"stem_(?:conv|bn)(?P<number>[1-3])|(?:conv|bn)1(?:_(?P<position>[0-7])|_conv|_bn)?"
)
STEM_POOL = re.compile(r"(?:conv|bn)2(?:_[01])?")
STEM_POOL_BLOCK = re.compile(r"(?:stem2|conv2)_(?:conv|bn)(?P<number>[1-4])")


@dataclass(frozen=True, slots=True)
class OfficialName:
    """A parsed name. stage: 0 outside of blocks. block: None in a transition. layer: the rest.

    group: "h2h" .. "l2l", "h", "l" or "" (plain). field: this package's name of the tensor within
    its layer.
    """

    stage: int
    block: int | None
    layer: str
    group: str
    field: str
    is_norm: bool

    @classmethod
    def parse(cls, name: str) -> "OfficialName":
        bare = PREFIX.sub("", name)
        match = BLOCK.fullmatch(bare)
        stage, block, rest = (int(match[1]), match[2], match[3]) if match else (0, None, bare)
        words = [word for word in re.split(r"[._-]", rest) if word not in FILLERS]
        field = words.pop() if words else ""
        group = words.pop() if words and (words[-1] in GROUPS or words[-1] in PATHS) else ""
        if field not in FIELDS or (field in NORM_FIELDS and group in PATHS):
            raise no_parameter(name)
        number = None if block is None else int(block)
        return cls(stage, number, "_".join(words), group, FIELDS[field], field in NORM_FIELDS)

    @property
    def kind(self) -> str:
        return "bn" if self.is_norm else "conv"

    @property
    def place(self) -> str:
        """Within an octave layer: conv.h2h .. conv.l2l, bn.high, bn.low."""
        return f"bn.{GROUPS[self.group or 'h']}" if self.is_norm else f"conv.{self.group or 'h2h'}"


def no_parameter(name: str) -> CheckpointError:
    return CheckpointError(f"{name[:80]} is no parameter of an official OctConv network")


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

    The network must be the file's, like `create_model("resnet50", alpha=0.25)`. Raises
    CheckpointError, and leaves the network unchanged, for a damaged file, for one that does not
    fit, and if BN eps or the way of taking strides differ, with the option to change.
    """
    weights = read_official(path)
    _check_fit(model, weights.state, str(path))
    _check_assumptions(model, weights, str(path))
    model.load_state_dict(weights.state, strict=False)


def read_official(path: str | Path) -> OfficialWeights:
    """The weights of an official checkpoint, and what they assume. Raises as `load_official`."""
    arrays = read_params(path)
    by_symbol = any(name.startswith(("arg:", "aux:")) for name in arrays)
    state = to_state(arrays)
    check_finite(state, str(path))
    # Only plain layers by symbol have the stride of a strided convolution themselves.
    pools = not by_symbol or any(OfficialName.parse(name).group in PATHS for name in arrays)
    return OfficialWeights(
        state=state,
        bn_eps=1e-4 if by_symbol else 1e-5,
        downsample="pool" if pools else "stride",
        mean=SYMBOL_MEAN if by_symbol else GLUON_MEAN,
        std=SYMBOL_STD if by_symbol else GLUON_STD,
    )


def _check_assumptions(model: nn.Module, weights: OfficialWeights, source: str) -> None:
    eps = {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    if eps != {weights.bn_eps}:
        raise CheckpointError(
            f"{source}: was trained with a BN eps of {weights.bn_eps:g}, the network has"
            f" {min(eps):g}; build it with bn_eps={weights.bn_eps:g}"
        )
    # The stem stands before the pair and is strided everywhere.
    strided = {
        n: m for n, m in model.named_modules() if isinstance(m, OctConv2d) and m.stride[-1] == 2
    }
    strided = {name: module for name, module in strided.items() if not name.startswith("stem.")}
    if any(module.downsample != weights.downsample for module in strided.values()):
        raise CheckpointError(
            f"{source}: downsamples by {weights.downsample}; build the network with"
            f" downsample={weights.downsample!r}"
        )
    in_residual = {name.split(".")[-2] for name in strided if name.startswith("res")} - {"shortcut"}
    is_deep = any(name.startswith("stem.before.") for name in weights.state)
    if in_residual - {"expand" if is_deep else "spatial"}:
        raise CheckpointError(
            f"{source}: has the strides of its stages at the {'last 1x1' if is_deep else '3x3'}; "
            f"build the network with stride_1x1=False, stride_last={is_deep}"
        )


def _check_fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """`state` must name every parameter and BN average of `model` and no other, in its shapes."""
    own = shapes_of(model.state_dict())
    wrong = sorted(name for name in own.keys() & state.keys() if own[name] != state[name].shape)
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{source}: {name} is {tuple(state[name].shape)}, in the network"
            f" {own[name]} (and {len(wrong) - 1} more differ); build the network with"
            " the file's name, alpha, width and num_classes"
        )
    if own.keys() != state.keys():
        lacks, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise CheckpointError(
            f"{source}: is of another network: it lacks {len(lacks)} tensors"
            f" ({', '.join(lacks[:2])}) and has {len(extra)} more ({', '.join(extra[:2])})"
        )


def to_state(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Official names and arrays to this package's names and float32 tensors."""
    names = {name: OfficialName.parse(name) for name in arrays}
    places = _Places(list(names.values()))
    found: dict[tuple[str, str], Tensor] = {}
    for name, parsed in names.items():
        place = places.find(parsed)
        if place is None:
            raise no_parameter(name)
        # By symbol the squeeze has a matrix for each group.
        key = (place, parsed.group if place.endswith("squeeze.weight") else "")
        if key in found:
            raise CheckpointError(f"{name} names a tensor that the file holds already")
        tensor = torch.from_numpy(arrays[name].astype(np.float32))
        # Gluon's classifier and squeeze-excite are 1x1 convolutions, ours are linear.
        is_linear = place == "head.fc.weight" or ".excite." in place
        found[key] = tensor.flatten(1) if is_linear and tensor.dim() == 4 else tensor
    return _fold_constants(_join_squeezes(found))


def _fold_constants(state: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return fold_shortcut_biases(fold_whitening(state))
    except (
        KeyError,
        IndexError,
        RuntimeError,
    ) as error:  # a norm is missing, or has another number of channels
        raise CheckpointError(
            f"the whitening norms or shortcut biases do not fit the other layers ({error}); "
            "this is no file of an official OctConv network"
        ) from error


def _join_squeezes(found: Mapping[tuple[str, str], Tensor]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for (place, _), tensor in sorted(
        found.items(), key=lambda item: item[0]
    ):  # high (h2h) before low (l2h)
        if place in state and (
            {tensor.dim(), state[place].dim()} != {2} or state[place].shape[:1] != tensor.shape[:1]
        ):
            raise CheckpointError(
                f"{place} has parts of the shapes {tuple(state[place].shape)},"
                f" {tuple(tensor.shape)}"
            )
        state[place] = torch.cat([state[place], tensor], 1) if place in state else tensor
    return state


class _Places:
    """The places of a file's tensors in the network, as far as only all of its names together show
    them."""

    def __init__(self, names: Sequence[OfficialName]) -> None:
        in_blocks = [name for name in names if name.stage]
        self.family = _family(in_blocks)
        self.by_symbol = min((name.stage for name in in_blocks), default=1) == 2
        self.is_deep = any(_stem_layer(name.layer) == 2 for name in names if not name.stage)
        order = sorted({(name.stage, name.block or 0) for name in in_blocks})
        self.order = {block: number for number, block in enumerate(order, start=1)}

    def find(self, name: OfficialName) -> str | None:
        """Our name of the tensor, or None where no network has such a layer."""
        place = self._in_block(name) if name.stage else self._outside(name)
        return None if place is None else f"{place}.{name.field}"

    def _in_block(self, name: OfficialName) -> str | None:
        if match := SE_LAYER.fullmatch(name.layer):
            gate = "gate_low" if name.group in ("l", "h2l") else "gate_high"
            return f"{self._block(name)}.excite.{'squeeze' if match['number'] == '1' else gate}"
        match = LAYER.fullmatch(name.layer)
        role = match and ROLES[self.family].get(match["number"])
        if match is None or role is None:
            return None
        place = name.place.replace("bn.", "whiten.") if match["whiten"] else name.place
        if not match["number"]:
            return f"stages.transition{self._stage(name)}.{place}"
        return f"{self._block(name)}.{role}.{place}"

    def _stage(self, name: OfficialName) -> int:
        return name.stage if self.by_symbol else name.stage + 1

    def _block(self, name: OfficialName) -> str:
        number = (name.block or 0) - self.by_symbol
        if self.family.startswith("mobilenet"):
            return f"blocks.block{self.order[name.stage, name.block or 0]}"
        if self.family == "resnet":
            return f"res{self._stage(name)}.block{number}"
        # In gluon a stage's transition is its block 0.
        has_transition = not self.by_symbol and name.stage > 1
        return f"stages.dense{self._stage(name)}.layer{number - has_transition}"

    def _outside(self, name: OfficialName) -> str | None:
        if name.layer in ("classifier", "classifer"):
            return "head.fc"
        if TAIL.fullmatch(name.layer):
            return f"tail.{name.kind}" if self.family == "mobilenet_v2" else "tail.high"
        if match := STEM_POOL_BLOCK.fullmatch(name.layer):
            return f"stem.pool.block.{ROLES['resnet'][match['number']]}.{name.place}"
        if STEM_POOL.fullmatch(name.layer):
            return f"stem.pool.{name.kind}"
        layer = _stem_layer(name.layer)
        if layer is None:
            return None
        if self.family == "densenet":
            return f"stem.{name.place}"
        return (
            f"stem.before.{layer}.{name.kind}"
            if self.is_deep and layer < 2
            else f"stem.{name.kind}"
        )


def _family(names: Sequence[OfficialName]) -> FamilyName:
    matches = [LAYER.fullmatch(name.layer) for name in names]
    numbers = {match["number"] for match in matches if match}
    if "" in numbers:
        return "densenet"
    if "4" in numbers:
        return "resnet"
    return "mobilenet_v2" if "3" in numbers else "mobilenet_v1"


def _stem_layer(layer: str) -> int | None:
    """The index of a stem convolution: 0, 1, 2 for conv1.0, .3, .6 and for stem_conv1, 2, 3."""
    match = STEM.fullmatch(layer)
    if match is None:
        return None
    return int(match["number"]) - 1 if match["number"] else int(match["position"] or 0) // 3
