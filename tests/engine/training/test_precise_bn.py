"""What becomes of a measurement of batch norm statistics whose data gives out."""

import pytest
import torch
from torch import nn

from octvideo.engine.distributed import Processes
from octvideo.engine.training.precise_bn import measure_bn_statistics
from octvideo.errors import DataError


class Beside(Processes):
    """A rank whose neighbor fails, or does not."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        object.__setattr__(self, "fails", fails)

    def any_of(self, *flags: bool) -> list[bool]:
        return [flag or self.fails for flag in flags]  # type: ignore[attr-defined]


def batches(error: DataError | None):
    for _ in range(2):
        yield torch.randn(4, 3)
    if error:
        raise error
    yield torch.randn(4, 3)


@pytest.mark.parametrize(
    ("error", "beside", "message"),
    [
        (DataError("no such video"), False, "no such video"),
        (None, True, "another process could not read its data"),
    ],
)
def test_data_that_gives_out_on_one_rank_is_an_error_on_all(error, beside, message):
    model = nn.Sequential(nn.BatchNorm1d(3)).train()

    with pytest.raises(DataError, match=message):
        measure_bn_statistics(model, batches(error), 3, Beside(beside))

    assert model[0].num_batches_tracked == 0


def test_without_trouble_the_statistics_are_those_of_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(3)).train()
    torch.manual_seed(0)
    seen = torch.stack(list(batches(None)))
    torch.manual_seed(0)

    measure_bn_statistics(model, batches(None), 3, Beside(False))

    torch.testing.assert_close(model[0].running_mean, seen.mean((0, 1)))


def test_statistics_are_averaged_over_the_ranks_by_their_clips(monkeypatch):
    model = nn.Sequential(nn.BatchNorm1d(3)).train()
    weights = []
    monkeypatch.setattr(Beside, "average_buffers", lambda self, _, weight: weights.append(weight))
    uneven = [torch.randn(4, 3), torch.randn(4, 3), torch.randn(2, 3)]

    measure_bn_statistics(model, uneven, 3, Beside(False))
    measure_bn_statistics(model, uneven, 2, Beside(False))

    assert weights == [10, 8]


def test_a_state_that_was_captured_before_follows_the_measurement():
    model = nn.Sequential(nn.BatchNorm1d(3)).train()
    state = model.state_dict()

    measure_bn_statistics(model, batches(None), 3, Beside(False))

    assert torch.equal(state["0.running_mean"], model[0].running_mean)
    assert torch.equal(state["0.running_var"], model[0].running_var)
