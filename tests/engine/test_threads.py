"""Torch threads and loader workers share the cores."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octvideo.engine import threads
from octvideo.engine.threads import keep_to, plan_threads, set_threads


@given(workers=st.integers(0, 64), processes=st.integers(1, 16), cores=st.integers(1, 128))
def test_threads_and_workers_fit_the_cores_wherever_they_can(workers, processes, cores):
    planned = plan_threads(workers, processes, cores)

    assert planned >= 1
    assert planned == 1 or processes * (planned + workers) <= cores


@pytest.mark.parametrize(
    ("workers", "processes", "cores", "planned"), [(0, 1, 2, 2), (1, 1, 2, 1), (4, 2, 16, 4)]
)
def test_a_process_gets_the_cores_that_its_workers_leave(
    workers, processes, cores, planned, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    assert plan_threads(workers, processes, cores) == planned


@pytest.mark.parametrize(
    ("wanted", "processes", "planned"), [("2", 1, 2), ("99", 1, 8), ("many", 1, 8), ("1", 2, 4)]
)
def test_one_process_keeps_to_the_threads_that_the_environment_asks_for(
    wanted, processes, planned, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)

    assert plan_threads(0, processes, 8) == planned


def test_the_plan_is_set_and_logged_and_too_many_workers_are_warned_of(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    caplog.set_level(logging.INFO)

    assert set_threads(num_workers=4) == 1

    assert torch.get_num_threads() == 1
    assert "2 cores: 1 process(es) x (1 torch threads + 4 workers)" in caplog.text
    assert "lower DATA_LOADER.NUM_WORKERS" in caplog.text


def test_a_new_thread_keeps_to_its_number_when_others_have_another():
    torch.set_num_threads(4)
    with ThreadPoolExecutor(1, initializer=keep_to, initargs=(2,)) as one:
        assert one.submit(torch.get_num_threads).result() == 2
        torch.set_num_threads(3)

        assert one.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 3
