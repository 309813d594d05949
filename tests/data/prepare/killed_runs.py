"""A command that is killed again and again, each time after it has written something, until it ends
by itself."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def run_past_kills(command: Sequence[str | Path], folder: Path, *, kills: int = 3) -> None:
    """folder: what the command writes to. The k-th run is killed when that has changed 2 k times."""
    for number in range(1, kills + 1):
        run = _start(command)
        seen, changes = _written(folder), 0
        while run.poll() is None and changes < 2 * number:
            time.sleep(0.005)
            before, seen = seen, _written(folder)
            changes += seen != before
        assert run.poll() is None, f"it ended with {run.returncode} before kill {number}"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert _start(command).wait() == 0


def _start(command: Sequence[str | Path]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def _written(folder: Path) -> list[tuple[str, int]]:
    """Files and their sizes, but for files and folders that come and go meanwhile."""
    found = []
    # Not Path.rglob, which fails where a folder goes while it is read (Python below 3.13).
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in folders + files):
            with suppress(FileNotFoundError):
                found.append((str(path), path.stat().st_size))
    return sorted(found)
