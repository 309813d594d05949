"""Layers of a network by name, and their outputs in a forward pass."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import Tensor, nn

from octvideo import counted_run
from octvideo.errors import ConfigError, did_you_mean
from octvideo.layers import OctTensor, as_pair

Feature = Tensor | OctTensor


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule `name`, as "res3" or "res4.block0.spatial.conv"; of a SlowFast, "res3" is that
    of the slow pathway.

    Raises ConfigError with the nearest name.
    """
    modules = dict(model.named_modules())
    if name in modules and name:
        return modules[name]
    if f"slow.{name}" in modules:  # of a SlowFast, the pathway with the channels
        return modules[f"slow.{name}"]
    hint = did_you_mean(
        name, modules, otherwise=f"it has {', '.join(dict(model.named_children()))}"
    )
    raise ConfigError(f"there is no layer {name!r} in this network; {hint}")


def groups_of(feature: Feature) -> dict[str, Tensor]:
    """{"high": x, "low": x}, without "low" where a feature has none."""
    pair = as_pair(feature)
    return {"high": pair.high} | ({} if pair.low is None else {"low": pair.low})


def captured(model: nn.Module, names: Sequence[str]) -> AbstractContextManager[dict[str, Feature]]:
    """A context whose forward passes store the outputs of these layers in the dict, by name."""
    return counted_run.captured({name: find_layer(model, name) for name in names})
