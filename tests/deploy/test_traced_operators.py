"""The traced operators move the bytes and make the multiply-adds that a real run does, counted in
another way."""

import math
import re

import pytest
import torch
from narrow_networks import of_two_blocks
from reparametrized import pruned
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from octvideo import create_model
from octvideo.complexity import count
from octvideo.deploy.layer_times import layer_names
from octvideo.deploy.operators import Style, trace_operators
from octvideo.layers import lower
from octvideo.models.registry import MODELS, input_shape_of

CLIP = (3, 8, 64, 64)
SMALL = {"width_per_group": 16, "num_classes": 5}
NETWORKS = [
    ("i3d_r26", 0.0),
    ("i3d_r26", 0.25),
    ("c2d_nln_r26", 0.25),
    ("slowfast_r26", 0.25),
]


class BytesOfARun(TorchDispatchMode):
    """Bytes of the tensors that enter and leave the operators of a real run; memory that is only
    viewed is free."""

    IGNORED = ("empty", "new_empty", "clone", "copy_", "_to_copy")

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        inputs = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
        outputs = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        memory = {t.untyped_storage().data_ptr() for t in inputs}
        is_view = not func._schema.is_mutable and any(
            t.untyped_storage().data_ptr() in memory for t in outputs if t.numel()
        )
        if not (is_view or name.startswith(self.IGNORED)):
            self.moved += self._bytes(name, args, inputs, outputs)
        return out

    def _bytes(self, name, args, inputs, outputs):
        size = sum(map(self._size, inputs)) + sum(map(self._size, outputs))
        if name == "native_batch_norm" and args[5]:
            # The input once more; the statistics are written, then read.
            return size + self._size(args[0]) + self._size(outputs[1]) + self._size(outputs[2])
        if name == "native_batch_norm":
            return size - self._size(outputs[1]) - self._size(outputs[2])
        if name == "native_batch_norm_backward":
            # Gradient, input and statistics once more; the running statistics not at all.
            grad, x, _, mean, var, saved_mean, saved_invstd = args[:7]
            again = [grad, x, saved_mean, saved_invstd, *outputs[1:]]
            return size + sum(map(self._size, again)) - self._size(mean) - self._size(var)
        if name == "convolution_backward" and args[-1][0]:
            return size + self._size(args[0])  # two products, each of which reads the gradient
        if name == "convolution_backward":
            return size - self._size(args[2])  # the gradient of the weight does not need the weight
        if "pool" in name and name.endswith("backward"):
            return size - self._size(args[1])  # the shape of the pool's input is enough
        return size

    @staticmethod
    def _size(t):
        distinct = (size for size, stride in zip(t.shape, t.stride(), strict=True) if stride)
        return t.element_size() * math.prod(distinct)


@pytest.mark.parametrize("train", [False, True], ids=["inference", "train"])
@pytest.mark.parametrize(("name", "alpha"), NETWORKS)
def test_bytes_are_those_of_the_tensors_in_a_real_run(name, alpha, train):
    model = lower(create_model(name, alpha=alpha, **SMALL), False).train(train)
    traced = trace_operators(model, CLIP, batch=2, train=train, itemsize=4)

    clips = torch.randn(2, *CLIP)
    with BytesOfARun() as run:
        out = model(clips)
        if train:
            out.backward(torch.empty_like(out))

    # SlowFast's frame numbers are made on the CPU: eight bytes each.
    assert abs(sum(op.num_bytes for op in traced.operators) - run.moved) <= 64


@pytest.mark.parametrize(("name", "alpha"), NETWORKS)
def test_a_training_step_has_three_times_the_products_but_for_the_gradient_of_the_clip(name, alpha):
    model = create_model(name, alpha=alpha, **SMALL)
    stems = [op for op in trace_operators(model, CLIP).operators if op.layer.endswith("stem.conv")]
    forward = sum(op.flops for op in trace_operators(model, CLIP).operators)

    step = sum(op.flops for op in trace_operators(model, CLIP, train=True).operators)

    assert step == 3 * forward - sum(op.flops for op in stems)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MODELS if not re.search("101|152|200", n)])
def test_flops_are_twice_the_multiply_adds_of_every_network(name):
    with torch.device("meta"):
        model = of_two_blocks(name, alpha=0.25)
    convolutions = ("convolution", "addmm")

    operators = trace_operators(model, input_shape_of(name), batch=3).operators

    flops = sum(op.flops for op in operators if op.name in convolutions)
    assert flops == 3 * 2 * count(model, input_shape_of(name)).macs
    assert [op.name for op in operators if op.style is Style.OTHER] == []


def test_every_layer_of_the_network_has_operators_forward_and_backward():
    model = create_model("slowfast_r26", alpha=0.25, **SMALL)

    operators = trace_operators(model, CLIP, train=True).operators

    for backward in (False, True):
        found = {op.layer for op in operators if op.backward == backward}
        assert {*layer_names(model), "head.fc"} <= found


def test_an_integer_keeps_its_size_and_a_float_takes_that_of_the_precision():
    pool = nn.MaxPool2d(2)

    (half,), (full,) = (
        trace_operators(pool, (1, 4, 4), itemsize=size).operators for size in (2, 4)
    )

    assert half.num_bytes == 16 * 2 + 4 * 2 + 4 * 8
    assert full.num_bytes == 16 * 4 + 4 * 4 + 4 * 8


def test_the_network_is_left_as_it_was():
    model = create_model("i3d_r26", alpha=0.25, memory_saving=True, **SMALL).eval()

    trace_operators(model, CLIP, train=True)

    modules = list(model.modules())
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert model.res3.block0.reduce.conv.memory_saving


@pytest.mark.parametrize("train", [False, True])
def test_a_network_of_computed_weights_and_plain_tensors_is_traced(train):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = pruned(nn.Conv2d(3, 8, 3)), torch.rand(8, 1, 1)

        def forward(self, x):
            return self.conv(x) * self.scale

    model = Scaled()
    model(torch.rand(1, 3, 6, 6))

    operators = trace_operators(model, (3, 6, 6), train=train)

    assert operators.num_parameters == 3 * 8 * 9 + 8
    assert not model.scale.is_meta
