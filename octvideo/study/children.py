"""The processes in which a sweep trains: their shares of the machine, and their end."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO, NoReturn

import torch

from octvideo.engine.threads import available_cores
from octvideo.errors import DEADLY, OctvideoError


class TrialError(OctvideoError):
    """A run of a study ended without results."""


class Children:
    """Processes that several threads start and wait for. A context that an exception leaves ends
    them by SIGTERM, and none starts after it: orphans would hold the folders of their runs."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._changing, self._over = threading.Lock(), False

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changing:
            self._over = kind is not None
            for process in self._running if self._over else ():
                process.terminate()

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: IO[str]) -> int:
        """The exit status of a process. Raises TrialError if the context is over."""
        with self._changing:
            if self._over:
                raise TrialError("no run starts any more: the sweep is stopping")
            process = subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=log
            )
            self._running.add(process)
        try:
            return process.wait()
        finally:
            with self._changing:
                self._running.remove(process)


class _SignalledError(BaseException):
    """A signal has come. It is no Exception, which code may swallow."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A context that SIGTERM and SIGHUP leave by an exception; behind it they end the process as
    they would have."""
    came: list[int] = []

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        came.append(number)
        raise _SignalledError

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in DEADLY:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has it ignored
                before[number] = signal.signal(number, leave)
    try:
        yield
    except _SignalledError:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def share(slot: int, jobs: int) -> dict[str, str]:
    """A run's share of the machine: its GPU and its cores."""
    gpus = _gpus()
    own = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if jobs > 1 and len(gpus) > 1 else {}
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(available_cores() // jobs, 1))
    return own


def _gpus() -> list[str]:
    """CUDA's names of the GPUs that this process was given: numbers, or UUIDs."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if given is None else given.split(",")
    return [name.strip() for name in names][:count]
