"""A strided convolution of few channels as an unstrided one of four times as many."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.layers import channels_last, compute_in_2d, stem_by_space_to_depth
from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.space_to_depth import Conv2d, has_space_to_depth, space_to_depth

SIZES = [(16, 16), (15, 16), (17, 13), (7, 10), (5, 5)]
KERNELS = [(7, 3), (3, 1), (5, 2), (4, 1), (2, 0), (6, 3), (7, 2)]


def stem(conv, dims, kernel, padding):
    """A stem in float64, 5 frames deep where there are frames."""
    if dims == 2:
        return conv(3, 4, kernel, 2, padding).double()
    return conv(3, 4, (5, kernel, kernel), (1, 2, 2), (2, padding, padding)).double()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "padding"), KERNELS)
def test_an_unstrided_convolution_gives_the_same(kernel, padding, size):
    x, weight = torch.randn(2, 3, *size).double(), torch.randn(4, 3, kernel, kernel).double()
    if min(size) + 2 * padding < kernel:
        return  # PyTorch's own convolution has nothing to give here either

    found = F.conv2d(*space_to_depth(x, weight, (padding, padding)))

    torch.testing.assert_close(found, F.conv2d(x, weight, None, 2, padding), atol=1e-12, rtol=0)


def test_the_shapes_of_the_usual_stem():
    x, weight = space_to_depth(torch.ones(1, 3, 8, 224, 224), torch.ones(64, 3, 5, 7, 7), (3, 3))

    assert x.shape == (1, 12, 8, 112 + 2 + 1, 112 + 2 + 1)
    assert weight.shape == (64, 12, 5, 4, 4)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("in_2d", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("ours", "plain"), [(Conv2d, nn.Conv2d), (Conv3d, nn.Conv3d)])
def test_results_and_gradients_are_those_of_the_plain_stem(ours, plain, size, in_2d, last):
    dims = 2 if plain is nn.Conv2d else 3
    conv, expected = stem(ours, dims, 7, 3), stem(plain, dims, 7, 3)
    conv.load_state_dict(expected.state_dict())
    stem_by_space_to_depth(compute_in_2d(channels_last(conv, last), in_2d), True)
    x = torch.randn(2, 3, *((6,) if dims == 3 else ()), *size).double().requires_grad_()

    y, target = conv(x), expected(x)

    torch.testing.assert_close(y, target, atol=1e-12, rtol=0)
    grads = torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])
    wanted = torch.autograd.grad(target.square().sum(), [x, *expected.parameters()])
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "alpha", "shape"),
    [("i3d_r26", 0.25, (3, 8, 33, 47)), ("slowfast_r26", 0.25, (3, 32, 33, 47)),
     ("resnet26", 0.25, (3, 33, 47)), ("densenet121", 0, (3, 33, 47))],
)  # fmt: skip
def test_a_network_keeps_its_keys_and_its_outputs(name, alpha, shape):
    model = create_model(name, alpha=alpha, num_classes=5).eval()
    keys, x = list(model.state_dict()), torch.randn(1, *shape)
    with torch.no_grad():
        expected = model(x)

        found = stem_by_space_to_depth(model, True)(x)

    stems = [m for m in model.modules() if getattr(m, "by_space_to_depth", False)]
    assert stems
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"stride": 1}, {"stride": 2, "dilation": 2}, {"stride": 2, "padding_mode": "circular"},
     {"stride": 2, "padding": "valid"}, {"stride": 2, "groups": 3}],
)  # fmt: skip
def test_other_convolutions_stay_as_they_are(options):
    conv, x = Conv2d(3, 6, 3, **options), torch.randn(1, 3, 9, 9)
    expected = conv(x)

    assert not has_space_to_depth(conv)
    assert torch.equal(stem_by_space_to_depth(conv, True)(x), expected)


def test_auto_asks_for_the_device_and_the_dtype_of_the_convolution(monkeypatch):
    from octvideo.layers import space_to_depth as module

    fast = frozenset({("cpu", torch.bfloat16)})
    monkeypatch.setattr(module, "FASTER_BY_SPACE_TO_DEPTH", fast)
    x = torch.ones(1)

    assert not module.takes_space_to_depth("auto", x)
    assert module.takes_space_to_depth("auto", x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert module.takes_space_to_depth("auto", x)


@pytest.mark.parametrize("choice", [True, "auto"])
def test_a_stem_compiles_and_exports_as_one_graph(choice):
    conv = compute_in_2d(Conv3d(3, 4, (5, 7, 7), (1, 2, 2), (2, 3, 3)), "auto")
    stem_by_space_to_depth(conv, choice)
    x = torch.randn(1, 3, 4, 15, 17)
    compiled = torch.compile(conv, backend="eager", fullgraph=True)

    torch.testing.assert_close(compiled(x), conv(x))
    torch.testing.assert_close(torch.export.export(conv, (x,)).module()(x), conv(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x), conv(x))
