"""Programs as forks of a process that has imported torch: they start in milliseconds.

For tests of what processes do to each other. One of a new process under torchrun is in
tests/tools/test_train_net.py.
"""

import atexit
import functools
import gc
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import ModuleType
from typing import IO, Any

# Before any test has changed it.
_ENVIRONMENT = dict(os.environ)


class Forked:
    """program(*arguments) in a process of its own, with methods of subprocess.Popen."""

    def __init__(
        self,
        program: Callable[..., object],
        *arguments: object,
        output: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """output: the file that standard output and standard error go to."""
        self._output, self.returncode = output, None
        environment = os.environ | (environment or {})
        where = str(Path.cwd()), str(output)
        self.pid = _server()("start", program, arguments, *where, dict(environment))

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _server()("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        timeout = 200 if timeout is None else timeout
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self._output), timeout)
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float = 200) -> str:
        """What it said, when it has ended."""
        self.wait(timeout)
        return self._output.read_text()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)


def forked_ranks(
    count: int, program: Callable[..., object], *arguments: object, outputs: Path
) -> list[Forked]:
    """Ranks without a launcher: rank 0 keeps the store where they meet. outputs: what each says
    goes to a file beside it."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    return [
        Forked(
            program,
            *arguments,
            output=outputs.with_name(f"{outputs.name}_{rank}.txt"),
            environment=place | {"RANK": str(rank)},
        )
        for rank in range(count)
    ]


def start_forked(
    command: Sequence[str], stdout: IO[str], env: Mapping[str, str] | None = None, **_: object
) -> Forked:
    """Takes the place of subprocess.Popen where that starts `python ...`, with its output in a file."""
    return Forked(python, *command[1:], output=Path(stdout.name), environment=env)


def python(*words: object) -> None:
    """What `python WORDS` does, as the program of a fork: WORDS are [-u] (-c TEXT | -m MODULE | FILE)
    ..."""
    first, *rest = [str(word) for word in words if word != "-u"]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if first == "-c":
        sys.argv = [first, *rest[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")  # without a file
        exec(rest[0], vars(main))
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        sys.path.insert(0, str(Path(first).parent))
        runpy.run_path(first, run_name="__main__")


def torchrun(*words: object) -> None:
    """What `torchrun WORDS` does, as the program of a fork; its ranks are forks, too."""
    handler = import_module("torch.distributed.elastic.multiprocessing.subprocess_handler")
    handler.subprocess_handler.Popen = _ForkedRank
    import_module("torch.distributed.run").main(list(map(str, words)))


class _ForkedRank(subprocess.Popen[bytes]):
    """python ..., as a fork of this process in a session of its own."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], **_: object) -> None:
        self._environment = env
        super().__init__(args)

    def _execute_child(self, args: Sequence[str], *_: object) -> None:
        self._child_created = True
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os._exit(_status_of(python, args[1:], self._environment))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@functools.cache
def _server() -> Callable[..., Any]:
    """Asks the process that forks, which ends with this one."""
    ours, theirs = Pipe()
    turns = threading.Lock()
    process = subprocess.Popen(
        [sys.executable, "-c", f"import forked; forked._serve({theirs.fileno()})"],
        env=_ENVIRONMENT
        | {"PYTHONPATH": os.pathsep.join(str(Path(at).absolute()) for at in sys.path)},
        cwd="/",  # The folder of the test that comes first may go, and its variables with it.
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    def ask(*question: object) -> Any:
        with turns:
            ours.send(question)
            return ours.recv()

    atexit.register(end)
    return ask


def _serve(pipe_number: int) -> None:
    for name in ("octvideo.engine.training.trainer", "octvideo.engine.prediction.run"):
        import_module(name)
    import_module("torch._dynamo")  # which an optimizer imports at its first step
    import_module("torch.distributed.run")
    gc.collect()
    gc.freeze()  # What children do not traverse is not copied.
    pipe = Connection(pipe_number)
    with suppress(EOFError):
        while True:
            what, *details = pipe.recv()
            if what == "poll":
                pid, status = os.waitpid(details[0], os.WNOHANG)
                pipe.send(os.waitstatus_to_exitcode(status) if pid else None)
            elif pid := os.fork():
                pipe.send(pid)
            else:
                pipe.close()
                program, arguments, folder, output, environment = details
                os.chdir(folder)
                file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
                os.dup2(file, 1)
                os.dup2(file, 2)
                os._exit(_status_of(program, arguments, environment))
    os._exit(0)


def _status_of(
    program: Callable[..., object], arguments: Sequence[object], environment: Mapping[str, str]
) -> int:
    """Run the program in this process."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # It remembers the server's TMPDIR.
    # torch warns of collectives that go away and of gradients that the reducer must copy: neither
    # may come from us.
    warnings.simplefilter("error", FutureWarning)
    warnings.simplefilter("error", UserWarning)
    try:
        program(*arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0
