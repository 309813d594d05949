"""The process group of a run: ranks connect, notice lost ranks, and leave without a hang."""

import faulthandler
import gc
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist

from octvideo.engine.distributed import Processes, from_launcher, this_process
from octvideo.engine.liveness import Liveness
from octvideo.errors import DEADLY, OctvideoError, first_line

LEAVING_SECONDS = 60.0
CONNECT_SECONDS = 10.0


def _join(procs: Processes, liveness: Liveness, timeout: timedelta) -> None:
    """Connect all ranks and create their process group; from then on `liveness` notices a lost
    rank.

    torchrun keeps one store over its restarts, so a new process may find the address of a dead one
    there (pytorch issue 135712). The number of the restart does not tell them apart: each machine
    counts its own. So the ranks agree on a name for this start.
    """
    rank, size = procs.rank, procs.world_size
    host, port = from_launcher("MASTER_ADDR"), int(from_launcher("MASTER_PORT"))
    agent_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

    def connection(is_master: bool = False) -> Any:
        # The launcher's store is there before its ranks are; without it the launcher has gone.
        patience = timedelta(seconds=CONNECT_SECONDS) if agent_store else timeout
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]
                host, port, is_master=is_master, wait_for_workers=False, timeout=patience
            )
        except RuntimeError as error:
            raise OctvideoError(
                f"{host}:{port}, where the ranks meet, cannot be used"
                f" ({first_line(error)}); has the launcher gone? Start all ranks"
                " again"
            ) from error
        store.set_timeout(timeout)
        return store

    store = connection(is_master=rank == 0 and not agent_store)
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
    """The backends of `init_process_group`: gloo for CPU tensors, nccl for GPU tensors."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def name_start(store: Any, rank: int, world_size: int, met: set[int]) -> str:
    """A name that the ranks of this start of a run agree on, in a store that still holds the keys
    of earlier starts.

    Every rank writes a key with a name of its own; rank 0 answers each key it finds, also those of
    dead ranks, until all living ranks have read their answer. met: is filled with the ranks that
    have.
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
    """Join the processes of this run, and leave the process group at the end.

    silence_seconds: a rank that has not counted up for so long ends the others (`liveness`).
    trouble: why this rank can never go on, "" while it can; a thread calls it.
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
        # When another rank fails, the launcher sends SIGTERM to all: this one prints why first.
        if failure and threading.current_thread() is threading.main_thread():
            for number in DEADLY:
                signal.signal(number, lambda *_: None)  # not SIG_IGN, which children would inherit
        liveness.leave(failure)
        _leave_group(sys.exc_info()[1])


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether gloo or nccl reports a rank that has gone."""
    lost = ("connection closed", "connection reset", "broken pipe", "timed out", "nccl", "gloo")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in lost)


def _short(error: RuntimeError) -> str:
    """Gloo's message without its source line and its advice."""
    first = first_line(error)
    found = re.search(r"(connection|broken pipe|timed out)[^.]*", first, re.IGNORECASE)
    return found.group() if found else first


def _leave_group(error: BaseException | None) -> None:
    """Drop all references to the process group, then destroy it.

    A DistributedDataParallel that is freed later would hold the last reference: the group's
    destructor would then wait for a thread that waits for the GIL. faulthandler's thread needs no
    GIL, and ends a process that hangs here nevertheless.
    """
    _forget_locals(error)
    gc.collect()
    if dist.is_initialized():
        faulthandler.dump_traceback_later(LEAVING_SECONDS, exit=True)
        dist.destroy_process_group()
        faulthandler.cancel_dump_traceback_later()


def _forget_locals(error: BaseException | None) -> None:
    """Clear the locals of finished frames in an error and its causes; it prints unchanged."""
    seen = list[BaseException]()  # `raise error from error` is its own cause
    while error is not None and error not in seen:
        traceback.clear_frames(error.__traceback__)
        seen.append(error)
        error = error.__cause__ or error.__context__
