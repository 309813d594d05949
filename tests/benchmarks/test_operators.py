"""Where the time of a network goes."""

import runpy
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest


@pytest.fixture
def script(repo):
    return str(repo / "benchmarks" / "operators.py")


def test_operations_of_a_training_step_are_listed_for_each_alpha(script, monkeypatch, capsys):
    size = ["--model", "c2d_r26", "--input", "4", "32", "32", "--rounds", "1", "--top", "4"]
    monkeypatch.setattr(sys, "argv", ["operators.py", *size, "--alpha", "0", ".5", "--train"])

    runpy.run_path(script, run_name="__main__")

    header, *rows, last = capsys.readouterr().out.splitlines()
    assert header.split() == ["ms", "(calls)", "alpha", "0", "alpha", "0.5"]
    assert any(row.startswith("aten::convolution_backward") for row in rows)
    assert len(rows) == 4
    name, vanilla, octave = last.split()
    assert name == "all"
    assert float(vanilla) > 0
    assert float(octave) > 0


def test_nodes_of_openvino_count_by_kind_and_fused_ones_not_at_all(script):
    def node(kind, microseconds):
        return SimpleNamespace(node_type=kind, real_time=timedelta(microseconds=microseconds))

    found = runpy.run_path(script)["of_openvino"](
        [node("Convolution", 5), node("Convolution", 7), node("Add", 0)]
    )

    assert found == {"Convolution": (pytest.approx(12e-6), 2)}
