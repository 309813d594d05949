"""A command that is killed again and again, each time a little later, until it ends by itself."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path


def run_past_kills(command: Sequence[str | Path], *, seconds: float, attempts: int) -> None:
    """seconds: until the first kill; each run has a second more than the one before."""
    for attempt in range(attempts):
        run = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + seconds + attempt
        while run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if run.poll() is not None:
            break
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert run.returncode == 0
