"""A network as a graph: torch.fx, with an example's shapes beside every node.

torch.fx stops where Python asks a symbolic value for its truth or its size. Here every node also
has the value that the example gives it, a tensor without data. Questions about shapes are answered
from it, and each answer is kept as a `Guard` that the rewritten network checks. Questions about the
content of a tensor have no answer: the submodule that asks stays one opaque call, and the whole
network is refused only where its own `forward` asks.
"""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from octvideo.copies import copying
from octvideo.counted_run import norms_not_computed
from octvideo.errors import ConfigError
from octvideo.octavize.aliases import follow_write, unite
from octvideo.octavize.kept import ASSIGNS, as_buffers, own_tensors, restored
from octvideo.octavize.modes import first_difference, follow_training, stack
from octvideo.octavize.value_tracer import (
    Guard,
    UntraceableError,
    ValueTracer,
    described,
    is_leaf,
    place,
)


@dataclass
class Trace:
    """graph: its nodes have `meta["value"]`, the tensor (without data), number or shape for the
    example.

    opaque: module type -> why its calls were not traced.
    constants: tensors that `forward` makes of numbers. not_by_fx: why torch.export had to trace the
    network; "" if it did not.
    """

    graph: fx.Graph
    guards: list[Guard]
    opaque: dict[type, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    not_by_fx: str = ""


def trace(model: nn.Module, example: Any, method: str = "forward") -> Trace:
    """Trace a method on `example`: a tensor, or a list, tuple or dict of tensors. The model is not
    changed.

    The graph serves training and evaluation: a submodule whose `forward` reads `self.training`
    stays one call. Raises ConfigError if the network's own `forward` depends on the content of a
    tensor or on `self.training`.
    """
    with _where_data_can_be():
        return _trace(_Subject(model, example), method)


def trace_with_forward(model: nn.Module, example: Any, method: str) -> tuple[Trace, Trace]:
    """`trace(model, example, method)`, and the trace of the `forward` that calls the method, for
    evaluation alone; one trace twice if the method is `forward`."""
    with _where_data_can_be():
        subject = _Subject(model, example)
        traced = _trace(subject, method)
        return traced, traced if method == "forward" else _forward(subject, traced, method)


def _where_data_can_be() -> Any:
    """The default device goes into the graph with each tensor that is made: a network that is built
    on the meta device could never run."""
    is_meta = torch.get_default_device().type == "meta"
    return torch.device("cpu") if is_meta else nullcontext()


class _Subject:
    """A network that is traced on an example. fake: its copy without data, as `values` are those of
    the example, to be used within `mode`."""

    def __init__(self, model: nn.Module, example: Any) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.model, self.example = model, example
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            self.fake = _without_data(model, mode)
            self.values = pytree.tree_map(_two_at_least, example)
        self.mode = mode

    def tracer(self, method: str, opaque: dict[type, str]) -> ValueTracer:
        return ValueTracer(self.values, self.mode, self.model, opaque, method)


def _trace(subject: _Subject, method: str) -> Trace:
    fake = subject.fake
    opaque: dict[type, str] = {}
    while True:
        try:
            tracers = [subject.tracer(method, opaque) for _ in range(2)]
            fake.eval()
            traces = [_trace_once(fake, tracers[0])]
            fake.train()
            traces.append(_trace_once(fake, tracers[1]))
            follow_training(traces[0].graph, traces[1].graph)
            culprit = first_difference(fake, traces[0].graph, traces[1].graph, opaque)
            if culprit is None:
                _follow_writes(fake, traces[0].graph, traces[1].graph, opaque)
                return traces[0]
        except UntraceableError as stop:
            if not stop.path or stop.kind in opaque:
                return _by_export(subject, opaque, stop, method)
            opaque[stop.kind] = stop.reason
            continue
        if culprit is fake or type(culprit) in opaque:
            raise ConfigError(
                f"{type(subject.model).__name__} cannot be made octave: its forward itself asks"
                " self.training; move that part into a submodule, which then stays as it is"
            )
        opaque[type(culprit)] = "its forward asks self.training"


def _forward(subject: _Subject, traced: Trace, method: str) -> Trace:
    """`forward` in evaluation, where it calls `method` as it was traced. If that has opaque calls,
    they are looked into: an evaluation does not show what asks self.training."""
    opaque: dict[type, str] = {}
    while True:
        tracer = subject.tracer("forward", opaque)
        if not traced.opaque:
            setattr(subject.fake, method, partial(_replay, traced.graph, tracer))
        try:
            return _trace_once(subject.fake.eval(), tracer)
        except UntraceableError as stop:
            vars(subject.fake).pop(method, None)  # torch.export calls the network's own
            if not stop.path or stop.kind in opaque:
                return _by_export(subject, opaque, stop, "forward")
            opaque[stop.kind] = stop.reason


def _replay(graph: fx.Graph, tracer: ValueTracer, *_: Any) -> Any:
    """A traced method, called in another trace of the same example: its nodes and their values."""
    inputs = {_input_of(graph): _input_of(tracer.graph)}
    return _proxies(tracer.graph.graph_copy(graph, inputs), tracer)


def _input_of(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op == "placeholder")


def _proxies(x: Any, tracer: ValueTracer) -> Any:
    """What a method returns, of a graph's nodes in its lists, tuples and dicts, which the graph
    has made immutable."""
    if isinstance(x, list | tuple):
        return (list if isinstance(x, list) else tuple)(_proxies(item, tracer) for item in x)
    if isinstance(x, dict):
        return {key: _proxies(item, tracer) for key, item in x.items()}
    return tracer.proxy(x) if isinstance(x, fx.Node) else x


def _follow_writes(
    fake: nn.Module, graph: fx.Graph, trained: fx.Graph, opaque: dict[type, str]
) -> None:
    """Let all that holds a tensor which is changed in place see the change.

    Raises UntraceableError for a module whose `forward` changes a tensor that has another name.
    """
    unite(graph, trained)
    for node in [n for n in graph.nodes if n.meta["writes"]]:
        try:
            follow_write(node)
        except ValueError as error:
            calls = [(path, fake.get_submodule(path)) for path in stack(node)]
            own = [
                (path, type(module))
                for path, module in calls
                if not is_leaf(module, path, opaque) and type(module) is not nn.Sequential
            ]
            path, kind = own[-1] if own else ("", type(fake))
            raise UntraceableError(path, kind, f"{place(node)}: {error}") from error


def _is_inside_a_call(path: str, modules: dict[str, nn.Module], opaque: dict[type, str]) -> bool:
    """Whether the module, or one around it, is one call: what it assigns, it does again."""
    parts = path.split(".")
    outer = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(is_leaf(modules[name], name, opaque) for name in outer if name in modules)


def _by_export(
    subject: _Subject, opaque: dict[type, str], stop: UntraceableError, method: str
) -> Trace:
    """The trace of torch.export, where torch.fx stopped at the network's own `forward`."""
    from octvideo.octavize.fallback import exported

    also = ""
    if not stop.path and method == "forward":
        try:
            batch = pytree.tree_map(_two_at_least, subject.example)
            program = exported(subject.model, subject.fake, subject.mode, batch, opaque)
            return Trace(program.graph, program.guards, opaque, program.constants, stop.reason)
        except UntraceableError as second:
            also = f"; nor by torch.export: {second.reason}"
    raise ConfigError(
        f"{stop.kind.__name__} cannot be made octave: {stop.reason}{also}; move that part into a"
        " submodule, which then stays as it is"
    ) from stop


def _without_data(model: nn.Module, mode: Any) -> nn.Module:
    """A copy with fake tensors, to be used within `mode`. Those that are attributes are buffers."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        fake = _empty_like(tensor)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
    with copying(lambda tensor, memo: _empty_like(tensor)):
        return as_buffers(copy.deepcopy(model, memo))


def _empty_like(x: Tensor, batch: int | None = None) -> Tensor:
    shape = x.shape if batch is None else (batch, *x.shape[1:])
    return torch.empty(shape, dtype=x.dtype, device="cpu" if x.is_meta else x.device)


def _two_at_least(x: Any) -> Any:
    """Batch norms refuse to train on a batch of one whose map is one position."""
    return _empty_like(x, max(len(x), 2)) if isinstance(x, Tensor) else x


def _trace_once(fake: nn.Module, tracer: "ValueTracer") -> Trace:
    plain = {p: m for p, m in fake.named_modules() if not isinstance(m, torch.jit.ScriptModule)}
    tensors = {path: own_tensors(module) for path, module in plain.items()}
    try:
        with norms_not_computed(fake):
            graph = tracer.trace(fake)
    except UntraceableError:
        raise
    except Exception as error:
        raise UntraceableError("", type(fake), described(error)) from error
    finally:
        assigned = [path for path, saved in tensors.items() if restored(plain[path], saved)]
        assigned = [path for path in assigned if not _is_inside_a_call(path, plain, tracer.opaque)]
    if assigned:
        path = assigned[0]
        raise UntraceableError(path, type(plain[path]), ASSIGNS)
    return Trace(graph, tracer.guards, dict(tracer.opaque), tracer.constants)
