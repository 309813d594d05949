"""Parameters, multiply-adds and activations of a network, per layer and per stage.

The paper's convention: one multiply-add of a convolution or linear layer is one "FLOP"; batch 1; no
batch norm, ReLU, pooling, upsampling or attention product. Two counts that share no code:

    count(model, (3, 8, 224, 224))    closed form: weights of each layer times positions
    trace(model, (3, 8, 224, 224))    fvcore: the operators that the network runs

`count_twice` compares the first with the second, or with torch.utils.flop_counter: the operators
that run during the first, on the meta device.
"""

import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from octvideo.copies import drop_data
from octvideo.counted_run import evaluating, norms_left_out, noting, running, tensors_of
from octvideo.errors import OctvideoError
from octvideo.layers import OctConv2d, OctConv3d, OctTensor, as_pair
from octvideo.layers.nonlocal_block import PooledConv

PLAIN_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
MAC_OPERATORS = ("conv", "linear", "addmm")
KINDS = {"convolution": "conv", "mm": "linear", "addmm": "linear"}


@dataclass(frozen=True, slots=True)
class LayerCost:
    """A convolution (an octave convolution is one layer) or linear layer. activations: elements of
    its output."""

    name: str
    parameters: int
    macs: int
    activations: int


@dataclass(frozen=True, slots=True)
class StageCost:
    """A direct child of the network: stem, ..., head; of a child that only holds modules, as a
    pathway does, one of those.

    outputs: (C, T, H, W) of high and low. An octavized network calls layers and no stages: they are
    those of a stage's last layer.
    """

    name: str
    outputs: tuple[tuple[int, ...], ...]
    parameters: int
    macs: int
    activations: int


@dataclass(frozen=True, slots=True)
class Complexity:
    """The cost of one clip or image.

    uncounted: weights without multiply-adds in it: of layers that are neither convolutions nor
    linear (an LSTM), or that an evaluation does not run.
    """

    layers: tuple[LayerCost, ...]
    stages: tuple[StageCost, ...]
    parameters: int
    uncounted: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def activations(self) -> int:
        return sum(layer.activations for layer in self.layers)


def count(model: nn.Module, input_shape: Sequence[int]) -> Complexity:
    """Count in closed form; nothing is computed. input_shape: (C, T, H, W) of a clip or (C, H, W)
    of an image.

    Weights that it does not count are the result's `uncounted`: say so where a number is shown.
    """
    layers: dict[str, LayerCost] = {}
    outputs: dict[str, list[tuple[int, ...]]] = {}
    with (
        _hooks(model, layers, outputs),
        _attributes_without_data(model),
        evaluating(model),
        norms_left_out(model),
        torch.no_grad(),
    ):
        meta = {name: torch.empty_like(t, device="meta") for name, t in tensors_of(model)}
        functional_call(model, meta, torch.empty(1, *input_shape, device="meta"))
    counted = tuple(f"{name}." for name in layers)
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    missed = tuple(name for name in matrices if not name.startswith(counted))
    stages = tuple(_stage_cost(model, name, shapes, layers) for name, shapes in outputs.items())
    return Complexity(tuple(layers.values()), stages, _num_parameters(model), missed)


def trace(model: nn.Module, input_shape: Sequence[int]) -> Counter[str]:
    """Multiply-adds per kind of operator, by fvcore: conv, linear, and what the paper leaves out
    (batch_norm, einsum).

    The network runs once, on zeros.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, on which fvcore stands
        from fvcore.nn import FlopCountAnalysis

        device = next(model.parameters()).device
        with evaluating(model), torch.no_grad():
            analysis = FlopCountAnalysis(model, torch.zeros(1, *input_shape, device=device))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            return Counter({kind: round(macs) for kind, macs in analysis.by_operator().items()})


def traced_macs(operators: Counter[str]) -> int:
    """Multiply-adds of convolutions and linear layers."""
    return sum(operators[kind] for kind in MAC_OPERATORS)


def count_twice(
    model: nn.Module, input_shape: Sequence[int], *, compute: bool = True
) -> tuple[Complexity, Counter[str]]:
    """`count` and `trace`. A model on the meta device is filled with zeros.

    compute: False for torch's formulas instead of `trace`: nothing is computed.
    "bmm" are the attention products, which the paper leaves out.

    Raises OctvideoError where the two differ, as they do if a weight is used without a call of its
    layer.
    """
    if compute:
        cost, counter = count(model, input_shape), "fvcore"
        if next(model.parameters()).is_meta:
            model.to_empty(device="cpu")
            for _, tensor in tensors_of(model):
                tensor.detach().zero_()
        operators = trace(model, input_shape)
    else:
        from torch.utils.flop_counter import FlopCounterMode  # imports all of Triton

        with FlopCounterMode(display=False) as flops:
            cost, counter = count(model, input_shape), "torch"
        operators = Counter[str]()
        for operator, number in flops.get_flop_counts()["Global"].items():
            name = str(operator).removeprefix("aten.")
            operators[KINDS.get(name, name)] += number // 2
    traced = traced_macs(operators)
    if cost.macs != traced:
        raise OctvideoError(
            f"{type(model).__name__} has {cost.macs} multiply-adds by closed form"
            f"{without(cost.uncounted)}, and {traced} by {counter}; every weight must be used by a"
            " call of its layer, a convolution or nn.Linear"
        )
    return cost, operators


def without(names: Sequence[str], shown: int = 3) -> str:
    """To stand behind a number of multiply-adds: the weights that it leaves out; "" for none."""
    others = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f", without those of {', '.join(names[:shown])}{others}" if names else ""


def stage_table(model: nn.Module, input_shape: Sequence[int]) -> str:
    """A line per stage: channels (high + low), sizes, parameters, MACs and activations."""
    cost = count(model, input_shape)
    rows: list[tuple[str, ...]] = [
        ("stage", "channels", "size", "parameters", "MACs", "activations")
    ]
    for stage in cost.stages:
        channels = " + ".join(str(shape[0]) for shape in stage.outputs)
        sizes = " + ".join("x".join(map(str, shape[1:])) for shape in stage.outputs)
        rows.append((stage.name, channels, sizes, *_millions(stage)))
    rows.append(("total", "", "", *_millions(cost)))
    table = align(rows, numbers=(3, 4, 5))
    return f"{table}\nMACs{without(cost.uncounted)}" if cost.uncounted else table


def _millions(cost: StageCost | Complexity) -> list[str]:
    return [f"{n / 1e6:,.3f} M" for n in (cost.parameters, cost.macs, cost.activations)]


def align(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> str:
    """Rows of cells as lines of aligned columns; those in `numbers` are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def pad(i: int, cell: str) -> str:
        return cell.rjust(widths[i]) if i in numbers else cell.ljust(widths[i])

    def line(row: Sequence[str]) -> str:
        return "  ".join(pad(i, cell) for i, cell in enumerate(row)).rstrip()

    return "\n".join(map(line, rows))


# --- The closed form


def _oct_cost(name: str, conv: OctConv2d | OctConv3d, x: OctTensor, y: OctTensor) -> LayerCost:
    """Each path's weights times its positions; l2h is applied at the size of the low input."""
    positions = {"h2h": _positions(y.high)}
    if y.low is not None:
        positions["h2l"] = positions["l2l"] = _positions(y.low)
    if x.low is not None:
        frames = _positions(y.high[..., :1, :1])
        positions["l2h"] = frames * math.prod(x.low.shape[-2:])
    macs = sum(path.weight.numel() * positions[kind] for kind, path in conv.paths.items())
    return LayerCost(
        name, _num_parameters(conv), macs, y.high.numel() + (0 if y.low is None else y.low.numel())
    )


def _plain_cost(name: str, layer: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> LayerCost:
    weight: Any = layer.weight
    if isinstance(layer, nn.Linear):
        positions = y.numel() // y.shape[-1]
    else:
        positions = _positions(inputs[0] if isinstance(layer, PooledConv) else y)
    return LayerCost(name, _num_parameters(layer), weight.numel() * positions, y.numel())


def _positions(x: Tensor) -> int:
    """Those of all maps in the batch: of one clip, several where its frames are in it."""
    return len(x) * math.prod(x.shape[2:])


@contextmanager
def _hooks(
    model: nn.Module, layers: dict[str, LayerCost], outputs: dict[str, list[tuple[int, ...]]]
) -> Iterator[None]:
    """A context in which a forward pass records costs of layers and outputs of stages."""
    modules = {name: module for name, module in model.named_modules() if name}
    stages = {name: _stage_of(name, modules) for name in modules}
    octave = {name: m for name, m in modules.items() if isinstance(m, OctConv2d | OctConv3d)}
    inside_octave = tuple(f"{name}." for name in octave)
    stack: list[tuple[str, nn.Module]] = []
    last: dict[str, str] = {}

    def note(name: str, inputs: tuple[Any, ...], y: Any) -> None:
        if name in octave:
            _add(layers, _oct_cost(name, octave[name], as_pair(inputs[0]), as_pair(y)))
        elif isinstance(modules[name], PLAIN_LAYERS) and not name.startswith(inside_octave):
            _add(layers, _plain_cost(name, modules[name], inputs, y))
        if len(stack) == 1:
            groups = [y.high, y.low] if isinstance(y, OctTensor) else [y]
            # A pool or an activation of a graph is called for each group of a pair.
            if last.get(stages[name]) != name:
                outputs[stages[name]] = []
            last[stages[name]] = name
            outputs[stages[name]] += [tuple(t.shape[1:]) for t in groups if isinstance(t, Tensor)]

    # In this order: a module is noted while it still is on the stack.
    with noting(modules, note), running(model, stack):
        yield


def _stage_of(name: str, modules: Mapping[str, nn.Module]) -> str:
    """The outermost module around `name` that could be called. A traced graph leaves bare modules
    in place of those that its layers were in."""
    parts = name.split(".")
    for prefix in (".".join(parts[:i]) for i in range(1, len(parts))):
        kind = type(modules[prefix])
        if kind is nn.Module or kind.forward is not nn.Module.forward:
            return prefix
    return name


@contextmanager
def _attributes_without_data(model: nn.Module) -> Iterator[None]:
    """A context in which plain tensors are on the meta device, where what the network computes and
    keeps is, too. It leaves all attributes as they were."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    drop_data(model)
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def _add(layers: dict[str, LayerCost], cost: LayerCost) -> None:
    """A layer that is called twice costs twice, with the same parameters."""
    if cost.name in layers:
        before = layers[cost.name]
        cost = LayerCost(
            cost.name,
            cost.parameters,
            before.macs + cost.macs,
            before.activations + cost.activations,
        )
    layers[cost.name] = cost


def _stage_cost(
    model: nn.Module, name: str, shapes: list[tuple[int, ...]], layers: dict[str, LayerCost]
) -> StageCost:
    inside = [layer for layer in layers.values() if f"{layer.name}.".startswith(f"{name}.")]
    macs, activations = (
        sum(layer.macs for layer in inside),
        sum(layer.activations for layer in inside),
    )
    return StageCost(
        name, tuple(shapes), _num_parameters(model.get_submodule(name)), macs, activations
    )


def _num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
