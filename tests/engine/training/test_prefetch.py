"""Batches reach the device in their order, however early they are taken."""

from contextlib import nullcontext

import pytest
import tiny
import torch

from octvideo.engine.training.prefetch import OnDevice
from octvideo.errors import DataError

CPU = torch.device("cpu")


class Stream:
    """Stands for a CUDA stream."""

    def __init__(self, idle=False):
        self.idle = idle

    def wait_stream(self, other):
        pass

    def query(self):
        return self.idle


@pytest.fixture
def on_gpu(monkeypatch):
    """OnDevice as it is on a GPU that is busy, or idle: on_gpu(batches, idle)."""
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)

    def make(batches, idle=False):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(idle))
        found = OnDevice(batches, CPU)
        found.copies = Stream()
        return found

    return make


def paths(batches, count):
    return [batches.next().paths[0] for _ in range(count)]


EXPECTED = [batch.paths[0] for batch in tiny.TinyLoader().epoch(1)]


def test_a_cpu_takes_no_batch_before_its_turn():
    given = []
    batches = OnDevice((given.append(batch) or batch for batch in tiny.TinyLoader().epoch(1)), CPU)

    assert not batches.prefetch(2)
    assert not given
    assert paths(batches, 6) == EXPECTED


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_batches_taken_early_come_in_their_order_and_end(on_gpu, ahead):
    batches = on_gpu(tiny.TinyLoader().epoch(1))
    found = []
    for _ in EXPECTED:
        found += paths(batches, 1)
        batches.prefetch(ahead)

    assert found == EXPECTED
    with pytest.raises(StopIteration):
        batches.next()


def test_a_loader_that_gives_up_is_heard_when_its_batch_is_due(on_gpu):
    batches = on_gpu(tiny.TinyLoader(fail_at=2).epoch(1))
    batches.prefetch(9)

    assert paths(batches, 2) == EXPECTED[:2]
    with pytest.raises(DataError, match="5 of 20 files"):
        batches.next()


def test_what_a_loader_draws_early_shifts_no_random_number(on_gpu):
    expected = torch.rand(3)
    torch.manual_seed(0)

    on_gpu(tiny.TinyLoader().epoch(1)).prefetch(2)

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("idle", [False, True])
def test_it_tells_whether_the_gpu_ran_out_of_work(on_gpu, idle):
    assert on_gpu(tiny.TinyLoader().epoch(1), idle).prefetch(1) == idle


@pytest.mark.parametrize("accum_steps", [1, 2])
def test_a_run_that_takes_batches_early_ends_with_the_same_bits(
    tmp_path, on_gpu, monkeypatch, accum_steps
):
    options = {"parts": {"validate": None}, "accum_steps": accum_steps}
    expected = tiny.make_trainer(tmp_path / "in_turn", **options)
    expected.train()
    with monkeypatch.context() as patch:
        patch.setattr(
            "octvideo.engine.training.trainer.OnDevice", lambda batches, device: on_gpu(batches)
        )
        found = tiny.make_trainer(tmp_path / "early", **options)
        found.train()

    for one, other in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(one, other)
