"""The real program, its loader's processes and real video files, killed by SIGKILL."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octvideo.data.demo import write_demo_data

SETTINGS = """
MODEL: {ARCH: i3d, NUM_CLASSES: 8}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 8}
OCTCONV: {ALPHA: 0.25}
DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32, COLOR_JITTER: 0.2}
TRAIN: {BATCH_SIZE: 4, EVAL_PERIOD: 2, CHECKPOINT_PERIOD: 1, CHECKPOINT_MINUTES: 0.002}
SOLVER: {BASE_LR: 0.01, MAX_EPOCH: 3}
DATA_LOADER: {NUM_WORKERS: 2}
TEST: {ENABLE: false}
TENSORBOARD: {ENABLE: false}
LOG_PERIOD: 1
"""


@pytest.fixture
def start(tmp_path, repo):
    """start("name") trains into tmp_path / name, the leader of a session of its own."""
    write_demo_data(tmp_path / "data", num_clips={"train": 12, "val": 2})
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    command = [sys.executable, str(repo / "tools/train_net.py"), "--cfg", str(tmp_path / "mine.yaml")]

    def start(name):
        settings = ["DATA.PATH_TO_DATA_DIR", str(tmp_path / "data"), "OUTPUT_DIR", str(tmp_path / name)]
        with (tmp_path / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*command, *settings], stdout=log, stderr=log, start_new_session=True)

    return start


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


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_program_leaves_no_process_and_ends_as_if_nothing_had_happened(tmp_path, start, differences):
    times = random.Random(0)
    assert start("whole").wait() == 0, (tmp_path / "whole.log").read_text()
    metrics = tmp_path / "cut" / "metrics.jsonl"

    for lines in (1, 5):
        process = start("cut")
        wait_until(lambda lines=lines: metrics.exists() and metrics.read_text().count("\n") >= lines)
        time.sleep(times.uniform(0, 0.2))
        workers = len(alive(process.pid)) - 1
        assert process.poll() is None
        process.kill()
        process.wait()
        assert workers >= 2
        wait_until(lambda session=process.pid: not alive(session), seconds=10)
    assert start("cut").wait() == 0, (tmp_path / "cut.log").read_text()

    assert (tmp_path / "cut.log").read_text().count("resumed from") == 2
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
