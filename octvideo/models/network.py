"""What a network says of itself, so that folding and recomputation need not know its parts.

A module whose batch norms stand right behind convolutions declares `norm_follows`, {norm: convolution} by their names
below it. A module that is worth computing twice instead of being remembered declares `may_be_recomputed = True`.
"""

from collections.abc import Iterator

from torch import nn


def norms_behind_convolutions(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(module that holds a norm, the norm's name in it, the convolution whose output it normalizes)."""
    for module in model.modules():
        for norm, convolution in getattr(module, "norm_follows", {}).items():
            holder, _, name = norm.rpartition(".")
            yield module.get_submodule(holder), name, module.get_submodule(convolution)


def recomputable_parts(model: nn.Module) -> list[nn.Module]:
    """The outermost modules that may be computed again in the backward pass."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if getattr(module, "may_be_recomputed", False) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    return found
