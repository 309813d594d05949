"""A network as a graph: torch.fx, with an example's shapes beside every node.

torch.fx stops where Python asks a symbolic value for its truth or its size. Here every node also
has the value that the example gives it, a tensor without data. Questions about shapes are answered
from it, and each answer is kept as a `Guard` that the rewritten network checks. Questions about the
content of a tensor have no answer: the submodule that asks stays one opaque call, and the whole
network is refused only where its own `forward` asks.
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from octvideo.errors import ConfigError
from octvideo.octavize.value_tracer import Guard, UntraceableError, ValueTracer, described


@dataclass
class Trace:
    """graph: its nodes have `meta["value"]`, the tensor (without data), number or shape for the
    example.

    opaque: module type -> why its calls were not traced.
    """

    graph: fx.Graph
    guards: list[Guard]
    opaque: dict[type, str] = field(default_factory=dict)


def trace(model: nn.Module, example: Any, method: str = "forward") -> Trace:
    """Trace a method on `example`: a tensor, or a list, tuple or dict of tensors. The model is not
    changed.

    The graph serves training and evaluation: a submodule whose `forward` reads `self.training`
    stays one call. Raises ConfigError if the network's own `forward` depends on the content of a
    tensor or on `self.training`.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = _without_data(model, mode)
        values = pytree.tree_map(_two_at_least, example)
    opaque: dict[type, str] = {}
    while True:
        try:
            tracers = [ValueTracer(values, mode, model, opaque, method) for _ in range(2)]
            fake.eval()
            traces = [_trace_once(fake, tracers[0])]
            fake.train()
            traces.append(_trace_once(fake, tracers[1]))
        except UntraceableError as stop:
            if not stop.path or stop.kind in opaque:
                raise ConfigError(
                    f"{stop.kind.__name__} cannot be made octave: {stop.reason}; move that part "
                    "into a submodule, which then stays as it is"
                ) from stop
            opaque[stop.kind] = stop.reason
            continue
        culprit = _first_difference(fake, traces[0].graph, traces[1].graph, opaque)
        if culprit is None:
            return traces[0]
        if culprit is fake or type(culprit) in opaque:
            raise ConfigError(
                f"{type(model).__name__} cannot be made octave: its forward itself asks"
                " self.training; move that part into a submodule, which then stays as it is"
            )
        opaque[type(culprit)] = "its forward asks self.training"


def _without_data(model: nn.Module, mode: Any) -> nn.Module:
    """A copy with fake tensors, to be used within `mode`."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        fake = _empty_like(tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
    return copy.deepcopy(model, memo)


def _empty_like(x: Tensor, batch: int | None = None) -> Tensor:
    shape = x.shape if batch is None else (batch, *x.shape[1:])
    return torch.empty(shape, dtype=x.dtype, device="cpu" if x.is_meta else x.device)


def _two_at_least(x: Any) -> Any:
    """A batch of one has no statistics where a map is one position: batch norms refuse to train on
    it."""
    return _empty_like(x, max(len(x), 2)) if isinstance(x, Tensor) else x


def _trace_once(fake: nn.Module, tracer: "ValueTracer") -> Trace:
    try:
        graph = tracer.trace(fake)
    except UntraceableError:
        raise
    except Exception as error:
        raise UntraceableError("", type(fake), described(error)) from error
    return Trace(graph, tracer.guards, dict(tracer.opaque))


def _first_difference(
    root: nn.Module, a: fx.Graph, b: fx.Graph, opaque: Collection[type]
) -> nn.Module | None:
    """The module in whose calls two traces of `root` differ first; None if they do not differ."""
    for first, second in zip(a.nodes, b.nodes, strict=False):
        if _signature(first) != _signature(second):
            stacks = [_stack(first), _stack(second)]
            common = [p for p, q in zip(*stacks, strict=False) if p == q]
            # If one trace enters a submodule that the other one skips, it is that
            # submodule.
            below = {stack[len(common)] for stack in stacks if len(stack) > len(common)}
            for path, module in root.named_modules():
                is_own = not type(module).__module__.startswith("torch.nn")
                if path in below and is_own and type(module) not in opaque:
                    return module
            return root.get_submodule(common[-1] if common else "")
    return None


def _stack(node: fx.Node) -> list[str]:
    """The modules in which a node was made, from the outermost in."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def _signature(node: fx.Node) -> Any:
    return node.op, node.target, str(node.args), str(node.kwargs)
