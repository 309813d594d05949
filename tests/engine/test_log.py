"""Where log lines go when one of their places cannot take them."""

import logging
import sys
from pathlib import Path

import pytest

from octvideo.engine.log import end_logging, setup_logging

logger = logging.getLogger("octvideo")


@pytest.mark.parametrize("buffered", [True, False])
def test_a_console_on_a_full_disk_is_said_once_and_the_log_file_has_every_line(
    tmp_path, monkeypatch, capsys, buffered
):
    setup_logging()
    logger.info("there is room")
    with Path("/dev/full").open("w", buffering=-1 if buffered else 1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        setup_logging(str(tmp_path))
        for number in range(2):
            logger.info("line %d", number)
        setup_logging(str(tmp_path))  # as the test after a training does
        logger.info("line 2")
        end_logging()

    assert (
        capsys.readouterr().err
        == "stdout cannot be written (No space left on device); the run goes on, and stdout.log has"
        " its lines\n"
    )
    lines = (tmp_path / "stdout.log").read_text().splitlines()
    assert [line[-6:] for line in lines] == ["line 0", "line 1", "line 2"]


def test_a_log_file_on_a_full_disk_is_said_once_on_the_console(tmp_path, capsys):
    setup_logging(str(tmp_path))
    logger.handlers[1].setStream(Path("/dev/full").open("w")).close()  # noqa: SIM115
    for number in range(3):
        logger.info("line %d", number)
    end_logging()
    setup_logging()

    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("line")] == ["line 0", "line 1", "line 2"]
    assert sum("stdout.log: cannot be written" in line for line in out) == 1
