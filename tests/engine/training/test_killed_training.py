"""The real program, its loader's processes and real video files, killed by SIGKILL."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked, python

from octvideo.data.prepare.demo import write_demo_data

SETTINGS = """
MODEL: {ARCH: i3d, NUM_CLASSES: 8}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 8}
OCTCONV: {ALPHA: 0.25}
DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32, COLOR_JITTER: 0.2}
TRAIN: {BATCH_SIZE: 4, EVAL_PERIOD: 2, CHECKPOINT_PERIOD: 1, CHECKPOINT_MINUTES: 0.002}
SOLVER: {BASE_LR: 0.01, MAX_EPOCH: 2}
DATA_LOADER: {NUM_WORKERS: 2}
TEST: {ENABLE: false}
TENSORBOARD: {ENABLE: false}
LOG_PERIOD: 1
LOG_MODEL_INFO: false
"""


@pytest.fixture
def start(tmp_path, repo):
    """start("name") trains into tmp_path / name, in a fork of a process that has imported torch; with
    real=True as a user's program does, the leader of a session of its own."""
    write_demo_data(tmp_path / "data", num_clips={"train": 16, "val": 2})
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    command = [str(repo / "tools/train_net.py"), "--cfg", str(tmp_path / "mine.yaml")]

    started = []

    def start(name, *settings, real=False):
        places = [
            "DATA.PATH_TO_DATA_DIR",
            str(tmp_path / "data"),
            "OUTPUT_DIR",
            str(tmp_path / name),
        ]
        words, output = [*command, *places, *settings], tmp_path / f"{name}.log"
        if real:
            with output.open("wb") as log:
                program = [sys.executable, *words]
                process = subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)
        else:
            process = Forked(python, *words, output=output)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def alive(session):
    """Processes of a session, zombies left out. (Linux.)"""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it ended meanwhile
        if int(of) == session and state != "Z":
            found.append(path.parent.name)
    return found


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_program_leaves_no_process_and_ends_as_if_nothing_had_happened(
    tmp_path, start, differences
):
    times = random.Random(0)
    whole = start("whole", "DATA_LOADER.NUM_WORKERS", "0")
    assert whole.wait() == 0, (tmp_path / "whole.log").read_text()
    metrics, checkpoints = tmp_path / "cut" / "metrics.jsonl", tmp_path / "cut" / "checkpoints"

    def has_come_to(num_lines):
        written = metrics.read_text().count("\n") if metrics.exists() else 0
        return written >= num_lines and any(checkpoints.glob("checkpoint_*.pyth"))

    session = start("cut", real=True)
    wait_until(lambda: has_come_to(5) and len(alive(session.pid)) > 2, seconds=300)
    time.sleep(times.uniform(0, 0.05))
    assert session.poll() is None
    session.kill()
    session.wait()
    wait_until(lambda: not alive(session.pid), seconds=60)
    assert start("cut").wait() == 0, (tmp_path / "cut.log").read_text()

    assert (tmp_path / "cut.log").read_text().count("resumed from") == 1
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
