"""A cut of the harness that does to runs what happens to runs."""

import importlib.util
import subprocess
import sys

import pytest


@pytest.fixture
def faults(repo, monkeypatch):
    monkeypatch.syspath_prepend(repo / "benchmarks")
    spec = importlib.util.spec_from_file_location("faults", repo / "benchmarks/faults.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "faults", module)
    spec.loader.exec_module(module)
    return module


def test_a_round_follows_from_its_number(faults):
    rounds = [faults.Round.of(0, number) for number in range(100)]

    assert rounds == [faults.Round.of(0, number) for number in range(100)]
    assert {what.kind for what in rounds} == set(faults.KINDS)
    assert {fault for what in rounds for fault in what.faults} == set(faults.FAULTS)


def test_a_report_names_what_failed(faults):
    rows = [
        {"number": 0, "kind": "test", "faults": ["stop"], "problems": [], "date": "2026-01-01T"},
        {
            "number": 1,
            "kind": "test",
            "faults": ["SIGINT"],
            "problems": ["hung"],
            "date": "2026-01-02T",
        },
    ]

    page = faults.report(rows, seed=0)

    assert page.startswith("# 2 rounds of faults: 1 failed")
    assert "2026-01-01 to 2026-01-02" in page
    assert "Round 1 (test: ['SIGINT']): ['hung']" in page


@pytest.mark.slow
def test_a_training_and_a_test_end_as_undisturbed_ones(tmp_path, repo):
    script = [sys.executable, str(repo / "benchmarks/faults.py"), "--folder", str(tmp_path)]

    done = subprocess.run([*script, "--rounds", "2"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("as undisturbed") == 2
