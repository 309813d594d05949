"""Programs as forks of a process that has imported torch: they start in milliseconds.

For tests of what processes do to each other. What a launcher does to them is tested with torchrun.
"""

import atexit
import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

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

    def wait(self, timeout: float = 200) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < end, f"it did not end within {timeout} seconds"
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float = 200) -> str:
        """What it said, when it has ended."""
        self.wait(timeout)
        return self._output.read_text()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@functools.cache
def _server() -> Callable[..., Any]:
    """Asks the process that forks, which ends with this one."""
    ours, theirs = Pipe()
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
        ours.send(question)
        return ours.recv()

    atexit.register(end)
    return ask


def _serve(pipe_number: int) -> None:
    for name in ("octvideo.engine.training.trainer", "octvideo.engine.prediction.run"):
        import_module(name)
    import_module("torch._dynamo")  # which an optimizer imports at its first step
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
                os._exit(_status_of(*details))
    os._exit(0)


def _status_of(
    program: Callable[..., object],
    arguments: tuple[object, ...],
    folder: str,
    output: str,
    environment: dict[str, str],
) -> int:
    """Run the program in this process."""
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
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
