"""Run a model to look at what it computes, without changing it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which the model is in evaluation mode. A frozen script has none to put back."""
    modes = {m: m.training for m in model.modules() if hasattr(m, "training")}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def norms_left_out(model: nn.Module) -> AbstractContextManager[None]:
    """A context without batch norms: they change no size and count for nothing, and on the meta
    device they take most of the time."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return _computing(norms, lambda _, x: x)


def norms_not_computed(model: nn.Module) -> AbstractContextManager[None]:
    """A context in which torch's batch norms give tensors of the sizes of their outputs: without
    data, nothing else can be seen of them, and to compute it takes most of the time. They refuse
    what they always refuse."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [m for m in model.modules() if type(m) in kinds and "forward" not in vars(m)]
    return _computing(norms, _norm_output)


@contextmanager
def _computing(modules: Sequence[Any], forward: Callable[[Any, Tensor], Tensor]) -> Iterator[None]:
    """A context in which each of the modules gives forward(module, x)."""
    for module in modules:
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _norm_output(norm: Any, x: Tensor) -> Tensor:
    norm._check_input_dim(x)
    fits = x.shape[1] == norm.num_features != x.numel()
    return torch.empty_like(x) if fits else type(norm).forward(norm, x)


@contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """A context whose forward passes store the outputs of these modules in the dict, by name."""
    found: dict[str, Any] = {}
    with noting(modules, lambda name, _inputs, output: found.__setitem__(name, output)):
        yield found


@contextmanager
def noting(
    modules: Mapping[str, nn.Module], note: Callable[[str, tuple[Any, ...], Any], None]
) -> Iterator[None]:
    """A context in which each forward pass of these modules calls note(name, inputs, output)."""

    def hook(name: str) -> Any:
        return lambda _module, inputs, output: note(name, inputs, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def running(model: nn.Module, stack: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """A context in which `stack` names the modules that are running, the outermost first."""

    def make_enter(name: str) -> Any:
        return lambda module, args: stack.append((name, module))

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        stack.pop()

    handles: list[Any] = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(make_enter(name)))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, by name."""
    yield from model.named_parameters()
    yield from model.named_buffers()
