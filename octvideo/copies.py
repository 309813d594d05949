"""Copies of networks whose modules hold tensors that are neither parameters nor buffers.

The hooks of `torch.nn.utils.weight_norm`, `spectral_norm` and `prune` keep the weight that they
compute as such a tensor. It has a gradient, and torch copies none that has.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from octvideo.errors import ConfigError

M = TypeVar("M", bound=nn.Module)
Copy = Callable[[Tensor, dict[int, Any]], Tensor]


def computed_by_hooks(module: nn.Module) -> dict[str, str]:
    """The weights that a hook of torch computes before each call of the module: their names, and
    the call that turns each into a parameter again."""
    found = {}
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            found[hook.name] = f"remove_weight_norm(module, {hook.name!r})"
        elif isinstance(hook, SpectralNorm):
            found[hook.name] = f"remove_spectral_norm(module, {hook.name!r})"
        elif isinstance(hook, BasePruningMethod):
            found[hook._tensor_name] = f"prune.remove(module, {hook._tensor_name!r})"
    return found


def plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Its own attributes that are tensors, but neither parameters nor buffers."""
    return {name: x for name, x in vars(module).items() if isinstance(x, Tensor)}


def drop_data(model: nn.Module) -> None:
    """Put its plain tensors on the meta device, but for those whose content a forward may read:
    integers, masks and scalars."""
    for module in model.modules():
        for name, tensor in plain_tensors(module).items():
            if tensor.is_floating_point() and tensor.dim():
                vars(module)[name] = torch.empty_like(tensor, device="meta")


def copied(model: M) -> M:
    """A deep copy. A weight that a hook of torch computes is copied as it is at the moment; the
    copy's own hook computes it anew, with a gradient, when the copy is called.

    Raises ConfigError for another tensor that was computed with a gradient: the copy could not
    follow the parameters that it was computed from.
    """
    with computed_weights_copied(model):
        return copy.deepcopy(model)


@contextmanager
def computed_weights_copied(model: nn.Module) -> Iterator[None]:
    """A context in which `copy.deepcopy` copies `model` as `copied` does."""
    computed = {
        id(getattr(module, name))
        for module in model.modules()
        for name in computed_by_hooks(module)
    }
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            tensors = [x for x in pytree.tree_leaves(value) if isinstance(x, Tensor)]
            if any(not x.is_leaf and id(x) not in computed for x in tensors):
                raise ConfigError(
                    f"{path}.{name}".lstrip(".") + " is a tensor that was computed with a gradient,"
                    " which a copy of the network would lose; compute it in forward, or keep it"
                    " detached"
                )
    with copying(lambda x, memo: copy.deepcopy(x.detach() if id(x) in computed else x, memo)):
        yield


@contextmanager
def copying(make: Copy) -> Iterator[None]:
    """A context in which `copy.deepcopy` makes the copy of each tensor that is no parameter by
    `make(tensor, memo)`."""
    with _Copying(make):
        yield


class _Copying(TorchFunctionMode):
    def __init__(self, make: Copy) -> None:
        super().__init__()
        self.make = make

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            return self.make(*args)
        return func(*args, **(kwargs or {}))
