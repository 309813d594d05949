"""Processes that read files, and that may hang or crash without harm.

Each worker receives tasks by number and sends back results. A thread in the parent hands out the
tasks, receives the results and watches the clock: a worker that reads one file for too long, or
dies, is replaced, its file goes on the bad list, and its tasks are given out again. Nothing else is
disturbed, and results come in the order of the tasks.

Workers come from a fork server, never from the parent: a decoder that the parent has used hangs in
forked children. Results are sent through pipes, not through /dev/shm, which containers limit to 64
MB.
"""

import ctypes
import multiprocessing
import signal
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import RawValue
from typing import Any

import torch
import torch.multiprocessing  # lets the tensors of a list be shared with the workers

from octvideo.data import reading, remote
from octvideo.data.loading.tensor_pipe import receive, send
from octvideo.errors import ConfigError, DataError, first_line

_TASKS_PER_WORKER = 2  # one being read, one waiting in the pipe
_MAX_UNEXPLAINED_DEATHS = 3
_PR_SET_PDEATHSIG = 1
_GUARD = 'let a script start workers below `if __name__ == "__main__":`'
_OF_THE_PARENT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ReaderPool:
    """num_workers processes that compute read(*task). `bad`: file -> how it hung or crashed one.

    A replaced worker's task runs again; `reading` then raises DecodeError for the file on the bad
    list, so `read` meets a hang or a crash as it meets any other file that cannot be read.
    """

    def __init__(
        self,
        read: Callable[..., Any],
        *,
        num_workers: int,
        timeout_seconds: float,
        prefetch: Callable[..., None] | None = None,
    ) -> None:
        """prefetch(*task): starts fetching the bytes that read(*task) will need, while the task
        before it is read. Raises ConfigError for fewer than one worker."""
        if num_workers < 1:
            raise ConfigError(f"{num_workers} loader workers; give 1 or more")
        self.bad: dict[str, str] = {}
        self._read, self._timeout, self._prefetch = read, timeout_seconds, prefetch
        self._context = multiprocessing.get_context("forkserver")
        # A worker imports what its parent's script does, each time anew unless the server has it.
        mine = [name for name in sys.modules if name.startswith("octvideo.")]
        self._context.set_forkserver_preload(["octvideo.data.clips.dataset", *mine])
        self._num_workers, self._unexplained = num_workers, 0
        self._workers = [self._start() for _ in range(num_workers)]

    def run(self, tasks: Sequence[tuple[Any, ...]], *, ahead: int) -> Generator[Any, None, None]:
        """read(*task) for each task, in order; at most `ahead` results wait. Exceptions of `read`
        are raised here. One run at a time: the one before is closed, or at its end."""
        self._workers += [self._start() for _ in range(self._num_workers - len(self._workers))]
        run = _Run(len(tasks), ahead)
        thread = threading.Thread(target=self._serve, args=(run, tasks), daemon=True)
        stop = util.Finalize(None, run.stop, exitpriority=1)  # at exit before workers are killed
        try:
            thread.start()
            for number in range(len(tasks)):
                yield run.take(number)
        finally:
            stop()
            # Left in the middle: what is still being read belongs to nobody.
            for worker in [worker for worker in self._workers if worker.tasks]:
                worker.kill()
                self._workers.remove(worker)

    def close(self) -> None:
        """End the processes. Another `run` starts new ones."""
        for worker in self._workers:
            worker.kill()
        self._workers, self._unexplained = [], 0

    def _start(self) -> "_Worker":
        """Raises DataError if no process can be started, or if this process is a worker itself."""
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise DataError(f"this process is a loader worker that runs the script anew; {_GUARD}")
        try:
            with _signals_held():
                return _Worker(self._context, self._read, self._prefetch, self.bad)
        except (OSError, EOFError, RuntimeError) as error:
            reason = first_line(error)
            remedy = "lower DATA_LOADER.NUM_WORKERS, or raise the limit (ulimit -n, /dev/shm)"
            if "AF_UNIX path too long" in reason:
                remedy = f"set TMPDIR to a folder of a shorter path than {tempfile.gettempdir()}"
            raise DataError(f"loader workers cannot be started ({reason}); {remedy}") from error

    def _serve(self, run: "_Run", tasks: Sequence[tuple[Any, ...]]) -> None:
        """The thread: it ends with the last result, an error, or when the consumer has left."""
        if not run.begin():
            return
        try:
            waiting = deque(range(len(tasks)))
            while not run.is_over():
                for worker in self._workers:
                    while (
                        waiting
                        and len(worker.tasks) < _TASKS_PER_WORKER
                        and run.has_room(waiting[0])
                    ):
                        number = waiting.popleft()
                        worker.give(number, tasks[number], self.bad)
                pipes = [run.wake_up, *(worker.pipe for worker in self._workers)]
                ready = wait(pipes, timeout=self._timeout / 4)
                if run.wake_up in ready:
                    run.heard()
                for worker in list(self._workers):
                    try:
                        if worker.pipe in ready:
                            run.put(*worker.receive())
                        elif path := worker.stuck_on(self._timeout):
                            cause = f"reading it did not end within {self._timeout:g} seconds"
                            self._retire(worker, waiting, path, cause)
                    except (EOFError, OSError):
                        self._retire(worker, waiting, *worker.how_it_died())
        except BaseException as error:
            run.fail(error)
        finally:
            run.end()

    def _retire(self, worker: "_Worker", waiting: deque[int], path: str, cause: str) -> None:
        """Replace a dead or stuck worker; its tasks come first again."""
        self._workers.remove(worker)  # first: the next `run` must not meet it if no other starts
        worker.kill()
        if path:
            self.bad[path] = cause
        else:
            self._unexplained += 1
            if self._unexplained > _MAX_UNEXPLAINED_DEATHS:
                how = cause.removeprefix("reading it ended the process ")
                raise DataError(
                    f"loader workers die without reading a file {how}; {_GUARD}, and make sure that"
                    " there is enough memory"
                )
        waiting.extendleft(reversed(worker.tasks))
        self._workers.append(self._start())


class _Run:
    """Results on their way from the thread to the consumer."""

    def __init__(self, num_tasks: int, ahead: int) -> None:
        self._missing, self._ahead = num_tasks, ahead
        self._taken = 0
        self._results: dict[int, Any] = {}
        self._error: BaseException | None = None
        self._stopped = self._running = self._is_alarmed = False
        self._changed = threading.Condition()
        self.wake_up, self._alarm = multiprocessing.Pipe(duplex=False)

    def begin(self) -> bool:
        """Whether the thread is still wanted: the consumer may have left before it ran."""
        with self._changed:
            self._running = not self._stopped
            return self._running

    def end(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify()

    def put(self, number: int, result: Any) -> None:
        with self._changed:
            self._results[number] = result
            self._missing -= 1
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify()

    def take(self, number: int) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: number in self._results or self._error)
            if self._error:
                raise self._error
            self._taken = number + 1
            self._wake()  # There is room for one more.
            result = self._results.pop(number)
        if isinstance(result, _Failure):
            result.throw()
        return result

    def stop(self) -> None:
        """Return when the thread has ended its work, or will find that it is not wanted.

        A join would not do: where a signal raises while the thread starts, it cannot be joined yet.
        """
        with self._changed:
            self._stopped = True
            self._wake()
            self._changed.wait_for(lambda: not self._running)

    def _wake(self) -> None:
        """At most one byte waits in the pipe: a full pipe would block the consumer."""
        if self._running and not self._is_alarmed:
            self._is_alarmed = True
            self._alarm.send_bytes(b".")

    def heard(self) -> None:
        with self._changed:
            self.wake_up.recv_bytes()
            self._is_alarmed = False

    def is_over(self) -> bool:
        return self._stopped or not self._missing

    def has_room(self, number: int) -> bool:
        return number < self._taken + self._ahead


@contextmanager
def _signals_held() -> Iterator[None]:
    """A context in which signals wait; the fork server and its workers, started within it, never
    receive them.

    A signal to the whole process group is the parent's to handle: a worker that died of it would
    leave a file to blame.
    """
    # It is started with the fork server, and its start would let the signals through.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """The parent's side of one process: its pipe, its note, the numbers of its tasks."""

    def __init__(
        self,
        context: Any,
        read: Callable[..., Any],
        prefetch: Callable[..., None] | None,
        bad: dict[str, str],
    ) -> None:
        self.pipe, theirs = context.Pipe()
        self.tasks: deque[int] = deque()
        self._note = RawValue(reading.Note)
        self._told = len(bad)
        self._process = context.Process(
            target=_work,
            args=(theirs, self._note, read, prefetch, dict(bad), remote.handlers()),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        # At exit multiprocessing sends SIGTERM, which workers ignore, and waits for them.
        self._at_exit = util.Finalize(self, self._process.kill, exitpriority=0)

    def give(self, number: int, task: tuple[Any, ...], bad: dict[str, str]) -> None:
        self.tasks.append(number)
        news = dict(list(bad.items())[self._told :])
        self._told = len(bad)
        with suppress(OSError):  # It is dead, which the next look at its pipe will tell.
            self.pipe.send((number, task, news))

    def receive(self) -> tuple[int, Any]:
        number, result = receive(self.pipe)
        self.tasks.remove(number)
        return number, result

    def stuck_on(self, timeout_seconds: float) -> str:
        """The file that the worker has been reading for too long, "" if there is none."""
        return self._note.stuck_on(timeout_seconds)

    def how_it_died(self) -> tuple[str, str]:
        """The file that a dead worker was reading, "" when none, and how it ended."""
        self._process.join(5)
        code = self._process.exitcode
        ended = signal.Signals(-code).name if code and code < 0 else f"exit status {code}"
        path = self._note.path.decode(errors="surrogateescape") if self._note.since else ""
        return path, f"reading it ended the process ({ended})"

    def kill(self) -> None:
        self._at_exit()
        self._process.join()
        self._process.close()
        self.pipe.close()


class _Failure:
    """An exception of `read`, with the traceback of the process where it was raised."""

    def __init__(self, error: Exception) -> None:
        self._error, self._trace = error, traceback.format_exc()

    def throw(self) -> None:
        if not isinstance(self._error, DataError):
            self._error.add_note(f"in a loader worker:\n{self._trace}")
        raise self._error


def _work(
    pipe: Connection,
    note: Any,
    read: Callable[..., Any],
    prefetch: Callable[..., None] | None,
    bad: dict[str, str],
    handlers: bytes,
) -> None:
    """The main loop of a worker: it ends with its pipe, or its parent even in a native hang."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for sign in _OF_THE_PARENT:
        signal.signal(sign, signal.SIG_IGN)
    torch.set_num_threads(1)
    reading.share_note(note)
    reading.known_bad.update(bad)
    remote.register(handlers)
    given: deque[tuple[int, Any]] = deque()
    with suppress(EOFError, OSError):  # Then the parent is gone.
        while True:
            while not given or pipe.poll():
                number, task, news = pipe.recv()
                reading.known_bad.update(news)
                if prefetch and given:
                    prefetch(*task)
                given.append((number, task))
            number, task = given.popleft()
            try:
                result = read(*task)
            except Exception as error:
                result = _Failure(error)
            send(pipe, (number, result))
