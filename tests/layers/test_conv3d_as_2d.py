"""What is computed in 2D, and how kernels lie in memory."""

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from narrow_networks import first_stages
from reparametrized import REPARAMETRIZED
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from octvideo import create_model, octavize
from octvideo.copies import copied
from octvideo.layers import channels_last, compute_in_2d, lower
from octvideo.layers.conv3d_as_2d import Conv3d, MaxPool3d

TINY = {"num_classes": 5, "width_per_group": 16, "width_rule": "int"}


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [((1, 3, 3), (1, 2, 2), 1), ((1, 3, 3), (2, 2, 2), 0), ((2, 1, 1), (2, 1, 1), 0), ((3, 1, 1), (1, 1, 1), 0),
     ((2, 1, 1), (3, 1, 1), 0), ((2, 3, 3), (2, 2, 2), 1)],
)  # fmt: skip
def test_a_lowered_pool_is_the_pool(window, stride, padding):
    x, arguments = torch.randn(2, 3, 7, 9, 10), (window, stride, (0, padding, padding))

    assert torch.equal(lower(MaxPool3d(*arguments))(x), nn.MaxPool3d(*arguments)(x))


def test_the_gradient_of_a_lowered_pool_is_that_of_the_pool():
    x = torch.randn(2, 3, 7, 9, 10).clamp_min(0).requires_grad_()  # with ties
    expected = torch.autograd.grad(nn.MaxPool3d((2, 1, 1), (2, 1, 1))(x).square().sum(), x)

    found = torch.autograd.grad(lower(MaxPool3d((2, 1, 1), (2, 1, 1)))(x).square().sum(), x)

    assert torch.equal(found[0], expected[0])


def test_a_lowered_pool_has_second_derivatives():
    pool = lower(MaxPool3d((2, 1, 1)))
    x = torch.randn(1, 2, 5, 2, 2, dtype=torch.float64, requires_grad=True)

    assert type(pool(x).grad_fn).__name__ == "LargerOfTwoBackward"
    assert torch.autograd.gradgradcheck(pool, x)


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


# --- Networks of others


def sizes(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(low, high)] * 3)


def in_3d(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What PyTorch gives; sizes of which nothing would be left are none of the property."""
    try:
        return layer(x)
    except RuntimeError:
        assume(False)


@settings(deadline=None)
@given(
    *(sizes(1, 5), sizes(1, 3), sizes(0, 2), sizes(1, 5), st.sampled_from([1, 2, 4])),
    st.sampled_from([4, 8]), st.sampled_from([1, 1, 2]), st.sampled_from([(), (1,), (2,), (0,)]),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_convolution_of_pytorch_is_itself_in_2d(
    kernel, stride, padding, size, groups, out, dilation, batch, last, learns
):
    if dilation > 1:  # PyTorch 2.13 crashes on some that are padded by more than they span.
        padding = tuple(min(p, dilation * (k - 1)) for p, k in zip(padding, kernel, strict=True))
    conv = nn.Conv3d(4, out, kernel, stride, padding, dilation, groups).requires_grad_(learns)
    x = torch.randn(*batch, 4, *size)
    if last and batch:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    expected = in_3d(conv, x)

    found = compute_in_2d(conv, True)(x)

    assert type(conv) is Conv3d
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@settings(deadline=None)
@given(
    *(sizes(1, 3), sizes(1, 3), sizes(0, 1), sizes(1, 5), st.sampled_from([(), (2,)])),
    st.sampled_from([1, 1, 2]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_max_pool_of_pytorch_is_itself_in_2d(
    kernel, stride, padding, size, batch, dilation, indices, ceil
):
    pool = nn.MaxPool3d(kernel, stride, padding, dilation, indices, ceil)
    x = torch.randn(*batch, 4, *size)
    expected = in_3d(pool, x)

    found = compute_in_2d(pool, True)(x)

    for part, whole in zip(*((y if indices else (y,)) for y in (found, expected)), strict=True):
        assert torch.equal(part, whole)


def test_sizes_of_a_pool_may_be_single_numbers():
    x = torch.randn(2, 3, 4, 6, 6)
    for pool in (
        nn.MaxPool3d(2),
        nn.MaxPool3d((1, 2, 2), 1),
        nn.MaxPool3d((1, 3, 3), 2, (0, 1, 1)),
    ):
        expected = pool(x)
        assert torch.equal(compute_in_2d(pool, True)(x), expected)


class Wrapped(nn.Conv3d):
    """A convolution with a forward pass of its own."""

    def forward(self, x):
        return super().forward(x).relu()


class Others(nn.Module):
    """Plain layers of PyTorch: tied, hooked, with a norm between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.deep = nn.Conv3d(8, 8, 3, padding=1, groups=8)
        self.first = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))
        self.norm = nn.BatchNorm3d(8)
        self.second = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))
        self.second.weight = self.first.weight
        self.last = Wrapped(8, 4, 1)

    def forward(self, x):
        x = self.deep(self.pool(self.stem(x)))
        return self.last(self.second(self.norm(self.first(x))))


@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize("frames", [1, 3])
def test_maps_of_one_frame_and_their_gradients_have_the_strides_of_a_layout(kernel, frames):
    sizes = (kernel, (frames, 1, 1), tuple(k // 2 for k in kernel))
    conv = compute_in_2d(Conv3d(4, 6, *sizes), True)
    x = torch.randn(2, 4, frames, 5, 6).contiguous(memory_format=torch.channels_last_3d)

    out = conv(x.requires_grad_())
    (grad,) = torch.autograd.grad(out.square().sum(), x)

    assert out.stride() == (6 * 30, 1, 6 * 30, 6 * 6, 6)
    assert frames > 1 or grad.stride() in (x.stride(), torch.empty(x.shape).stride())


@pytest.mark.parametrize("first", [nn.Conv3d(3, 8, 1), nn.Conv3d(3, 8, (1, 3, 3), 2, (0, 1, 1))])
@pytest.mark.parametrize("last", [nn.Flatten(), Conv3d(8, 2, (1, 3, 3))])
@pytest.mark.parametrize("ours", [(0, 2), (0,), (2,)])
def test_a_batch_norm_of_a_single_frame_has_the_gradients_of_float64(first, last, ours):
    """PyTorch's takes strides of dimensions of size 1 for a layout."""
    net = copy.deepcopy(nn.Sequential(first, nn.BatchNorm3d(8), last))
    x, exact = torch.randn(4, 3, 1, 8, 8), copy.deepcopy(net).double()
    for i in ours:
        compute_in_2d(nn.Sequential(net[i]), True)

    net(x).pow(3).sum().backward()

    exact(x.double()).pow(3).sum().backward()
    for found, expected in zip(net.parameters(), exact.parameters(), strict=True):
        scale = exact[0].weight.grad.abs().max()
        assert (found.grad - expected.grad).abs().max() < 1e-4 * scale


def test_a_convolution_runs_where_torch_has_no_name_for_exporting(monkeypatch):
    """Before 2.7."""
    monkeypatch.delattr(torch.compiler, "is_exporting")
    conv, x = Conv3d(3, 4, (1, 3, 3)), torch.randn(1, 3, 2, 5, 5)

    assert compute_in_2d(conv)(x).shape == (1, 4, 2, 3, 3)


def test_a_network_of_others_keeps_its_parameters_names_and_hooks():
    model, x, seen = Others(), torch.randn(1, 3, 4, 16, 16), []
    model.first.register_forward_hook(lambda *_: seen.append("first"))
    names, parameters = list(model.state_dict()), list(model.parameters())
    expected = model(x)

    returned = compute_in_2d(model)

    assert returned is model
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-4)
    assert [type(m) for m in (model.stem, model.pool, model.last)] == [Conv3d, MaxPool3d, Wrapped]
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.second.weight is model.first.weight
    assert seen == ["first"] * 2


def test_a_network_of_others_computes_flat_kernels_in_2d_and_again_in_3d():
    model, x = Others(), torch.randn(1, 3, 4, 16, 16)
    with Convolutions() as plain:
        compute_in_2d(model, False)(x)
    assert type(model.first) is nn.Conv3d  # nothing was asked of it

    with Convolutions() as flat:
        compute_in_2d(model, True)(x)
    with Convolutions() as deep:
        compute_in_2d(model, False)(x)

    assert plain.dims == deep.dims == [5] * 5
    assert flat.dims == [4, 5, 4, 4, 5]  # the depthwise kernel and the class of another stay


def test_a_network_of_others_in_2d_is_copied_pickled_compiled_parametrized_and_exported():
    model, x = compute_in_2d(Others(), True).eval(), torch.randn(1, 3, 4, 16, 16)
    expected = model(x)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    exported = torch.export.export(model, (x,)).module()
    with Convolutions() as convolutions:
        plain = exported(x)

    for other in (
        copy.deepcopy(model),
        torch.load(stored, weights_only=False),
        torch.compile(model, backend="eager", fullgraph=True),
        nn.utils.parametrizations.weight_norm(model.stem) and model,
    ):
        torch.testing.assert_close(other(x), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-4)
    assert set(convolutions.dims) == {5}


def test_sizes_in_numpys_numbers_compile_in_2d():
    """As pytorchvideo has them."""
    conv, x = nn.Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1)), torch.randn(1, 3, 4, 8, 8)
    conv.stride = tuple(np.array([2, 1, 1]))
    expected = conv(x)

    compute_in_2d(conv, True).compile(backend="eager", fullgraph=True)

    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize("reparametrized", REPARAMETRIZED)
def test_a_weight_that_a_hook_computes_is_computed_anew_in_2d(reparametrized):
    conv, x = reparametrized(nn.Conv3d(3, 4, (1, 3, 3))), torch.randn(2, 3, 2, 4, 4)
    with torch.no_grad():
        conv.weight_v.mul_(2) if hasattr(conv, "weight_v") else conv.weight_orig.mul_(2)
    expected = copied(conv)(x)

    with Convolutions() as convolutions:
        found = compute_in_2d(conv, True)(x)

    torch.testing.assert_close(found, expected)
    assert convolutions.dims == [4]
    found.sum().backward()
    assert all(p.grad is not None for p in conv.parameters())


def test_a_parametrized_convolution_of_others_stays_in_3d():
    conv, x = nn.utils.parametrizations.weight_norm(nn.Conv3d(3, 4, 1)), torch.randn(2, 3, 2, 4, 4)
    expected = conv(x)

    with Convolutions() as convolutions:
        found = compute_in_2d(conv, True)(x)

    assert torch.equal(found, expected)
    assert convolutions.dims == [5]


def test_a_network_of_others_in_2d_is_made_octave():
    model, x = compute_in_2d(Others(), True).eval(), torch.rand(1, 3, 4, 16, 16)
    model.second.weight = nn.Parameter(torch.rand(8, 8, 3, 1, 1))  # tied ones stay whole

    same, octave = (octavize(model, alpha, x, width_rule="int") for alpha in (0.0, 0.5))

    assert torch.equal(same(x), model(x))
    assert [conv.name for conv in octave.octave_report.octave] == ["first", "second"]
    with Convolutions() as convolutions:
        octave(x)
    assert convolutions.dims.count(4) > 3


@pytest.mark.parametrize("kernel", [1, (1, 3, 3), (3, 3, 3)])
def test_maps_are_channels_last_whatever_a_2d_convolution_returns(kernel, monkeypatch):
    """cuDNN returns contiguous maps in float64."""
    conv2d = nn.functional.conv2d
    monkeypatch.setattr(nn.functional, "conv2d", lambda *args: conv2d(*args).contiguous())
    conv, x = nn.Conv3d(3, 4, kernel), torch.randn(4, 3, 5, 6, 6)
    expected = conv(x)

    found = compute_in_2d(conv, True)(x)

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    found.view(4, 4, -1)  # as networks of others take it, pytorchvideo's non-local block too


@pytest.mark.parametrize("kernel", [(3, 1, 1), (3, 2, 2)])
def test_a_clip_shorter_than_a_kernel_is_refused_in_2d_too(kernel):
    with pytest.raises(RuntimeError, match=r"[Kk]ernel"):
        compute_in_2d(nn.Conv3d(3, 4, kernel), True)(torch.randn(1, 3, 2, 4, 4))


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
    model = first_stages("i3d_r26", 1, alpha=0.25, **TINY).eval()
    del model.res2.block1
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    clip = torch.randn(1, 3, 8, 32, 32)
    expected = model(clip)

    for choice in (True, False):
        compute_in_2d(model, choice)
        torch.testing.assert_close(compiled(clip), expected, atol=1e-5, rtol=1e-4)
