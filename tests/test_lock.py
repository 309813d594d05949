"""One writer per output folder, whoever comes second is told, and what a dead one left is taken
over."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading

import pytest

from octvideo.errors import OctvideoError
from octvideo.lock import NAME, only_writer

HOLD = """
import sys, time
from octvideo.lock import only_writer
with only_writer(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path / "run"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_writer_is_told_who_the_first_is(tmp_path, holder):
    with (
        pytest.raises(
            OctvideoError, match=rf"run: in use by .*, process {holder.pid} on \S+, since \d{{4}}-"
        ),
        only_writer(str(tmp_path / "run")),
    ):
        pass

    assert holder.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_process_is_taken_over_with_a_line(
    tmp_path, holder, number, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    caplog.set_level(logging.INFO)
    holder.send_signal(number)
    holder.wait()

    with only_writer(str(tmp_path / "run")):
        assert json.loads((tmp_path / "run" / NAME).read_text())["process"] == os.getpid()

    assert f"process {holder.pid} on" in caplog.text
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_holds_within_a_process_and_ends_with_it(tmp_path):
    folder = str(tmp_path)
    with only_writer(folder):
        errors = []

        def second():
            try:
                with only_writer(folder):
                    pass
            except OctvideoError as error:
                errors.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert len(errors) == 1
    with only_writer(folder):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"host": 3}', "\0" * 5000])
def test_a_lock_file_of_any_content_is_taken_over(tmp_path, content):
    (tmp_path / NAME).write_text(content)

    with only_writer(str(tmp_path)):
        pass


def test_what_killed_writes_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    left = [
        "results.json.0a1b2c3d.tmp",
        "checkpoints/best.pyth.0a1b2c3d.tmp",
        "checkpoints/a.pyth.tmp",
    ]
    kept = ["mine.tmp", "results.json", "checkpoints/best.pyth"]
    for name in [*left, *kept]:
        (tmp_path / name).touch()

    with only_writer(str(tmp_path)):
        pass

    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in kept)


def test_a_lock_that_was_removed_is_not_removed_again(tmp_path):
    """Somebody cleared the folder, and another run began there."""
    with only_writer(str(tmp_path)):
        (tmp_path / NAME).unlink()
        (tmp_path / NAME).write_text("another's")

    assert (tmp_path / NAME).read_text() == "another's"
