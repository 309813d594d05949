"""The graph that torch.export gives, where it is the same in every mode and for every batch."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from octvideo.octavize.aliases import compute, unite
from octvideo.octavize.exporting import Exporter, without_statistics
from octvideo.octavize.in_place import without_writes
from octvideo.octavize.modes import first_difference, follow_training, leaves
from octvideo.octavize.operations import holds_tensors, value
from octvideo.octavize.value_tracer import Guard, UntraceableError, add_constants, place


@dataclass
class Exported:
    """guards: sizes of the input. constants: tensors that `forward` makes of numbers, by name."""

    graph: fx.Graph
    guards: list[Guard]
    constants: dict[str, Tensor] = field(default_factory=dict)


def exported(
    model: nn.Module, fake: nn.Module, mode: Any, example: Any, opaque: dict[type, str]
) -> Exported:
    """fake: the model without data, for `mode`. example: tensors of a batch of two or more.

    A submodule whose `forward` asks `self.training` becomes one call, and is added to `opaque`.
    Raises UntraceableError for what cannot be exported, and for what an exported program would fix
    silently.
    """
    tensors = pytree.tree_leaves(example)
    if not all(isinstance(x, Tensor) for x in tensors):
        raise UntraceableError("", type(model), "torch.export takes only tensors here")
    while True:
        exporter = Exporter(model, opaque)
        try:
            evaluated, trained = (
                _program(exporter, fake, mode, example, on) for on in (False, True)
            )
        except UntraceableError as stop:
            if not stop.path or stop.kind in opaque:
                raise
            opaque[stop.kind] = stop.reason
            continue
        follow_training(evaluated.graph, trained.graph)
        culprit = first_difference(fake, evaluated.graph, trained.graph, opaque)
        if culprit is None and _equal(evaluated.constants, trained.constants):
            break
        if culprit in (None, fake) or type(culprit) in opaque:
            raise UntraceableError("", type(model), "its forward asks self.training")
        opaque[type(culprit)] = "its forward asks self.training"
    _check_batch_of_one(exporter, fake, mode, example, evaluated)
    unite(evaluated.graph, trained.graph)
    try:
        without_writes(evaluated.graph)
    except ValueError as error:
        raise UntraceableError("", type(model), str(error)) from error
    _add_values(evaluated, fake, mode, example)
    return evaluated


def _program(
    exporter: Exporter, fake: nn.Module, mode: Any, example: Any, training: bool, free: bool = True
) -> Exported:
    graph = exporter.graph(example, training, free)
    program = Exported(graph, exporter.guards, exporter.constants)
    _add_values(program, fake, mode, example, training)
    return program


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _check_batch_of_one(
    exporter: Exporter, fake: nn.Module, mode: Any, example: Any, program: Exported
) -> None:
    """torch.export takes every free size for two or more."""
    one = pytree.tree_map(lambda x: x[:1].clone(), example)
    at_one = _program(exporter, fake, mode, one, training=False, free=False)
    _add_values(program, fake, mode, one)
    graphs = [_tensor_nodes(graph) for graph in (program.graph, at_one.graph)]
    places = {node: i for nodes in graphs for i, node in enumerate(nodes)}
    for node, other in zip(*graphs, strict=False):
        if (node.target, _inputs(node, places)) != (other.target, _inputs(other, places)):
            where = place(other if node.op == "output" else node)
            raise UntraceableError(
                "", type(exporter.model), f"{where}: the batch decides what is computed"
            )
    _add_values(program, fake, mode, example)


def _tensor_nodes(graph: fx.Graph) -> list[fx.Node]:
    nodes = [n for n in graph.nodes if n.op != "placeholder"]
    return [n for n in nodes if holds_tensors(n)]


def _inputs(node: fx.Node, places: dict[fx.Node, int]) -> list[Any]:
    """The arguments; a tensor counts by its size and its place in the graph."""
    found = [(x, value(x) if isinstance(x, fx.Node) else x) for x in leaves(node)[0]]
    return [
        (str(tuple(y.shape)), places.get(x)) if isinstance(y, Tensor) else str(y) for x, y in found
    ]


class _Noting(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        if n.meta.get("content") is not None:
            n.meta["value"], n.meta["writes"] = n.meta["content"], []
            return n.meta["content"]
        return compute(n, lambda: super(_Noting, self).run_node(n))

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        with without_statistics(self.module.get_submodule(target)):
            return super().call_module(target, args, kwargs)


def _add_values(
    program: Exported, fake: nn.Module, mode: Any, example: Any, training: bool = False
) -> None:
    """Compute all nodes on tensors without data."""
    add_constants(fake, program.constants)
    with mode, torch.no_grad():
        _Noting(fake.train(training), graph=program.graph).run(
            pytree.tree_map(mode.from_tensor, example)
        )
