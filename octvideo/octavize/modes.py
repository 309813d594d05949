"""Two traces of a network, one for training and one for evaluation, as one graph."""

from collections.abc import Collection
from typing import Any

from torch import fx, nn
from torch.utils import _pytree as pytree


def follow_training(evaluated: fx.Graph, trained: fx.Graph) -> None:
    """Where two traces differ in a flag that is False in evaluation and True in training, as in
    `dropout(x, p, self.training)`, both read the flag of the module in whose `forward` they are."""
    flags: list[tuple[fx.Node, list[int]]] = []
    for a, b in zip(evaluated.nodes, trained.nodes, strict=False):
        if (a.op, a.target) != (b.op, b.target):
            break
        places = _flags(a, b)
        flags += [(a, places), (b, places)]
    for node, places in flags:
        _read_flags(node, places)


def leaves(node: fx.Node) -> tuple[list[Any], Any]:
    """The arguments of a node one by one, and their structure."""
    return pytree.tree_flatten((node.args, node.kwargs))


def _flags(evaluated: fx.Node, trained: fx.Node) -> list[int]:
    """The places of such flags among the arguments."""
    pairs = zip(leaves(evaluated)[0], leaves(trained)[0], strict=False)
    return [i for i, (a, b) in enumerate(pairs) if a is False and b is True]


def _read_flags(node: fx.Node, places: list[int]) -> None:
    found, spec = leaves(node)
    path = (stack(node) or [""])[-1]
    for i in places:
        with node.graph.inserting_before(node):
            flag = node.graph.create_node("get_attr", f"{path}.training".lstrip("."))
        flag.meta["value"], found[i] = found[i], flag
    if places:
        node.args, node.kwargs = pytree.tree_unflatten(found, spec)


def first_difference(
    root: nn.Module, a: fx.Graph, b: fx.Graph, opaque: Collection[type]
) -> nn.Module | None:
    """The module in whose calls two traces of `root` differ first; None if they do not differ."""
    for first, second in zip(a.nodes, b.nodes, strict=False):
        if signature(first) != signature(second):
            stacks = [stack(first), stack(second)]
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


def stack(node: fx.Node) -> list[str]:
    """The modules in which a node was made, from the outermost in."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def signature(node: fx.Node) -> Any:
    return node.op, node.target, str(node.args), str(node.kwargs)
