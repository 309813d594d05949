"""Networks that compute in fused passes, in Triton's interpreter, against the plain ones."""

import copy
import pickle

import pytest
import torch
from narrow_networks import shortened
from torch import nn

from octvideo import create_model
from octvideo.deploy.engines import optimize
from octvideo.deploy.fold import fold_batch_norm
from octvideo.layers import fused
from octvideo.layers.fused import fuse
from octvideo.models.blocks import ConvNorm


def tiny(name="c2d_r26", **options):
    options = {"alpha": 0.5, "num_classes": 3, "width_per_group": 4, **options}
    return shortened(create_model(name, **options, dropout_rate=0.0, zero_init_final_bn=False))


@pytest.mark.slow
def test_a_network_and_its_gradients_and_statistics_are_the_plain_ones(calls):
    model = tiny().double()
    x = torch.randn(2, 3, 2, 33, 33).double()
    results = []
    for net in (copy.deepcopy(model), fuse(model)):
        y = net(x)
        y[0, 0].backward()
        results.append(([y.detach()], [p.grad for p in net.parameters()], list(net.buffers())))

    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)
    assert len(calls) == sum(isinstance(m, ConvNorm) for m in model.modules())


def test_a_folded_network_is_the_plain_one(calls):
    model, x = fold_batch_norm(tiny()).double(), torch.randn(1, 3, 2, 32, 24).double()
    with torch.no_grad():
        expected = model(x)

        found = fuse(model)(x)

    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    assert len(calls) == sum(isinstance(m, ConvNorm) for m in model.modules())


def test_the_fused_engine_is_the_network_and_pickles(calls):
    model, x = tiny().eval(), torch.randn(1, 3, 2, 16, 16)

    fast = pickle.loads(pickle.dumps(optimize(model, x, engine="fused")))
    found = fast(x)

    assert calls == ["_inference"] * 2 * sum(isinstance(m, ConvNorm) for m in model.modules())
    with torch.no_grad():
        torch.testing.assert_close(found, model(x), atol=1e-5, rtol=1e-5)
    assert {m.fused for m in model.modules() if hasattr(m, "fused")} == {"auto"}


def test_fuse_takes_everything_back():
    model = tiny()
    state = copy.deepcopy({k: v for k, v in vars(model).items() if k.endswith("_hooks")})

    for choice in (True, True, "auto", False):
        assert fuse(model, choice) is model
        assert {m.fused for m in model.modules() if hasattr(m, "fused")} == {choice}
        hooks = len(model._forward_pre_hooks), len(model._forward_hooks)
        assert hooks == ((1, 1) if choice is True else (0, 0))
    assert {k: v for k, v in vars(model).items() if k in state} == state


def test_keys_and_values_stay_and_copies_keep_the_choice():
    model = tiny()
    state = {key: value.clone() for key, value in model.state_dict().items()}

    twin = copy.deepcopy(fuse(model))

    assert {m.fused for m in twin.modules() if hasattr(m, "fused")} == {True}
    assert list(twin.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in twin.state_dict().items())
    twin.load_state_dict(state)


def test_casts_of_weights_live_for_one_forward_pass():
    weight = nn.Parameter(torch.ones(2))
    holder = nn.Module()
    holder.weight = weight
    half = weight.detach().half()
    fused._casts[weight] = half

    assert fused.as_cast(weight) is half
    assert fused.as_cast(None) is None
    fused._drop_casts(holder, (), None)
    assert fused.as_cast(weight) is weight
