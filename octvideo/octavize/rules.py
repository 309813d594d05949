"""The form of an operation on a pair: a rule per kind of operation.

A rule returns a `Pair`, or a node if it merges the pair, and raises NotUnderstoodError if the
operation cannot act on each group by itself: the pair is then merged before it.
"""

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg

from octvideo.octavize import runtime
from octvideo.octavize.kept import SHARED
from octvideo.octavize.kernels import octave_norm
from octvideo.octavize.layout import Layout, concatenated
from octvideo.octavize.operations import (
    NORMS,
    OUT_OF_PLACE,
    Kind,
    maps_of,
    module_of,
    parts_of,
    resamples,
    value,
)
from octvideo.octavize.pair import NotUnderstoodError, Pair

if TYPE_CHECKING:
    from octvideo.octavize.rewrite import Rewriter


def _norm(rewriter: "Rewriter", node: fx.Node) -> Pair:
    x, norm = rewriter.env[node.all_input_nodes[0]], rewriter.root.get_submodule(str(node.target))
    if isinstance(norm, nn.GroupNorm):
        block = norm.num_channels // norm.num_groups
        if not x.layout.has_whole(block):
            raise NotUnderstoodError(f"groups of {block} channels do not fit {x.layout.channels}")
    if sum(n.target == node.target for n in rewriter.trace.graph.nodes) > 1:
        raise NotUnderstoodError("it is called more than once")
    if rewriter.plan.shared.intersection(norm.modules()):
        raise NotUnderstoodError(SHARED)
    if type(norm) not in NORMS:
        note = f"{type(norm).__name__}: split into two norms, after a trial on random numbers"
        rewriter.notes += [note] if note not in rewriter.notes else []
    rewriter.install(str(node.target), octave_norm(norm, x.layout))
    return Pair(x.layout, rewriter.named("call_module", node.target, (x.tensor,), node))


def _each(rewriter: "Rewriter", node: fx.Node) -> Any:
    x = maps_of(node)[0]
    pair = rewriter.env[x]
    if not isinstance(pair, Pair):
        raise NotUnderstoodError("its other arguments are pairs")
    if value(node).shape[-2:] == (1, 1):
        return rewriter.copy(node)
    keeps_size = value(x).shape[-2:] == value(node).shape[-2:]
    if not keeps_size or resamples(node, rewriter.root):  # a resize may be to a fixed size
        _check_low_size(rewriter, node, x)
    high, low = _twice(rewriter, node, {x: pair.groups})
    if not keeps_size:
        low = rewriter.named("call_function", runtime.half_of, (high, low), node, "_half")
    return Pair(pair.layout, parts=(high, low))


def _check_low_size(rewriter: "Rewriter", node: fx.Node, x: fx.Node) -> None:
    """With the example, the low group must have half the size of the high one still."""
    before, after = value(x), value(node)
    half = (-(-size // 2) for size in before.shape[-2:])
    low = torch.empty((*before.shape[:-2], *half), device="meta")
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: low if n is x else value(n))
    try:
        found = _evaluate(node, rewriter.root, args, kwargs).shape[-2:]
    except RuntimeError as error:
        raise NotUnderstoodError(f"on the low group: {error}") from error
    if found != tuple(-(-size // 2) for size in after.shape[-2:]):
        raise NotUnderstoodError(
            f"the high group becomes {tuple(after.shape[-2:])}, the low one {tuple(found)}, not its"
            " half"
        )


def _twice(
    rewriter: "Rewriter", node: fx.Node, parts: dict[fx.Node, Any]
) -> tuple[fx.Node, fx.Node]:
    """The operation on the high and on the low parts of its arguments."""
    target = OUT_OF_PLACE.get(node.target, node.target)

    def on_group(i: int, suffix: str) -> fx.Node:
        args, kwargs = map_arg(
            (node.args, node.kwargs), lambda n: parts[n][i] if n in parts else rewriter.whole(n)
        )
        return rewriter.graph.create_node(node.op, target, args, kwargs, node.name + suffix)

    return on_group(0, "_high"), on_group(1, "_low")


def _join(rewriter: "Rewriter", node: fx.Node) -> Pair:
    if node.meta.get("is_outside"):
        raise NotUnderstoodError("it changes an input or an attribute of the network")
    operands = [n for n in node.all_input_nodes if isinstance(value(n), torch.Tensor)]
    pairs = [n for n in operands if isinstance(rewriter.env[n], Pair)]
    layout = rewriter.env[pairs[0]].layout
    if (
        any(rewriter.env[n].layout != layout for n in pairs)
        or value(node).shape != value(pairs[0]).shape
    ):
        raise NotUnderstoodError("the maps are divided in different ways")
    return Pair(
        layout,
        parts=_twice(rewriter, node, {n: _part(rewriter, n, node, layout) for n in operands}),
    )


def _part(
    rewriter: "Rewriter", n: fx.Node, node: fx.Node, layout: Layout
) -> tuple[fx.Node, fx.Node]:
    """The high and the low part of an operand of a sum or product."""
    operand, shape, full = rewriter.env[n], value(n).shape, value(node).shape
    if isinstance(operand, Pair):
        return operand.groups
    if value(n).numel() == 1 and len(shape) <= 1:
        return operand, operand
    if shape == full:
        rewriter.notes.append(f"{n.name}: split, since {node.name} joins it with a pair")
        return rewriter.split(n, operand, layout).groups
    dim = len(shape) - len(full) + 1
    if dim < 0 or shape[dim] != full[1] or any(size != 1 for size in shape[dim + 1 :]):
        raise NotUnderstoodError(f"an operand is {tuple(shape)}, beside a map {tuple(full)}")
    args = (operand, dim, layout.channels.high, *rewriter.order(n, layout, "order"))
    return Pair(
        layout, rewriter.named("call_function", runtime.split_gate, args, n, "_gate")
    ).groups


def _cat(rewriter: "Rewriter", node: fx.Node) -> Pair:
    """Channels of each group; what is undivided joins the high group."""
    layouts, high, low = [], [], []
    for n in parts_of(node):
        part = rewriter.env[n]
        if isinstance(part, Pair):
            layouts.append(part.layout)
            high.append(part.groups[0])
            low.append(part.groups[1])
        else:
            layouts.append(Layout.whole(value(n).shape[1]))
            high.append(part)
    cat = [
        rewriter.named("call_function", torch.cat, (group, 1), node, suffix)
        for group, suffix in ((high, "_high"), (low, "_low"))
    ]
    return Pair(concatenated(layouts), parts=(cat[0], cat[1]))


def _global(rewriter: "Rewriter", node: fx.Node) -> fx.Node:
    """A pool over all positions ends the pair."""
    x = maps_of(node)[0]
    is_mean = "avg" in str(node.target) or "mean" in str(node.target) or (
        "Avg" in type(module_of(node, rewriter.root)).__name__
    )  # fmt: skip
    pair = rewriter.env[x]
    high, low = pair.groups
    if is_mean:
        low = rewriter.named("call_function", runtime.for_mean, (high, low), x, "_for_mean")
    restore = rewriter.order(node, pair.layout, "restore")
    args = (*_twice(rewriter, node, {x: (high, low)}), *restore)
    return rewriter.named("call_function", runtime.join_channels, args, node)


def _ask(rewriter: "Rewriter", node: fx.Node) -> fx.Node:
    """Shapes are those of the undivided map; all else is the high group's."""
    x = node.all_input_nodes[0]
    high, channels = rewriter.env[x].groups[0], value(x).shape[1]
    asked = node.args[1] if node.op == "call_function" else node.target
    if asked in ("shape", "size"):
        shape = rewriter.named("call_function", runtime.shape_of, (high, channels), node)
        of = node.args[1] if asked == "size" and len(node.args) > 1 else node.kwargs.get("dim")
        return shape if of is None else rewriter.graph.call_function(operator.getitem, (shape, of))
    if asked in ("stride", "is_contiguous"):
        raise NotUnderstoodError("it asks for the memory layout")
    return rewriter.graph.node_copy(node, lambda n: high if n is x else rewriter.whole(n))


def _evaluate(node: fx.Node, root: nn.Module, args: Any, kwargs: Any) -> Any:
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


RULES: dict[Kind, Any] = {
    Kind.NORM: _norm,
    Kind.EACH: _each,
    Kind.JOIN: _join,
    Kind.CAT: _cat,
    Kind.GLOBAL: _global,
    Kind.ASK: _ask,
}
