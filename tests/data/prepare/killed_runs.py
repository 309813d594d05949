"""A command of octvideo that is killed again and again, each time behind more complete shards, until
it ends by itself."""

import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from forked import Forked

from octvideo.cli.main import main


def run_past_kills(arguments: Sequence[str | Path], folder: Path, *, kills: int = 3) -> None:
    """arguments: of octvideo, which writes shards below the folder. The k-th run is killed while it
    writes behind k - 1 complete shards."""
    for complete in range(kills):
        run = start(arguments, folder)
        seen, changes = _written(folder), 0
        while run.poll() is None and changes < 2:
            time.sleep(0.005)
            before, seen = seen, _written(folder)
            changes += seen != before and _complete_shards(folder) >= complete
        assert run.poll() is None, f"it ended with {run.returncode} before kill {complete + 1}"
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert _complete_shards(folder) >= kills - 1
    assert start(arguments, folder).wait() == 0


def start(arguments: Sequence[str | Path], folder: Path) -> Forked:
    """octvideo in a session of its own; what it says goes to a file beside the folder."""
    return Forked(_run, [*map(str, arguments)], output=folder.with_suffix(".txt"))


def _run(arguments: list[str]) -> None:
    os.setsid()
    main(arguments)


def _complete_shards(folder: Path) -> int:
    files = [path for path, _ in _written(folder) if path.endswith("shards.json")]
    return sum(len(json.loads(Path(file).read_text())["shards"]) for file in files)


def _written(folder: Path) -> list[tuple[str, int]]:
    """Files and their sizes, but for files and folders that come and go meanwhile."""
    found = []
    # Not Path.rglob, which fails where a folder goes while it is read (Python below 3.13).
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in folders + files):
            with suppress(FileNotFoundError):
                found.append((str(path), path.stat().st_size))
    return sorted(found)
