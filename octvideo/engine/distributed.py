"""Processes: which one am I, and the few things that all do together. The only importer of
torch.distributed.

Under torchrun every process reads its place from the environment; without it the same calls are
those of one process. Tensors on the CPU travel over gloo and tensors on a GPU over nccl, so flags
are agreed upon without waiting for a GPU.
"""

import faulthandler
import gc
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from octvideo.engine.liveness import Liveness
from octvideo.errors import DEADLY, OctvideoError

T = TypeVar("T")

LEAVING_SECONDS = 60.0
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Processes:
    """This process among its peers. `Processes()` is a single process on the CPU."""

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
        """True without a group; a group of one rank is spoken to as any other."""
        return self.world_size == 1 and not dist.is_initialized()

    def barrier(self) -> None:
        if not self.alone:
            dist.barrier()

    def any_of(self, *flags: bool) -> list[bool]:
        """Per flag: is it raised on any rank?"""
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
        """Raise OctvideoError on every rank where one has other facts than rank 0: which, and what
        differs."""
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

    def share_buffers(self, model: nn.Module) -> None:
        """Rank 0's buffers (batch norm statistics) on every rank."""
        if not self.alone:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def average_buffers(self, model: nn.Module) -> None:
        """The mean over ranks of every floating buffer, on every rank."""
        if not self.alone:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.world_size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over ranks; itself for one process or without trainable
        parameters."""
        if self.alone or not any(p.requires_grad for p in model.parameters()):
            return model
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.register_hook(partial(_described_as, parameter.stride()))  # type: ignore[no-untyped-call]
        return DistributedDataParallel(
            model, device_ids=[self.device.index] if self.device.type == "cuda" else None
        )


def this_process(device: str = "auto") -> Processes:
    """Its place among those that torchrun started, or alone. device: auto, cpu or cuda."""
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", local_rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if world_size == 1:
        return Processes(device=place)
    return Processes(
        rank=int(_told("RANK")),
        world_size=world_size,
        local_rank=local_rank,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        device=place,
    )


def _told(name: str) -> str:
    """What a launcher says of this process."""
    try:
        return os.environ[name]
    except KeyError:
        raise OctvideoError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and {name} is not set; start the ranks with"
            " torchrun, or unset WORLD_SIZE"
        ) from None


def _join(procs: Processes, liveness: Liveness, timeout: timedelta) -> None:
    """Meet the others and make a group with them; from the moment when they have met, each hears of
    each.

    torchrun keeps one store over its restarts, so a new process may find the address of a dead one
    there (pytorch issue 135712). The number of the restart does not tell them apart: each machine
    counts its own. So the ranks agree upon a name for this start.
    """
    rank, size = procs.rank, procs.world_size
    host, port = _told("MASTER_ADDR"), int(_told("MASTER_PORT"))
    from_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

    def connection(is_master: bool = False) -> Any:
        # The launcher's store is there before its ranks are; without it the launcher has gone.
        patience = timedelta(seconds=CONNECT_SECONDS) if from_launcher else timeout
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]
                host, port, is_master=is_master, wait_for_workers=False, timeout=patience
            )
        except RuntimeError as error:
            raise OctvideoError(
                f"{host}:{port}, where the ranks meet, cannot be used"
                f" ({str(error).splitlines()[0][:100]}); has the launcher gone? Start all ranks"
                " again"
            ) from error
        store.set_timeout(timeout)
        return store

    store = connection(is_master=rank == 0 and not from_launcher)
    name = name_start(store, rank, size, liveness.met)
    liveness.join(dist.PrefixStore(f"octvideo/{name}", connection()))  # type: ignore[attr-defined]
    dist.init_process_group(
        backend_of(procs.device),
        store=dist.PrefixStore(name, store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=timeout,
    )


def backend_of(device: torch.device) -> str:
    """What tensors travel over: those on the CPU over gloo, those on a GPU over nccl."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def name_start(store: Any, rank: int, world_size: int, met: set[int]) -> str:
    """A name that the ranks of this start of a run agree upon, in a store with the leavings of
    those before.

    Every rank calls under a name of its own; rank 0 answers each call it finds, also those of the
    dead, until all that are alive have heard it. met: is filled with them.
    """
    own = uuid4().hex
    if rank:
        store.set(f"octvideo/call_{rank}", own)
        start = store.get(f"octvideo/answer_{own}").decode()
        store.set(f"octvideo/heard_{start}_{rank}", "")
        return start
    answered: set[str] = set()
    while missing := set(range(1, world_size)) - met:
        keys = [f"octvideo/call_{other}" for other in missing]
        calls = [key for key in keys if store.check([key])]
        for caller in {store.get(key).decode() for key in calls} - answered:
            store.set(f"octvideo/answer_{caller}", own)
            answered.add(caller)
        met |= {other for other in missing if store.check([f"octvideo/heard_{own}_{other}"])}
        time.sleep(0.01)
    return own


@contextmanager
def processes(
    device: str = "auto",
    timeout_minutes: float = 30,
    silence_seconds: float = 120,
    trouble: Callable[[], str] = lambda: "",
) -> Iterator[Processes]:
    """Join the processes of this run, and leave the group at the end.

    silence_seconds: after which a rank that is not heard of ends the others (`liveness`). trouble:
    why this rank keeps the others waiting without end, "" while it does not; asked by a thread.
    """
    procs = this_process(device)
    if procs.world_size == 1:
        try:
            yield procs
        except BaseException as error:
            _forget_locals(error)
            raise
        return
    liveness = Liveness(procs.rank, procs.world_size, silence_seconds, trouble)
    liveness.start()
    failure = "with an error of its own"
    try:
        _join(procs, liveness, timedelta(minutes=timeout_minutes))
        yield procs
        failure = ""
    except SystemExit as stop:
        failure = f"with exit status {stop.code}" if stop.code else ""
        raise
    except OctvideoError as error:
        failure = str(error)
        raise
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        failure = "because another process ended"
        reason = liveness.reason() or f"another process ended ({_short(error)})"
        raise OctvideoError(
            f"stopped: {reason}; the same command continues from the last checkpoint"
        ) from error
    finally:
        if failure:
            _let_the_line_come_first()
        liveness.leave(failure)
        _leave_group(sys.exc_info()[1])


def _let_the_line_come_first() -> None:
    """This process is ending, and will say why: the launcher's SIGTERM, sent where another rank
    ended, is late."""
    if threading.current_thread() is threading.main_thread():
        for number in DEADLY:
            signal.signal(number, lambda *_: None)  # not SIG_IGN, which children would inherit


def is_lost_peer(error: RuntimeError) -> bool:
    """Is it gloo's or nccl's word for a rank that has gone?"""
    lost = ("connection closed", "connection reset", "broken pipe", "timed out", "nccl", "gloo")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in lost)


def _short(error: RuntimeError) -> str:
    """Gloo's own sentence, without its source line and its advice."""
    first = str(error).splitlines()[0]
    found = re.search(r"(connection|broken pipe|timed out)[^.]*", first, re.IGNORECASE)
    return found.group() if found else first[:100]


def _leave_group(error: BaseException | None) -> None:
    """Drop what holds the group, then the group.

    A DistributedDataParallel that is freed later holds the last reference: the group's destructor
    would then wait for a thread that waits for the GIL. A C thread that needs no GIL ends a process
    that hangs here all the same.
    """
    _forget_locals(error)
    gc.collect()
    if dist.is_initialized():
        faulthandler.dump_traceback_later(LEAVING_SECONDS, exit=True)
        dist.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()


def _forget_locals(error: BaseException | None) -> None:
    """Empty the finished frames that an error and its causes hold; what is printed of it stays."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _described_as(stride: tuple[int, ...], gradient: Tensor) -> Tensor:
    """The gradient with its parameter's strides, where only axes of size 1 tell them apart.

    A 1x1 kernel has several descriptions of one layout; torch's reducer warns of them as if they
    were several layouts.
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
    """Sum over ranks; backward sums the gradients of all ranks in turn."""
    return _Total.apply(values) if dist.is_initialized() else values  # type: ignore[no-untyped-call]


def without_sync(network: nn.Module) -> AbstractContextManager[None]:
    """Inside, backward leaves gradients local: for all but the last part of an accumulated
    batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()
