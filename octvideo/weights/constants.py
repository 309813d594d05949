"""Constants that official layers add, folded into the running mean of the batch norm that follows.

A batch norm subtracts its running mean, so a constant c added to its input is equivalent to a
running mean that is lower by c. Strided official layers pool before they convolve, which leaves a
constant unchanged.
"""

import re
from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]

WHITEN_SHIFT = re.compile(r"(.+)\.whiten\.high\.bias")
SHORTCUT_BIAS = re.compile(r"res(\d)\.block0\.shortcut\.conv\.h2([hl])\.bias")
GROUP_NAMES = {"h": "high", "l": "low"}


def fold_whitening(state: Mapping[str, Tensor]) -> State:
    """Remove the gamma and beta of whitening norms: the official code takes gamma as 1 and adds
    beta.

    beta passes through the 1x1 convolution that follows, and the result is subtracted from the
    running mean of that layer's norm.
    """
    folded = {
        name: tensor
        for name, tensor in state.items()
        if not re.search(r"\.whiten\.\w+\.(weight|bias)$", name)
    }
    for name in state:
        if match := WHITEN_SHIFT.fullmatch(name):
            for end, group in GROUP_NAMES.items():
                shift = _through_convolution(state, match[1], end)
                if shift is not None:
                    mean = f"{match[1]}.bn.{group}.running_mean"
                    folded[mean] = folded[mean] - shift
    return folded


def _through_convolution(state: Mapping[str, Tensor], layer: str, end: str) -> Tensor | None:
    """What both groups' constants add to the output group `end` ("h", "l") of a 1x1 convolution."""
    parts = [
        weight.flatten(1) @ state[f"{layer}.whiten.{group}.bias"]
        for start, group in GROUP_NAMES.items()
        if (weight := state.get(f"{layer}.conv.{start}2{end}.weight")) is not None
    ]
    return sum(parts[1:], parts[0]) if parts else None


def fold_shortcut_biases(state: Mapping[str, Tensor]) -> State:
    """Remove the biases of shortcut convolutions, which the gluon pre-activation networks have.

    Such a bias stays in the sum of a stage's blocks, until the norms that read this sum subtract
    it.
    """
    folded = {name: t for name, t in state.items() if not SHORTCUT_BIAS.fullmatch(name)}
    for name in state:
        if match := SHORTCUT_BIAS.fullmatch(name):
            for norm in _readers(state, int(match[1])):
                mean = f"{norm}.{GROUP_NAMES[match[2]]}.running_mean"
                folded[mean] = folded[mean] - state[name]
    return folded


def _readers(state: Mapping[str, Tensor], stage: int) -> list[str]:
    """The norms that read the sum of a pre-activation stage's blocks."""
    pattern = re.compile(rf"(res{stage}\.block[1-9]\d*\.reduce\.bn)\.high\.running_mean")
    inside = [match[1] for name in state if (match := pattern.fullmatch(name))]
    if f"res{stage + 1}.block0.reduce.bn.high.running_mean" not in state:
        return [*inside, "tail"]
    following = f"res{stage + 1}.block0"
    return [*inside, f"{following}.reduce.bn", f"{following}.shortcut.bn"]
