"""Containers and name prefixes that programs put around weights, and the one rule that removes
them.

    {"state_dict": {"module._orig_mod.conv1.weight": ...}, "epoch": 3}  ->  {"conv1.weight": ...}
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from octvideo.errors import CheckpointError

# Where files keep weights: this package and PySlowFast; torchvision, timm, Lightning, examples of
# PyTorch; Caffe2.
CONTAINERS = (
    *("model_state", "model_state_dict", "state_dict", "model", "module", "weights"),
    "blobs",
)
AVERAGES = ("ema_state", "model_ema", "state_dict_ema", "ema")  # and moving averages of them
# What wrappers put before every name: DDP and AveragedModel, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.")
# What FSDP and recomputation put before the names of the modules that they wrap, wherever these
# stand.
INFIXES = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
COUNTERS = ("n_averaged",)  # of AveragedModel; no weight
# Files of a Caffe2 network hold momenta and counters too.
CAFFE2_WEIGHT = re.compile(r"_(w|b|bn_s|bn_b|bn_rm|bn_riv)$")

State = dict[str, Tensor]


def find(content: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    """The first key that holds named entries."""
    return next((k for k in keys if isinstance(content.get(k), Mapping) and content[k]), None)


def unwrap(content: Mapping[str, Any], *, own: bool = False) -> tuple[State, list[str]]:
    """The tensors in nested containers, without the prefixes of wrappers; and what was removed.

    own: this package wrote them, by the names of their network, which stay.
    """
    removed: list[str] = []
    while key := find(content, (*AVERAGES, *CONTAINERS)):
        removed.append(key)
        content = content[key]
    tensors = {
        str(name): value
        for name, value in content.items()
        if isinstance(value, Tensor) and name not in COUNTERS
    }
    if "blobs" in removed:
        tensors = {name: tensor for name, tensor in tensors.items() if CAFFE2_WEIGHT.search(name)}
    if own:
        return tensors, removed
    tensors, prefixes = without_prefixes(tensors)
    return tensors, removed + prefixes


def without_prefixes(tensors: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """Remove the prefixes that all names begin with, in any order and number, and `INFIXES`; and
    return which."""
    names = "\n".join(tensors)
    removed = [text for text in INFIXES if text in names]
    state = dict(tensors)
    for text in removed:
        state = {name.replace(text, ""): tensor for name, tensor in state.items()}
    while prefix := _common_prefix(state):
        removed.append(prefix)
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state, removed


def named_as(
    network: Mapping[str, Tensor], tensors: Mapping[str, Tensor], removed: Sequence[str] = ()
) -> tuple[State, list[str]]:
    """Tensors without the prefixes of wrappers, but with those that all names of a network begin
    with: they are its own.

    network: its state dict. removed: what was removed from the names before. Returns what is
    removed from them now.
    """
    state, more = without_prefixes(tensors)
    left = [*removed, *more]
    own = [text for text in without_prefixes(network)[1] if text in PREFIXES]
    for prefix in own:
        if prefix in left:
            left.remove(prefix)
    return {"".join([*own, name]): tensor for name, tensor in state.items()}, left


def _common_prefix(state: Collection[str]) -> str:
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            return prefix
    return ""


def clear_names(tensors: Mapping[str, Tensor], texts: Sequence[str]) -> tuple[State, list[str]]:
    """Remove these texts from the names, wherever they occur, then the prefixes that appear; and
    return which."""
    removed, state = [], dict(tensors)
    for text in texts:
        if text and any(text in name for name in state):
            removed.append(text)
            state = {name.replace(text, ""): tensor for name, tensor in state.items()}
    state, prefixes = without_prefixes(state)
    return state, removed + prefixes


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise CheckpointError for a weight that is NaN or infinite, by its name."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise CheckpointError(
                f"{source}: {name} has {count} of {tensor.numel()} values that are NaN or infinite;"
                " take an earlier checkpoint"
            )
