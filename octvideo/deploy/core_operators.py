"""An exported network in the operators that OpenVINO's converter reads, without a second trace.

The converter would let torch decompose the graph, which traces it again: most of the time of a
conversion. It has rules for all operators of plain and octave networks but those below. Non-local
and Glore blocks have others, and are traced again.
"""

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node

aten = torch.ops.aten
CONVOLUTIONS = {aten.conv1d.default: 1, aten.conv2d.default: 2, aten.conv3d.default: 3}
MAX_POOLS = {
    aten.max_pool2d.default: aten.max_pool2d_with_indices.default,
    aten.max_pool3d.default: aten.max_pool3d_with_indices.default,
}


def core_operators(program: torch.export.ExportedProgram) -> GraphModule | None:
    """A module of the program; None if an operator writes into its input: a trace resolves it."""
    module = program.module()
    assert isinstance(module, GraphModule)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    if any(getattr(getattr(n.target, "_schema", None), "is_mutable", False) for n in nodes):
        return None
    for node in nodes:
        if node.target in CONVOLUTIONS:
            x, weight, bias, stride, padding, dilation, groups = _arguments(node)
            dims = CONVOLUTIONS[node.target]
            each = [_per_dimension(value, dims) for value in (stride, padding, dilation)]
            arguments = (x, weight, bias, *each, False, [0] * dims, groups)
            _call(module, node, aten.convolution.default, arguments)
        elif node.target in MAX_POOLS:
            _call(module, node, MAX_POOLS[node.target], tuple(_arguments(node)), first=True)
        elif node.target is aten.batch_norm.default and not node.args[5]:
            *tensors, _, momentum, eps, _ = _arguments(node)
            operation = aten._native_batch_norm_legit_no_training.default
            _call(module, node, operation, (*tensors, momentum, eps), first=True)
        elif node.target is aten.relu6.default:
            _call(module, node, aten.hardtanh.default, (node.args[0], 0.0, 6.0))
        elif node.target is aten.dropout.default and node.args[2:] in ((), (False,)):
            _replace(module, node, node.args[0])
    return module


def _call(
    module: GraphModule, node: Node, operation: Any, arguments: tuple[Any, ...], first: bool = False
) -> None:
    """The operation in place of the node. first: of what it returns."""
    with module.graph.inserting_before(node):
        by = module.graph.call_function(operation, arguments)
        if first:
            by = module.graph.call_function(operator.getitem, (by, 0))
    _replace(module, node, by)


def _replace(module: GraphModule, node: Node, by: Any) -> None:
    by.meta.update(node.meta)
    node.replace_all_uses_with(by)
    module.graph.erase_node(node)


def _arguments(node: Node) -> list[Any]:
    """All of them, defaults included, in the order of the schema."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in schema), node.args, strict=False)) | node.kwargs
    return [given.get(a.name, a.default_value) for a in schema]


def _per_dimension(value: Any, dimensions: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * dimensions if len(values) == 1 else values
