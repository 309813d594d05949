"""Layers of a network by name, and their outputs in a forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from octvideo.errors import ConfigError, did_you_mean
from octvideo.layers import OctTensor

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


@contextmanager
def captured(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Feature]]:
    """A context in which each forward pass stores the outputs of these layers in the dict, by
    name."""
    found: dict[str, Feature] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        return lambda _module, _inputs, output: found.__setitem__(name, output)

    handles = [find_layer(model, name).register_forward_hook(keep(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
