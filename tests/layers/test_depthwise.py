"""Gradients of depthwise 3D convolutions against PyTorch's and against differences."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from octvideo.layers import compute_in_2d
from octvideo.layers.conv3d_as_2d import Conv3d, MaxPool3d
from octvideo.layers.depthwise import depthwise_conv3d

CASES = [
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (2, 4, 5, 6)),
    ((3, 3, 3), (1, 2, 2), (1, 1, 1), (2, 3, 6, 5)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 4, 6, 6)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 5, 5, 5)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (2, 1, 4, 4)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (2, 2, 2, 2)),  # a map smaller than the kernel
    ((3, 3, 3), (1, 1, 1), (0, 0, 0), (1, 3, 3, 3)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 5, 7, 6)),  # few pixels of the gradient
    ((5, 3, 1), (3, 1, 2), (2, 0, 0), (1, 6, 5, 4)),
    ((5, 3, 3), (1, 1, 1), (4, 2, 2), (1, 1, 3, 3)),
    ((2, 3, 4), (4, 3, 1), (1, 2, 3), (1, 5, 5, 6)),  # frames and columns that no kernel sees
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_gradients_are_those_of_differences(kernel, stride, padding, size):
    clips, *space = size
    x = torch.randn(clips, 3, *space, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def conv(*tensors):
        return depthwise_conv3d(*tensors, stride, padding)

    assert torch.equal(conv(x, weight, bias), F.conv3d(x, weight, bias, stride, padding, 1, 3))
    assert torch.autograd.gradcheck(conv, (x, weight, bias))


def gradients(conv, x, dtype=None, out_last=True):
    """The output and both gradients, of a pass in autocast where `dtype` is given."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        out = conv(x)
    grad = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    if out_last:
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
    found = torch.autograd.grad(out, [x, conv.weight, conv.bias], grad)
    return [out, *found]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stride", [1, (1, 2, 2)])
@pytest.mark.parametrize("pixels", [(7, 8), (3, 2)])
@pytest.mark.parametrize(("dtype", "error"), [(None, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_convolution_has_the_types_and_gradients_of_pytorchs(dtype, error, pixels, stride, last):
    conv = Conv3d(4, 4, 3, stride, 1, groups=4)
    x = torch.randn(2, 4, 3, *pixels)
    if last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    expected = gradients(conv, x, dtype, last)

    found = gradients(compute_in_2d(conv, True), x, dtype, last)

    assert type(conv(x).grad_fn).__name__ == "DepthwiseBackward"
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= error * theirs.norm()


def test_a_backward_pass_within_autocast_keeps_the_precision_of_the_forward_pass():
    conv, x = compute_in_2d(Conv3d(4, 4, 3, padding=1, groups=4), True), torch.randn(1, 4, 3, 5, 5)
    out = conv(x.requires_grad_()).square().sum()
    (expected,) = torch.autograd.grad(out, conv.weight, retain_graph=True)

    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(out, conv.weight)

    assert torch.equal(found, expected)


def test_only_the_gradients_that_are_asked_for_are_computed():
    x, weight = torch.randn(1, 3, 2, 4, 4), torch.randn(3, 1, 3, 3, 3)
    sizes = ((1, 1, 1), (1, 1, 1))

    frozen = depthwise_conv3d(x.requires_grad_(), weight, None, *sizes)
    frozen.sum().backward()
    stem = depthwise_conv3d(x.detach(), weight.requires_grad_(), None, *sizes)
    stem.sum().backward()

    assert x.grad is not None
    assert weight.grad is not None


def test_a_batch_of_no_clips_has_gradients():
    x, weight = torch.randn(0, 3, 4, 5, 5, requires_grad=True), torch.randn(3, 1, 3, 3, 3)
    out = depthwise_conv3d(x, weight.requires_grad_(), None, (1, 2, 2), (1, 1, 1))

    out.sum().backward()

    assert x.grad.shape == x.shape
    assert weight.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1), (2, 5, 5)),
        ((3, 3, 3), (1, 2, 2), (1, 1, 1), (3, 4, 5)),
        ((3, 3, 3), (1, 1, 1), (1, 1, 1), (2, 2, 2)),
    ],
)
def test_second_derivatives_are_those_of_differences(kernel, stride, padding, size):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def conv(*tensors):
        out = depthwise_conv3d(*tensors, stride, padding)
        assert type(out.grad_fn).__name__ == "DepthwiseBackward"
        return out

    assert torch.autograd.gradgradcheck(conv, (x, weight, bias))


def test_torch_func_finds_the_gradients_of_each_clip():
    conv, x = compute_in_2d(Conv3d(4, 4, 3, padding=1, groups=4), True), torch.randn(2, 4, 3, 5, 5)
    pool = compute_in_2d(MaxPool3d((2, 1, 1)), True)

    def loss(parameters, clip):
        return pool(torch.func.functional_call(conv, parameters, (clip[None],))).square().sum()

    parameters = dict(conv.named_parameters())
    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)

    for i, clip in enumerate(x):
        expected = torch.autograd.grad(loss(parameters, clip), conv.parameters())
        for ours, theirs in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_forward_mode_finds_the_derivative_of_the_other_mode():
    conv = compute_in_2d(Conv3d(4, 4, 3, padding=1, groups=4), True)
    net, x = (
        nn.Sequential(conv, compute_in_2d(MaxPool3d((2, 1, 1)), True)),
        torch.randn(1, 4, 4, 5, 5),
    )
    direction = torch.randn_like(x)

    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(net(forward_ad.make_dual(x, direction))).tangent

    expected = torch.autograd.functional.jvp(net, x, direction)[1]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "options",
    [{"groups": 2}, {"groups": 4, "dilation": 2}, {"groups": 4, "padding": 3},
     {"groups": 4, "padding": "same"}, {"groups": 4, "padding": 1, "padding_mode": "circular"}],
)  # fmt: skip
def test_other_convolutions_have_pytorchs_gradients(options, monkeypatch):
    monkeypatch.setattr("octvideo.layers.depthwise.Depthwise", None)
    x = torch.randn(1, 4, 5, 6, 6, requires_grad=True)

    compute_in_2d(Conv3d(4, 4, 3, **options), True)(x).sum().backward()

    assert x.grad is not None


def test_without_a_gradient_and_in_a_compiled_graph_pytorch_computes(monkeypatch):
    conv, x = compute_in_2d(Conv3d(4, 4, 3, padding=1, groups=4), True), torch.randn(1, 4, 3, 5, 5)
    expected = gradients(conv, x)
    monkeypatch.setattr("octvideo.layers.depthwise.Depthwise", None)

    with torch.no_grad():
        assert torch.equal(conv(x), expected[0])
    conv.compile(backend="aot_eager", fullgraph=True)
    for found, same in zip(gradients(conv, x), expected, strict=True):
        torch.testing.assert_close(found, same)
