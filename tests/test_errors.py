"""How a tool ends: with a line, whatever ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from octvideo import errors
from octvideo.errors import exit_on_user_error, first_line

# The module alone, without torch, which the package imports.
CHILD = """
import os, runpy, signal
module = runpy.run_path({path!r})
{before}
with module["exit_on_user_error"]():
    os.kill(os.getpid(), signal.{name})
    print("it goes on")
"""


PRINTS = """
import runpy
with runpy.run_path({path!r})["exit_on_user_error"]():
    print("a result")
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


def test_a_result_that_cannot_be_written_is_one_line():
    with Path("/dev/full").open("w") as full:
        code = PRINTS.format(path=errors.__file__)
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE)

    assert done.returncode == 1
    assert done.stderr.decode() == (
        "error: the output cannot be written (No space left on device); make room there\n"
    )


def test_a_reader_that_has_gone_needs_no_line():
    reader, writer = os.pipe()
    os.close(reader)
    code = PRINTS.format(path=errors.__file__)

    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")


def test_other_errors_of_the_system_are_bugs_with_a_traceback():
    with pytest.raises(FileNotFoundError), exit_on_user_error():
        Path("/nowhere/at/all").read_text()


READS_A_GRAPH = """
import runpy, sys
load = runpy.run_path({path!r})["import_optional"]
openvino, runtime = load("openvino", "a test", ""), load("onnxruntime", "a test", "")
from onnx import TensorProto, helper
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", ends[:1], ends[1:])
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
runtime.InferenceSession(model.SerializeToString())
print(openvino.tools.ovc.telemetry_utils.tm.__name__)
"""


def test_libraries_keep_no_statistics_of_their_use_and_send_none(tmp_path):
    env = {**os.environ, "HOME": str(tmp_path)}
    env.pop("ORT_DISABLE_TELEMETRY", None)
    code = READS_A_GRAPH.format(path=errors.__file__)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)

    assert done.stdout.endswith("telemetry_stub\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "line"),
    [("\na\nb", "a"), ("", "RuntimeError"), ("\n", "RuntimeError"), ("a" * 999, "a" * 200)],
)
def test_the_first_line_of_an_error_is_short_and_never_empty(said, line):
    assert first_line(RuntimeError(said)) == line
