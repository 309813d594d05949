"""Copies of networks with tensors that torch's deepcopy refuses."""

import copy

import pytest
import torch
from reparametrized import REPARAMETRIZED
from torch import nn

from octvideo.copies import copied
from octvideo.errors import ConfigError


@pytest.mark.parametrize("reparametrized", REPARAMETRIZED)
def test_a_copy_computes_its_weights_from_its_own_parameters(reparametrized):
    model, x = nn.Sequential(reparametrized(nn.Conv2d(3, 4, 3)), nn.ReLU()), torch.rand(2, 3, 5, 5)
    model(x)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)

    other = copied(model)

    assert torch.equal(other[0].weight, model[0].weight)
    assert torch.equal(other.eval()(x), model.eval()(x))
    other.train()(x).sum().backward()
    assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad is None for p in model.parameters())
    before = model(x)
    with torch.no_grad():
        [p.mul_(2) for p in other.parameters()]
    assert torch.equal(model(x), before)


def test_a_copy_has_its_own_tensors_in_attributes_and_lists():
    model = nn.ReLU()
    model.scale, model.several = torch.ones(2), [torch.ones(2)]

    other = copied(model)
    other.scale.zero_()
    other.several[0].zero_()

    assert model.scale.sum() == model.several[0].sum() == 2


def test_a_tensor_that_was_computed_with_a_gradient_is_refused_by_its_name():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].halves = [model[0].weight[:1]]

    with pytest.raises(ConfigError, match=r"0\.halves is a tensor .* compute it in forward, or"):
        copied(model)
    model[0].halves = [model[0].weight[:1].detach()]
    assert torch.equal(copied(model)[0].halves[0], model[0].halves[0])
