"""Machines that train from shards over HTTP, one of them cut off: a small run of benchmarks/nodes.py."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_machine_that_is_cut_off_for_seconds_leaves_the_curve_as_it_was(repo, tmp_path):
    command = [sys.executable, repo / "benchmarks" / "nodes.py", "--folder", tmp_path / "runs"]
    command += ["--nodes", "2", "--steps", "10", "--kinds", "cut", "--cut-seconds", "3"]

    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )

    logs = "".join(path.read_text() for path in (tmp_path / "runs").glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    for run in ("undisturbed", "cut"):
        (row,) = (line for line in done.stdout.splitlines() if line.startswith(f"| {run} "))
        assert row.endswith("| none, to the bit |")
