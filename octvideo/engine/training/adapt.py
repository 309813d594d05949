"""Changes for training that a network need not know of: frozen stages, frozen or synchronized batch
norm, activation checkpointing. Each changes the model in place and keeps its parameters' names and
values."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from octvideo.engine.distributed import total_with_gradient
from octvideo.errors import ConfigError, did_you_mean


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
    """Make every batch norm see the clips of all ranks. For more than one process only.

    Raises ConfigError, before anything is changed, for a batch norm of a class derived from
    torch's: what it computes cannot be synchronized, and would be of each rank's own clips. One
    that is a SyncBatchNorm, or has "Sync" in its name as pytorchvideo's have, does it itself.
    """
    for path, module in model.named_modules():
        if (
            isinstance(module, _BatchNorm)
            and type(module) not in SYNCHRONIZED
            and not isinstance(module, (*SYNCHRONIZED.values(), nn.SyncBatchNorm))
            and "Sync" not in type(module).__name__
        ):
            raise ConfigError(
                f"{path} is a {type(module).__name__}; only torch's own classes of batch norm can"
                " be synchronized: use one of them, or set BN.NORM_TYPE batchnorm"
            )
    # In place: an optimizer may hold the parameters, and a hook may compute them.
    for module in model.modules():
        if type(module) not in SYNCHRONIZED:
            continue
        if device.type == "cuda":
            module.__class__ = nn.SyncBatchNorm
            module.process_group = None  # type: ignore[assignment]  # all ranks
        else:
            module.__class__ = SYNCHRONIZED[type(module)]


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

    def run(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)

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


class _AcrossRanks(_BatchNorm):
    """Batch statistics over all ranks, on any device; parameters, buffers and evaluation are those
    of the class it is mixed into.

    torch's SyncBatchNorm refuses the CPU; pytorchvideo's naive one keeps the biased variance, so
    its running statistics are not those of a single process.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        x = input.float()
        clips = x.new_tensor([x.numel() / x.shape[1]])
        sums = total_with_gradient(torch.cat([x.sum(axes), clips]))
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centered = x - mean.view(shape)
        var = total_with_gradient((centered * centered).sum(axes)) / count
        if self.track_running_stats:
            self._track(mean.detach(), var.detach() * count / (count - 1))
        out = centered * torch.rsqrt(var + self.eps).view(shape)
        out = out * self.weight.view(shape) + self.bias.view(shape) if self.affine else out
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        factor = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(unbiased_var, factor)


class SyncBatchNorm1d(_AcrossRanks, nn.BatchNorm1d):
    pass


class SyncBatchNorm2d(_AcrossRanks, nn.BatchNorm2d):
    pass


class SyncBatchNorm3d(_AcrossRanks, nn.BatchNorm3d):
    pass


SYNCHRONIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncBatchNorm1d,
    nn.BatchNorm2d: SyncBatchNorm2d,
    nn.BatchNorm3d: SyncBatchNorm3d,
}
