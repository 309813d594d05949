"""Tensors that an operation changes in place, and their other names.

In a graph, a name is a node. Behind a map that is divided, a change in place reaches its groups or
a merged copy, but not what other nodes hold of the map. Therefore every node behind the operation
reads its result; where that would not be the whole truth, the operation cannot be traced.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

ANOTHER_NAME = "it writes into a tensor that has another name too"


def compute(node: fx.Node, run: Callable[[], Any]) -> Any:
    """`run()`, kept as the node's value beside the inputs that it changed."""
    inputs = node.all_input_nodes
    before = [_versions(n) for n in inputs]
    node.meta["value"] = run()
    changed = zip(inputs, before, strict=True)
    node.meta["writes"] = [n for n, versions in changed if _versions(n) != versions]
    return node.meta["value"]


def unite(evaluated: fx.Graph, trained: fx.Graph) -> None:
    """Give the nodes of one trace what is known of those of the other: a dropout changes its input
    in training only, and only in evaluation gives it another name."""
    twins = dict(zip(trained.nodes, evaluated.nodes, strict=True))
    for other, node in twins.items():
        writes = [*node.meta.get("writes", ()), *(twins[n] for n in other.meta.get("writes", ()))]
        node.meta["writes"] = list(dict.fromkeys(writes))
        node.meta["trained"] = other.meta.get("value")


def follow_write(node: fx.Node) -> None:
    """Let all behind a node that changes a tensor in place, and returns it, read the node.

    Its `meta["writes"]` are then other tensors that it changes; `is_outside`: it changes an input
    or an attribute of the network. Raises ValueError if a tensor that shares data with one that is
    changed is read behind it.
    """
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    for written in list(node.meta.get("writes", ())):
        family = [n for n in order if share(n, written)]
        if family[0].op in ("placeholder", "get_attr"):
            node.meta["is_outside"] = True
            continue
        for other in family:
            is_read = any(order[user] > order[node] for user in other.users)
            if order[other] < order[node] and other is not written and is_read:
                raise ValueError(ANOTHER_NAME)
        if _is_same(node, written):
            node.meta["writes"].remove(written)
            for user in list(written.users):
                if order[user] > order[node]:
                    _replace(user, written, node)


def share(a: fx.Node, b: fx.Node) -> bool:
    """Whether two nodes hold the same data, in training or in evaluation."""
    return any(not x.isdisjoint(y) for x, y in zip(_storages(a), _storages(b), strict=True))


def _replace(user: fx.Node, old: fx.Node, new: fx.Node) -> None:
    user.replace_input_with(old, new)
    writes = [new if n is old else n for n in user.meta.get("writes", ())]
    user.meta["writes"] = list(dict.fromkeys(writes))


def _is_same(a: fx.Node, b: fx.Node) -> bool:
    """Whether both nodes are one tensor, in training and in evaluation."""
    for mode in ("value", "trained"):
        x, y = a.meta.get(mode), b.meta.get(mode)
        if (x is None) != (y is None) or (x is not None and _place(x) != _place(y)):
            return False
    return True


def _place(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return object()
    return _storage(x), x.storage_offset(), x.shape, x.stride(), x.dtype


def _tensors(x: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(x) if isinstance(leaf, Tensor)]


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _storages(node: fx.Node) -> list[set[int]]:
    values = [_tensors(node.meta.get(mode)) for mode in ("value", "trained")]
    return [set(map(_storage, tensors)) for tensors in values]


def _versions(node: fx.Node) -> list[int]:
    return [x._version for x in _tensors(node.meta["value"])]
