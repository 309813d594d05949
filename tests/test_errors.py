"""How a tool ends: with a line, whatever ends it."""

import signal
import subprocess
import sys

import pytest

from octvideo import errors
from octvideo.errors import exit_on_user_error

# The module alone, without torch, which the package imports.
CHILD = """
import os, runpy, signal
module = runpy.run_path({path!r})
{before}
with module["exit_on_user_error"]():
    os.kill(os.getpid(), signal.{name})
    print("it goes on")
"""


def ended(name, before=""):
    code = CHILD.format(path=errors.__file__, name=name, before=before)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_a_tool_has_a_line(name):
    done = ended(name)

    assert done.returncode == -signal.Signals[name]
    assert done.stderr == f"stopped by {name}; the same command continues\n"
    assert done.stdout == ""


def test_nohup_keeps_a_tool_alive():
    done = ended("SIGHUP", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")

    assert (done.returncode, done.stdout, done.stderr) == (0, "it goes on\n", "")


def test_handlers_are_those_of_before_when_the_tool_has_ended():
    before = signal.getsignal(signal.SIGTERM)

    with exit_on_user_error():
        assert signal.getsignal(signal.SIGTERM) is not before

    assert signal.getsignal(signal.SIGTERM) is before
