"""A command of octvideo that is killed again and again, each time after it has written something, until it ends
by itself."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from forked import Forked

from octvideo.cli.main import main


def run_past_kills(arguments: Sequence[str | Path], folder: Path, *, kills: int = 3) -> None:
    """arguments: of octvideo, which writes to the folder. The k-th run is killed when that has
    changed 2 k times."""
    for number in range(1, kills + 1):
        run = start(arguments, folder)
        seen, changes = _written(folder), 0
        while run.poll() is None and changes < 2 * number:
            time.sleep(0.005)
            before, seen = seen, _written(folder)
            changes += seen != before
        assert run.poll() is None, f"it ended with {run.returncode} before kill {number}"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert start(arguments, folder).wait() == 0


def start(arguments: Sequence[str | Path], folder: Path) -> Forked:
    """octvideo in a session of its own; what it says goes to a file beside the folder."""
    return Forked(_run, [*map(str, arguments)], output=folder.with_suffix(".txt"))


def _run(arguments: list[str]) -> None:
    os.setsid()
    main(arguments)


def _written(folder: Path) -> list[tuple[str, int]]:
    """Files and their sizes, but for files and folders that come and go meanwhile."""
    found = []
    # Not Path.rglob, which fails where a folder goes while it is read (Python below 3.13).
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in folders + files):
            with suppress(FileNotFoundError):
                found.append((str(path), path.stat().st_size))
    return sorted(found)
