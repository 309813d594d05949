"""Layers and networks that compute in fused passes, in Triton's interpreter, against the plain
ones."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrize import register_parametrization

from octvideo.copies import copied
from octvideo.deploy.fold import fold_batch_norm
from octvideo.engine.training.adapt import freeze_batch_norm, synchronize_batch_norm
from octvideo.layers import Channels, OctConv3d, OctTensor, channels_last, fused
from octvideo.layers.fused import conv_norm_act, covers, fuse
from octvideo.models.blocks import BlockStyle, ConvNorm

WIDE, HIGH = Channels(5, 3), Channels(6, 0)


def make_layer(widths=(WIDE, WIDE), kernel=(1, 1), stride=1, dims=3, groups=1):
    """A ConvNorm in float64 whose gammas and betas are drawn."""
    style = BlockStyle(dims=dims, downsample="pool")
    layer = ConvNorm(style, *widths, kernel, stride, groups).double()
    for norm in layer.bn.groups:
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.uniform_(norm.bias)
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var)
    return layer


def random_pair(channels, size=(2, 2, 5, 3)):
    """Leaves in float64 of size = (N, [T,] H, W)."""
    n, *time, height, width = size
    sizes = (height, width), (-(-height // 2), -(-width // 2))
    groups = [
        torch.randn(n, c, *time, *hw).double().requires_grad_() if c else None
        for c, hw in zip(channels, sizes, strict=True)
    ]
    return OctTensor(*groups)


def groups_of(*pairs):
    return [t for pair in pairs if pair for t in (pair.high, pair.low) if t is not None]


def outcome(module, x, residual=None, *, seed=1, **options):
    """Outputs of a module, its gradients for inputs, residual and parameters, and its buffers after
    the step."""
    y = module(x, residual=residual, **options) if residual else module(x, **options)
    ys, leaves = groups_of(y), groups_of(x, residual)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in ys]
    grads = torch.autograd.grad(ys, [*leaves, *module.parameters()], weights)
    return [t.detach() for t in ys], list(grads), list(module.buffers())


def assert_same(found, expected, tolerance=1e-11):
    for some, others in zip(found, expected, strict=True):
        for a, b in zip(some, others, strict=True):
            torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# --- Training


ALL_WIDTHS = [(WIDE, WIDE), (WIDE, HIGH), (HIGH, WIDE), (HIGH, HIGH)]


@pytest.mark.parametrize(
    ("widths", "kernel", "stride"),
    [*itertools.product(ALL_WIDTHS, [(1, 1), (1, 3)], [1]), *itertools.product(ALL_WIDTHS, [(1, 1)], [2]),
     ((WIDE, WIDE), (3, 1), 1), ((WIDE, WIDE), (1, 3), 2)],
)  # fmt: skip
def test_a_layer_and_its_gradients_and_statistics_are_the_plain_ones(calls, widths, kernel, stride):
    layer = make_layer(widths, kernel, stride)
    x = random_pair(widths[0])
    expected = outcome(copy.deepcopy(layer), x, relu=True)

    assert_same(outcome(fuse(layer), x, relu=True), expected)
    assert calls == ["_training"]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("widths", [(WIDE, WIDE), (WIDE, HIGH)])
def test_a_residual_is_added_and_gets_its_gradient(calls, widths, relu):
    layer = make_layer(widths)
    x, residual = random_pair(widths[0]), random_pair(widths[1])
    expected = outcome(copy.deepcopy(layer), x, residual, relu=relu)

    assert_same(outcome(fuse(layer), x, residual, relu=relu), expected)
    assert calls == ["_training"]


@pytest.mark.parametrize(("kernel", "stride"), [((1, 3), 1), ((1, 1), 2)])
def test_an_image_layer_is_the_plain_one(calls, kernel, stride):
    layer = make_layer(kernel=kernel, stride=stride, dims=2)
    x = random_pair(WIDE, (2, 6, 7))
    expected = outcome(copy.deepcopy(layer), x, relu=True)

    assert_same(outcome(fuse(layer), x, relu=True), expected)
    assert calls == ["_training"]


def test_weights_in_channels_last_give_the_same(calls):
    layer, x = make_layer(kernel=(1, 3)), random_pair(WIDE)
    expected = outcome(copy.deepcopy(layer), x, relu=True)

    assert_same(outcome(fuse(channels_last(layer, True)), x, relu=True), expected)
    assert calls == ["_training"]


class Chain(nn.Module):
    """Layers in a row, whose low and pooled maps lie side by side; the first is also the residual
    of the last."""

    def __init__(self):
        super().__init__()
        self.first, self.second = make_layer((WIDE, WIDE)), make_layer(kernel=(1, 3))
        self.third, self.last = make_layer(), make_layer((WIDE, WIDE), (3, 1), 2)

    def forward(self, x):
        x = self.first(x, relu=True)
        return self.last(self.third(self.second(x, relu=True), residual=x, relu=True), relu=True)


def test_layers_that_pass_joined_maps_on_give_the_same(calls):
    layers, x = Chain(), random_pair(WIDE)
    expected = outcome(copy.deepcopy(layers), x)

    assert_same(outcome(fuse(layers), x), expected, 1e-10)
    assert calls == ["_training"] * 4


def test_gradcheck_of_the_smallest_layer(calls):
    layer = fuse(make_layer((Channels(1, 1), Channels(1, 1))))
    x = random_pair(Channels(1, 1), (1, 1, 3, 3))

    def compute(high, low):
        y = layer(OctTensor(high, low), relu=True)
        return y.high, y.low

    assert torch.autograd.gradcheck(compute, (x.high, x.low), fast_mode=True)
    assert set(calls) == {"_training"}


def test_a_gradient_that_is_one_number_for_all_positions(calls):
    layer, x = make_layer(), random_pair(WIDE)
    expected = torch.autograd.grad(
        sum(t.sum() for t in groups_of(copy.deepcopy(layer)(x, relu=True))), groups_of(x)
    )

    y = fuse(layer)(x, relu=True)

    found = torch.autograd.grad(sum(t.sum() for t in groups_of(y)), groups_of(x))
    assert_same([found], [expected])


# --- Inference


@pytest.mark.parametrize("size", [(2, 2, 5, 3), (1, 1, 2, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (1, 3)])
def test_folded_layers_are_the_plain_ones(calls, kernel, size):
    layers = nn.ModuleList([make_layer(kernel=kernel), make_layer((WIDE, HIGH), kernel, 2)]).eval()
    x = random_pair(WIDE, size)
    with torch.no_grad():
        middle = layers[0](x, residual=x, relu=True)
        expected = groups_of(middle, layers[1](middle))

        folded = fuse(fold_batch_norm(layers))
        middle = folded[0](x, residual=x, relu=True)
        found = groups_of(middle, folded[1](middle))

    assert_same([found], [expected])
    assert calls == ["_inference"] * 2


def test_a_folded_layer_in_half_precision(calls):
    layer = make_layer().eval()
    x = random_pair(WIDE).map(torch.Tensor.detach)
    with torch.no_grad():
        expected = layer(x, relu=True)

        found = fuse(fold_batch_norm(layer)).half()(x.map(torch.Tensor.half), relu=True)

    assert found.high.dtype == found.low.dtype == torch.float16
    for a, b in zip(groups_of(found), groups_of(expected), strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-2, rtol=1e-2)
    assert calls == ["_inference"]


def test_a_folded_layer_keeps_the_gradients_of_inputs_and_weights(kernels):
    """Saliency maps of a folded network, for one, differentiate it."""
    layer, x = fold_batch_norm(make_layer()), random_pair(WIDE)
    expected = torch.autograd.grad(layer(x).high.sum(), [x.high, layer.conv.h2h.weight])

    found = torch.autograd.grad(fuse(layer)(x).high.sum(), [x.high, layer.conv.h2h.weight])

    assert_same([found], [expected])


# --- What is not covered


@pytest.mark.parametrize(
    "options",
    [{"groups": 2, "padding": (0, 1, 1), "kernel_size": (1, 3, 3)},
     {"kernel_size": 1, "stride": (2, 1, 1)},
     {"kernel_size": 1, "stride": (1, 2, 2), "downsample": "stride"},
     {"kernel_size": 1, "stride": (1, 4, 4), "downsample": "pool"},
     {"kernel_size": 3, "padding": 0},
     {"kernel_size": 3, "padding": 1, "dilation": 2},
     {"kernel_size": (1, 3, 1), "padding": (0, 1, 0)},
     {"kernel_size": 2, "padding": 0}],
)  # fmt: skip
def test_convolutions_of_other_forms_are_not_covered(kernels, options):
    conv, x = OctConv3d(4, 4, bias=False, **options), OctTensor(torch.ones(1, 4, 6, 9, 9))

    assert covers(OctConv3d(4, 4, 1), x)
    assert not covers(conv, x)


def test_a_map_beyond_32_bit_positions_is_not_covered(kernels, monkeypatch):
    conv, x = OctConv3d(4, 6, 1), OctTensor(torch.ones(1, 4, 2, 5, 5))
    monkeypatch.setattr(fused, "LARGEST", 6 * 50)
    assert covers(conv, x)
    monkeypatch.setattr(fused, "LARGEST", 6 * 50 - 1)
    assert not covers(conv, x)


def test_a_cpu_without_the_interpreter_a_compiler_and_forward_mode_are_not_covered(
    kernels, monkeypatch
):
    conv, x = OctConv3d(4, 4, 1), OctTensor(torch.ones(1, 4, 2, 5, 5))
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not covers(conv, x)
    with torch.autograd.forward_ad.dual_level():
        assert not covers(conv, x)
    monkeypatch.setattr(kernels.tiles, "interpreted", lambda: False)
    assert not covers(conv, x)


@pytest.mark.parametrize(
    "options",
    [{"groups": 2, "kernel_size": (1, 3, 3), "padding": (0, 1, 1)},
     {"kernel_size": 1, "stride": (1, 2, 2), "downsample": "stride"},
     {"kernel_size": 1, "stride": (2, 1, 1)}],
)  # fmt: skip
def test_layers_that_are_not_covered_compute_as_before(calls, options):
    layer = make_layer((HIGH, HIGH))
    layer.conv = OctConv3d(HIGH, HIGH, bias=False, **options).double()
    x = random_pair(HIGH)
    expected = outcome(copy.deepcopy(layer), x, relu=True)

    assert_same(outcome(fuse(layer), x, relu=True), expected, tolerance=0)
    assert calls == []


@pytest.mark.parametrize("name", ["conv", "conv.l2h", "bn", "bn.low"])
def test_layers_with_hooks_are_called(calls, name):
    layer = make_layer()
    layer.get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    seen, x = [], random_pair(WIDE)

    fuse(layer)(x)

    assert seen
    assert calls == []


@pytest.mark.parametrize("name", ["conv.h2h", "bn.low"])
@pytest.mark.parametrize(
    "register", [nn.Module.register_full_backward_hook, nn.Module.register_full_backward_pre_hook]
)
def test_hooks_of_gradients_are_called(calls, name, register):
    layer = make_layer()
    register(layer.get_submodule(name), lambda *_: seen.append(name))
    seen, x = [], random_pair(WIDE)

    sum(t.sum() for t in groups_of(fuse(layer)(x))).backward()

    assert seen
    assert calls == []


def doubling(kind):
    class Doubled(kind):
        def forward(self, x):
            y = super().forward(x)
            return 2 * y if isinstance(y, torch.Tensor) else y.map(lambda part: 2 * part)

    return Doubled


@pytest.mark.parametrize("name", ["conv", "conv.h2h", "conv.l2l", "bn", "bn.low"])
def test_layers_of_classes_that_compute_in_their_own_way_are_called(calls, name):
    layer, x = make_layer(), random_pair(WIDE)
    part = layer.get_submodule(name)
    part.__class__ = doubling(type(part))
    expected = outcome(copy.deepcopy(layer), x)

    assert_same(outcome(fuse(layer), x), expected, tolerance=0)
    assert calls == []


def test_folded_layers_of_classes_that_compute_in_their_own_way_are_called(calls):
    layer, x = fold_batch_norm(make_layer()), random_pair(WIDE)
    layer.bn.__class__ = doubling(nn.Identity)

    with torch.no_grad():
        expected = groups_of(layer(x))
        found = groups_of(fuse(layer)(x))

    assert_same([found], [expected], tolerance=0)
    assert calls == []


def test_classes_that_change_only_how_a_layer_is_built_are_fused(calls):
    class Named(OctConv3d):
        pass

    layer, x = make_layer(), random_pair(WIDE)
    layer.conv.__class__ = Named
    expected = outcome(copy.deepcopy(layer), x)

    assert_same(outcome(fuse(layer), x), expected)
    assert calls == ["_training"]


class Counting(nn.Module):
    """A parametrization that counts how often its weight is computed."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def forward(self, weight):
        self.times += 1
        return 2 * weight


@pytest.mark.parametrize("stride", [1, 2])
def test_a_parametrized_weight_is_computed_once_in_a_step(calls, monkeypatch, stride):
    layer, x, counting = make_layer(stride=stride), random_pair(WIDE), Counting()
    register_parametrization(layer.conv.h2h, "weight", counting)
    expected = outcome(copy.deepcopy(layer), x)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    counting.times = 0

    assert_same(outcome(fuse(layer), x), expected)
    assert counting.times == 1
    assert calls == ["_training"]


def test_a_weight_that_a_hook_computes_is_that_of_the_step(calls):
    layer, x = make_layer(), random_pair(WIDE)
    spectral_norm(layer.conv.h2h)
    with torch.no_grad():
        layer.conv.h2h.weight_orig.mul_(3)
    expected = copied(layer)(x)

    assert_same([groups_of(fuse(layer)(x))], [groups_of(expected)], tolerance=0)


def test_norms_in_evaluation_mode_use_their_running_statistics(calls):
    layer, x = make_layer().eval(), random_pair(WIDE)
    expected = outcome(copy.deepcopy(layer), x)

    assert_same(outcome(fuse(layer), x), expected, tolerance=0)
    assert calls == []


def test_frozen_batch_norms_stand_still(kernels):
    layer, x = make_layer(), random_pair(WIDE)
    frozen = freeze_batch_norm(layer)
    for norm in frozen:  # as Trainer does
        norm.eval()
    before = [buffer.clone() for buffer in layer.buffers()]
    expected = groups_of(layer(x))

    found = groups_of(fuse(layer)(x))

    assert_same([found, layer.buffers()], [expected, before])


def test_synchronized_batch_norms_are_left_to_themselves(calls):
    layer, x = fuse(make_layer()), random_pair(WIDE)
    synchronize_batch_norm(layer, torch.device("cpu"))

    assert conv_norm_act(layer.conv, layer.bn, x, None, False, layer.fused) is None


@pytest.mark.parametrize("setting", [("momentum", None), ("track_running_stats", False)])
def test_batch_norms_of_other_settings_are_left_to_themselves(calls, setting):
    layer, x = make_layer(), random_pair(WIDE)
    for norm in layer.bn.groups:
        setattr(norm, *setting)
    expected = outcome(copy.deepcopy(layer), x)

    assert_same(outcome(fuse(layer), x), expected)


@pytest.mark.parametrize("training", [False, True])
def test_auto_leaves_the_cpu_alone(calls, training):
    layer = make_layer()
    layer = layer if training else fold_batch_norm(layer)

    with torch.no_grad():
        fuse(layer, "auto")(random_pair(WIDE))

    assert calls == []


def test_without_triton_a_fused_network_computes_on_the_cpu_as_before(monkeypatch):
    monkeypatch.setattr(fused, "has_triton", lambda: False)
    monkeypatch.setattr(fused, "_interpreting", lambda: False)
    layer, x = make_layer(), random_pair(WIDE)
    expected = outcome(copy.deepcopy(layer), x)

    assert_same(outcome(fuse(layer), x), expected, tolerance=0)
