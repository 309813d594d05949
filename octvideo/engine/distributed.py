"""Collective operations of ranks. Only this module and `process_group` import torch.distributed.

Under torchrun every process reads its rank from the environment; without torchrun the calls are
those of a single process. CPU tensors are sent with gloo and GPU tensors with nccl, so that ranks
agree on flags without waiting for a GPU.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from octvideo.errors import OctvideoError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This rank, and collectives over all ranks. `ALONE` is a single process on the CPU."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """True without a process group; a group of one rank uses collectives as any other does."""
        return self.world_size == 1 and not dist.is_initialized()

    def barrier(self) -> None:
        if not self.alone:
            dist.barrier()

    def any_of(self, *flags: bool) -> list[bool]:
        """Whether each flag is True on any rank."""
        raised = torch.tensor(flags, dtype=torch.int32)
        if not self.alone:
            dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def total(self, values: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in rank order, on every rank."""
        if self.alone:
            return [value]
        values: list[T | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def agree(self, facts: Mapping[str, object]) -> None:
        """Raise OctvideoError on every rank if the facts of some rank differ from those of rank 0;
        the message says which and how."""
        first, *others = self.gather(dict(facts))
        for rank, own in enumerate(others, start=1):
            differing = [key for key in {**first, **own} if first.get(key) != own.get(key)]
            if differing:
                changes = [f"{key} {own.get(key)}, not {first.get(key)}" for key in differing[:5]]
                raise OctvideoError(
                    f"rank {rank} differs from rank 0: {'; '.join(changes)}; "
                    "start every rank with the same command, data and software"
                )

    def from_main(self, value: T) -> T:
        """Rank 0's value on every rank."""
        values = [value]
        if not self.alone:
            dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def made_by_main(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, on every rank; if it raises OctvideoError, so do all."""
        made: tuple[str, Any] = "", None
        error = None
        if self.is_main:
            try:
                made = "", make()
            except OctvideoError as reason:
                error, made = reason, (str(reason), None)
        problem, value = self.from_main(made)
        if error or problem:
            raise error or OctvideoError(problem)
        return value

    def share_buffers(self, model: nn.Module) -> None:
        """Rank 0's buffers (batch norm statistics) on every rank."""
        if not self.alone:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def average_buffers(self, model: nn.Module, weight: float = 1.0) -> None:
        """The mean over ranks of every floating buffer, on every rank.

        weight: of this rank's buffers; above 0 on some rank.
        """
        if not self.alone:
            total = float(self.total(torch.tensor(float(weight), device=self.device)))
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer *= weight * self.world_size / total  # 1 where all weigh the same
                    dist.all_reduce(buffer)
                    buffer /= self.world_size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model in DistributedDataParallel; itself for one process or without gradients."""
        if self.alone or not any(p.requires_grad for p in model.parameters()):
            return model
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.register_hook(partial(_described_as, parameter.stride()))  # type: ignore[no-untyped-call]
        wrapped = DistributedDataParallel(
            model, device_ids=[self.device.index] if self.device.type == "cuda" else None
        )
        _settle_buckets(wrapped)
        return wrapped


ALONE = Processes()


def _settle_buckets(wrapped: DistributedDataParallel) -> None:
    """Do the backward pass after which DDP lays out its buckets anew, before the first step.

    How the sum of more than two ranks rounds depends on where in a bucket a gradient lies, so the
    first step of a resumed run would round differently from that of a run that went on.
    """
    wrapped.reducer.prepare_for_backward([])
    # Roots made last are computed first: gradients become ready roughly as in a real backward pass.
    torch.autograd.backward([p.sum() for p in wrapped.parameters() if p.requires_grad])
    wrapped.zero_grad(set_to_none=True)


def this_process(device: str = "auto") -> Processes:
    """The rank of this process under torchrun, or a single process. device: auto, cpu or cuda."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        return Processes(device=place)
    return Processes(
        rank=int(from_launcher("RANK")),
        world_size=world_size,
        local_rank=local_rank,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        device=place,
    )


def from_launcher(name: str) -> str:
    """An environment variable that torchrun sets."""
    try:
        return os.environ[name]
    except KeyError:
        raise OctvideoError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {name} is not set; start the ranks with"
            " torchrun, or unset WORLD_SIZE"
        ) from None


def _described_as(stride: tuple[int, ...], gradient: Tensor) -> Tensor:
    """The gradient with its parameter's strides, where the two differ in axes of size 1 only.

    The memory layout of a 1x1 kernel can be described by several strides; torch's reducer warns of
    them as if they were different layouts.
    """
    wide = [axis for axis, size in enumerate(gradient.shape) if size > 1]
    if any(gradient.stride(axis) != stride[axis] for axis in wide):
        return gradient
    return gradient.as_strided(gradient.shape, stride)


class _Total(torch.autograd.Function):
    """Sum over ranks of a tensor, and in backward of its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total_with_gradient(gradient)


def total_with_gradient(values: Tensor) -> Tensor:
    """Sum over ranks; the backward pass sums the gradients over ranks."""
    return _Total.apply(values) if dist.is_initialized() else values  # type: ignore[no-untyped-call]


def without_sync(network: nn.Module) -> AbstractContextManager[None]:
    """A context in which the backward pass leaves gradients local: for all but the last batch of an
    accumulated one."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()
