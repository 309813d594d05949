"""Changes for training that a network need not know of: frozen stages, frozen or synchronized batch
norm, activation checkpointing. Each changes the model in place and keeps its parameters' names and
values."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from octvideo.engine.training.sync_bn import SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNorm3d
from octvideo.errors import ConfigError, did_you_mean

SYNCHRONIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncBatchNorm1d,
    nn.BatchNorm2d: SyncBatchNorm2d,
    nn.BatchNorm3d: SyncBatchNorm3d,
}


def freeze(model: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """Stop the training of modules by name ("stem", "res2.0"); returns them, for Trainer's
    `frozen`.

    In evaluation mode their batch norm statistics stay unchanged as well. Raises ConfigError for an
    unknown name.
    """
    modules = dict(model.named_modules())
    for name in prefixes:
        if name not in modules:
            parts = f"it has {', '.join(dict(model.named_children()))}"
            hint = did_you_mean(name, modules, otherwise=parts)
            raise ConfigError(f"the model has no part {name!r} to freeze; {hint}")
        modules[name].requires_grad_(False)
    return [modules[name] for name in prefixes]


def freeze_batch_norm(model: nn.Module) -> list[nn.Module]:
    """Stop the training of all batch norms; returns them, for Trainer's `frozen`."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.requires_grad_(False)
    return list[nn.Module](norms)


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm see the clips of all ranks. For more than one process only."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) not in SYNCHRONIZED:
                continue
            if device.type == "cuda":
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
            else:
                child.__class__ = SYNCHRONIZED[
                    type(child)
                ]  # the same parameters: an optimizer may hold them


def recompute_activations(modules: Iterable[nn.Module]) -> None:
    """Recompute the activations within each module in the backward pass: less memory, about 30 %
    more time.

    Names stay unchanged. A batch norm sees a batch twice and counts it once; dropout draws the same
    mask again.
    """
    for module in modules:
        module.forward = _recomputing(module)


def _recomputing(module: nn.Module) -> Callable[..., Any]:
    forward = module.forward

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_held(module)

    def run(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)

    return run


@contextmanager
def _statistics_held(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, copy.deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = tracked
