"""The plan as queues: its table stands in docs/scaling.md, and what it says of simple cases is true."""

import random
import subprocess
import sys

import pytest


@pytest.fixture
def simulate(benchmarks):
    return benchmarks("simulate")


@pytest.mark.slow
def test_the_page_has_the_table_that_the_command_prints(repo, simulate):
    command = [sys.executable, repo / "benchmarks" / "simulate.py", "table"]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    page = (repo / "docs" / "scaling.md").read_text()

    assert f"{simulate.BEGIN}\n{table}{simulate.END}" in page


def _outcome(simulate, nodes, decode, step, latency=0.0, reads_ahead=False):
    workers = [simulate.Node(2, 4, lambda: decode, reads_ahead) for _ in range(nodes)]
    storage = simulate.Storage(1e9, 1e15, lambda: latency)
    return simulate.simulate(workers, storage, lambda: step, 0.0, 40)


@pytest.mark.parametrize("nodes", [1, 3])
def test_the_slower_of_decoding_and_training_sets_the_pace(simulate, nodes):
    fed = _outcome(simulate, nodes, decode=0.1, step=1.0)
    starved = _outcome(simulate, nodes, decode=1.0, step=0.1)

    assert (fed.clips_per_second, fed.data_share) == (pytest.approx(4 * nodes), 0)
    assert starved.clips_per_second == pytest.approx(2 * nodes)
    assert starved.data_share == pytest.approx(0.95)


def test_reading_ahead_hides_a_latency_that_reading_one_by_one_pays(simulate):
    waits = _outcome(simulate, 1, decode=0.1, step=0.0, latency=0.05)
    ahead = _outcome(simulate, 1, decode=0.1, step=0.0, latency=0.05, reads_ahead=True)

    assert waits.clips_per_second == pytest.approx(2 / 0.15, rel=0.01)
    assert ahead.clips_per_second == pytest.approx(2 / 0.1, rel=0.01)


@pytest.mark.parametrize(("nodes", "minutes"), [(1, 10), (64, 10), (64, 60)])
def test_a_failure_costs_half_an_interval_and_a_restart(simulate, nodes, minutes):
    kept = simulate.kept_share(nodes, 2000, minutes, 5, random.Random(0))

    assert kept == pytest.approx(1 - nodes * (minutes / 2 + 5) / 60 / 2000, abs=1e-3)
