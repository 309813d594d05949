"""Signals to all processes of a training, as a terminal or a scheduler sends them, and machines that
are short of what processes need."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_run import SETTINGS

from octvideo.data.video.encode import write_video

REPO = Path(__file__).parents[2]
STATUS = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 143}  # a hangup is answered as SIGTERM is


@pytest.fixture
def start(tmp_path):
    """start() begins a small training with workers, in a process group of its own."""
    data = tmp_path / "data"
    for i in range(4):
        frames = np.random.default_rng(i).integers(0, 255, (10, 40, 48, 3), np.uint8)
        write_video(data / f"{i}.mp4", frames)
    for split in ("train", "val", "test"):
        (data / f"{split}.csv").write_text("".join(f"{i}.mp4 {i % 2}\n" for i in range(4)))
    (tmp_path / "mine.yaml").write_text(SETTINGS + f"OUTPUT_DIR: {tmp_path / 'run'}\n")

    def start(*settings, limits=None, before=()):
        command = [
            *before,
            sys.executable,
            "tools/train_net.py",
            "--cfg",
            str(tmp_path / "mine.yaml"),
        ]
        settings = (f"DATA.PATH_TO_DATA_DIR={data}", "DATA_LOADER.NUM_WORKERS=1", *settings)
        return subprocess.Popen(
            [*command, *settings],
            cwd=REPO,
            env=os.environ | {"PYTHONPATH": str(REPO)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=limits,
        )

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds"),
    [("SIGTERM", 1.2), ("SIGTERM", 3.0), ("SIGINT", 0.4), ("SIGINT", 3.0), ("SIGHUP", 3.0)],
)
def test_a_signal_to_all_processes_at_any_moment_ends_a_run_without_a_traceback(
    start, name, seconds
):
    """From the first imports on: a signal that comes while Python itself starts is Python's."""
    process = start("SOLVER.MAX_EPOCH=1000")
    time.sleep(seconds)
    os.killpg(process.pid, getattr(signal, name))
    said, _ = process.communicate(timeout=120)

    # While PyTorch is imported the system's own rule holds.
    assert process.returncode in (STATUS[name], -getattr(signal, name)), said
    assert "Traceback" not in said, said
    assert "cannot be read" not in said
    assert not re.search(r"\d\.mp4", said)


@pytest.mark.slow
def test_64_files_at_once_are_enough_or_are_named(start):
    def limits():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    process = start("SOLVER.MAX_EPOCH=1", limits=limits)
    said, _ = process.communicate(timeout=300)

    assert "Traceback" not in said
    assert process.returncode == 0 or (process.returncode == 2 and "ulimit -n" in said), said


@pytest.mark.slow
def test_a_small_dev_shm_is_enough(start):
    """Containers have 64 MB of it; here the loader's workers have 64 KB."""
    small = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", small, "sh")
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace")
    process = start("SOLVER.MAX_EPOCH=1", before=before)
    said, _ = process.communicate(timeout=300)

    assert process.returncode == 0, said
