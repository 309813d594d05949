"""Writes into tensors, as `x[:, 0] = 1` and `x.add_(y)`, as operations that give a new tensor.

Behind a map that is divided, a write would reach one group, or a merged copy. torch's own
functionalization takes dropout and batch norm apart besides.
"""

import operator
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from octvideo.octavize.aliases import ANOTHER_NAME, follow_write, share
from octvideo.octavize.operations import EACH_METHODS, JOIN_METHODS, is_operator, name_of, value
from octvideo.octavize.value_tracer import place

ATEN = torch.ops.aten
SCATTERS: dict[Any, Any] = {
    ATEN.slice.Tensor: ATEN.slice_scatter.default,
    ATEN.select.int: ATEN.select_scatter.default,
}


def without_writes(graph: fx.Graph) -> None:
    """Replace every write; those into buffers stay. The nodes have values of an evaluation.

    Raises ValueError, with the place, for a write into the network's input, and where a tensor that
    shares data with what is written, other than through slices, is read behind the write.
    """
    for node in list(graph.nodes):
        if node.op == "call_module" and node.meta["writes"]:
            _follow(node)
        if not (is_operator(node.target) and _schema(node).is_mutable):
            continue
        written: Any = node.args[0]
        if (
            node.target is ATEN.copy_.default
            and isinstance(node.args[1], fx.Node)
            and share(written, node.args[1])
        ):
            # torch.export copies a buffer that was assigned, and changed in place, onto itself.
            node.replace_all_uses_with(written)
            graph.erase_node(node)
            continue
        chain = _views(written)
        root = chain[-1]
        if _is_input(root):
            raise ValueError(f"{place(node)}: it changes the input of the network")
        if root.op != "get_attr":
            slices = _slices(chain)
            _check(node, slices, chain)
            _replace(node, slices)
    graph.lint()


def _follow(node: fx.Node) -> None:
    try:
        follow_write(node)
    except ValueError as error:
        raise ValueError(f"{place(node)}: {error}") from error


def _views(written: Any) -> list[fx.Node]:
    """The written tensor, what it is a view of, and so on."""
    chain = [written]
    while (source := _viewed(chain[-1])) is not None:
        chain.append(source)
    return chain


def _viewed(node: fx.Node) -> fx.Node | None:
    if "is_new" in node.meta:
        return None
    return next((n for n in node.all_input_nodes if share(n, node)), None)


def _slices(chain: list[fx.Node]) -> list[fx.Node]:
    """The part of it that a write can be put into: slices, and what they are of."""
    views = [view.target in SCATTERS for view in chain]
    return chain[: views.index(False) + 1]


def _is_input(node: fx.Node) -> bool:
    while node.target is operator.getitem:
        node = node.all_input_nodes[0]
    return node.op == "placeholder"


def _check(node: fx.Node, slices: list[fx.Node], chain: list[fx.Node]) -> None:
    writes = [x.alias_info is not None and x.alias_info.is_write for x in _schema(node).arguments]
    if writes.index(True) or sum(writes) > 1:
        raise ValueError(f"{place(node)}: it writes into more than its first argument")
    order = _order(node.graph)
    for other in order:
        shares = order[other] < order[node] and other not in slices and share(other, chain[0])
        if shares and any(order[user] > order[node] for user in other.users):
            why = "it writes into a view of a tensor" if other in chain else ANOTHER_NAME
            raise ValueError(f"{place(node)}: {why}")


def _replace(node: fx.Node, chain: list[fx.Node]) -> None:
    """Write into a new tensor, rebuild the tensors that `chain` views of it, and view again."""
    order, graph = _order(node.graph), node.graph

    def copy(target: Any, args: Any, kwargs: Any, of: fx.Node) -> fx.Node:
        new = graph.call_function(target, args, kwargs)
        new.meta = {**node.meta, "value": value(of), "trained": of.meta["trained"], "writes": []}
        return new

    with graph.inserting_before(node):
        new = _new_tensor(node, copy)
        for view, source in pairwise(chain):
            new = copy(SCATTERS[view.target], (source, new, *view.args[1:]), view.kwargs, source)
        new.meta["is_new"] = True
        for old in reversed(chain):
            if old is not chain[-1]:
                new = copy(old.target, (new, *old.args[1:]), old.kwargs, old)
            for user in [user for user in old.users if order.get(user, -1) > order[node]]:
                user.replace_input_with(old, new)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _new_tensor(node: fx.Node, copy: Any) -> fx.Node:
    """The operation without the write, or on a copy of its tensor."""
    name = name_of(node.target).rstrip("_")
    if name in EACH_METHODS | JOIN_METHODS:
        packet = getattr(ATEN, name)
        return copy(getattr(packet, node.target._overloadname), node.args, node.kwargs, node)  # type: ignore[union-attr]
    copied = copy(ATEN.clone.default, (node.args[0],), {}, node)
    return copy(node.target, (copied, *node.args[1:]), node.kwargs, node)


def _schema(node: fx.Node) -> Any:
    return node.target._schema  # type: ignore[union-attr]


def _order(graph: fx.Graph) -> dict[fx.Node, int]:
    return {node: i for i, node in enumerate(graph.nodes)}
