"""What is computed in 2D, and how kernels lie in memory."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from octvideo import create_model
from octvideo.layers import channels_last, compute_in_2d, lower
from octvideo.layers.conv3d_as_2d import Conv3d, MaxPool3d

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int"}


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [((1, 3, 3), (1, 2, 2), 1), ((1, 3, 3), (2, 2, 2), 0), ((2, 1, 1), (2, 1, 1), 0), ((3, 1, 1), (1, 1, 1), 0),
     ((2, 1, 1), (3, 1, 1), 0), ((2, 3, 3), (2, 2, 2), 1)],
)  # fmt: skip
def test_a_lowered_pool_is_the_pool(window, stride, padding):
    x = torch.randn(2, 3, 7, 9, 10)

    pool = lower(MaxPool3d(window, stride, padding))

    assert torch.equal(pool(x), nn.MaxPool3d(window, stride, (0, padding, padding))(x))


def test_the_gradient_of_a_lowered_pool_is_that_of_the_pool():
    x = torch.randn(2, 3, 7, 9, 10).clamp_min(0).requires_grad_()  # with ties
    expected = torch.autograd.grad(nn.MaxPool3d((2, 1, 1), (2, 1, 1))(x).square().sum(), x)

    found = torch.autograd.grad(lower(MaxPool3d((2, 1, 1), (2, 1, 1)))(x).square().sum(), x)

    assert torch.equal(found[0], expected[0])


def test_a_network_with_a_pool_in_time_compiles_as_one_graph_with_gradients():
    pool, x = lower(MaxPool3d((2, 1, 1), (2, 1, 1))), torch.randn(2, 3, 7, 4, 4, requires_grad=True)
    expected = torch.autograd.grad(pool(x).square().sum(), x)

    found = torch.autograd.grad(
        torch.compile(pool, backend="aot_eager", fullgraph=True)(x).square().sum(), x
    )

    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("kernel", "options"),
    [((1, 3, 3), {"padding": 1}), ((3, 1, 1), {"padding": 1}), ((1, 1, 1), {"padding": (1, 0, 0)}),
     ((3, 1, 1), {"dilation": (2, 1, 1)}), ((1, 3, 3), {"padding": "same"}),
     ((1, 3, 3), {"padding": (0, 1, 1), "padding_mode": "reflect"})],
)  # fmt: skip
def test_what_has_no_form_in_2d_stays_in_3d(kernel, options):
    conv, x = Conv3d(3, 4, kernel, **options), torch.randn(2, 3, 6, 5, 5)
    expected = conv(x)

    assert torch.equal(lower(conv)(x), expected)


@pytest.mark.parametrize(
    ("name", "layout"), [("i3d_r26", torch.channels_last_3d), ("resnet26", torch.channels_last)]
)
def test_a_network_is_channels_last_from_the_start_and_can_be_contiguous(name, layout):
    model = create_model(name, alpha=0.25, **TINY)
    kernels = [p for p in model.parameters() if p.dim() > 2]

    assert all(k.is_contiguous(memory_format=layout) for k in kernels)
    channels_last(model, on=False)
    assert all(k.is_contiguous() for k in kernels)


class Convolutions(TorchDispatchMode):
    """Collects how many dimensions the input of each convolution has."""

    def __init__(self):
        super().__init__()
        self.dims = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "convolution" in func.name():
            self.dims += [max(tensor.dim() for tensor in args if isinstance(tensor, torch.Tensor))]
        return func(*args, **(kwargs or {}))


def dims_of_a_training_step(device, choice, **options):
    with torch.device(device):
        model = compute_in_2d(create_model("i3d_r26", alpha=0.25, **TINY, **options), choice)
        clip = torch.ones(1, 3, 8, 32, 32)
    with Convolutions() as convolutions:
        model(clip).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    return set(convolutions.dims)


@pytest.mark.parametrize("memory_saving", [False, True])
@pytest.mark.parametrize(
    ("device", "choice", "dims"),
    [("cpu", "auto", {4}), ("cpu", False, {5}), ("meta", "auto", {5}), ("meta", True, {4})],
)
def test_a_training_step_computes_in_2d_where_it_was_chosen(device, choice, dims, memory_saving):
    assert dims_of_a_training_step(device, choice, memory_saving=memory_saving) == dims


def test_a_network_in_2d_compiles_as_one_graph_and_again_after_a_change():
    model = create_model("i3d_r26", alpha=0.25, **TINY).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    clip = torch.randn(1, 3, 8, 32, 32)
    expected = model(clip)

    for choice in (True, False):
        compute_in_2d(model, choice)
        torch.testing.assert_close(compiled(clip), expected, atol=1e-5, rtol=1e-4)
