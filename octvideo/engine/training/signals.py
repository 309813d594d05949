"""SIGTERM, SIGHUP and Ctrl-C ask a run to stop at a safe place; a second Ctrl-C ends it."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(BaseException):
    """Raised where a run stops for a signal. It is no Exception, which code may swallow."""


class StopRequest:
    """`with` installs the handlers. `signal_name` is None until a signal asked to stop."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._leave_at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                # nohup has it ignored, and so it stays.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def leave_at_once(self) -> Iterator[None]:
        """A context in which the first signal raises Stopped immediately, on entry if it has come
        before: for long work without side effects, such as validation."""
        self._leave_at_once = True
        try:
            if self.signal_name is not None:
                raise Stopped
            yield
        finally:
            self._leave_at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if (
            os.getpid() != self._process
        ):  # a forked loader worker inherits the handler; its parent ends it by SIGTERM
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.signal_name is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return  # the run is stopping: nothing interrupts what it puts in order
        self.signal_name = signal.Signals(number).name
        if self._leave_at_once:
            raise Stopped
