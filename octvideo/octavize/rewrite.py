"""Rewriting a traced network, node by node, with pairs where the plan has them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctTensor, down
from octvideo.layers.octave import Downsample
from octvideo.octavize import runtime
from octvideo.octavize.kept import why_kept
from octvideo.octavize.kernels import octave_conv, plain_conv
from octvideo.octavize.layout import Layout, divide
from octvideo.octavize.operations import continues, maps_of, module_of, name_of
from octvideo.octavize.pair import NotUnderstoodError, Pair
from octvideo.octavize.plan import Plan, Site, misfit, why_undivided
from octvideo.octavize.rules import RULES
from octvideo.octavize.tracing import Trace
from octvideo.octavize.value_tracer import OCTAVE_LAYERS


@dataclass(frozen=True, slots=True)
class ConvChange:
    """The change of a convolution. reads, writes: its channels; why: why it is unchanged, if so."""

    name: str
    reads: Channels
    writes: Channels
    why: str = ""


class Rewriter:
    """env: old node -> new node or Pair. notes: where a pair was merged or a map split, and why."""

    def __init__(
        self, trace: Trace, plan: Plan, root: nn.Module, downsample: Downsample | None, keep: bool
    ) -> None:
        """root: its modules are replaced. keep: channel orders are saved with the weights."""
        self.trace, self.plan, self.root = trace, plan, root
        self.downsample, self.keep_orders = downsample, keep
        self.graph = fx.Graph()
        self.env: dict[fx.Node, Any] = {}
        self.changes: list[ConvChange] = []
        self.notes: list[str] = []

    def run(self) -> fx.Graph:
        guards = {guard.node: guard for guard in self.trace.guards}
        for node in self.trace.graph.nodes:
            self.env[node] = self._rewrite(node)
            if node in guards:
                guard = guards[node]
                self.graph.call_function(
                    runtime.require, (self.env[node], guard.value, guard.where)
                )
        self.graph.eliminate_dead_code(_has_effect)
        self.graph.lint()
        return self.graph

    # --- Nodes

    def _rewrite(self, node: fx.Node) -> Any:
        if node in self.plan.sites:
            return self._conv(node, self.plan.sites[node])
        if not any(isinstance(self.env[n], Pair) for n in node.all_input_nodes):
            return self.copy(node)
        rule, module = RULES.get(self.plan.kinds[node]), module_of(node, self.root)
        try:
            if module is not None and (why := why_kept(module)):
                raise NotUnderstoodError(why)
            if rule is None:
                raise NotUnderstoodError(
                    "the operation is not known to act on each group by itself"
                )
            return rule(self, node)
        except NotUnderstoodError as reason:
            return self._merged(node, str(reason))

    def copy(self, node: fx.Node, x: fx.Node | None = None) -> fx.Node:
        """The node as it is, on undivided maps; x: what it reads instead of its one input."""
        if node.op == "call_module" and isinstance(module_of(node, self.root), OCTAVE_LAYERS):
            pair = self.graph.call_function(OctTensor, (x or self.whole(node.all_input_nodes[0]),))
            out = self.graph.call_module(str(node.target), (pair,))
            return self.named("call_function", getattr, (out, "high"), node)
        new = self.graph.node_copy(node, lambda n: x or self.whole(n))
        has_effect = node.meta.get("writes") or node.meta.get("is_outside")
        new.meta = {"has_effect": True} if has_effect else {}
        return new

    def named(self, op: str, target: Any, args: Any, node: fx.Node, suffix: str = "") -> fx.Node:
        return self.graph.create_node(op, target, args, {}, node.name + suffix)

    def whole(self, node: fx.Node) -> fx.Node:
        """The undivided map of a node of the old graph."""
        new = self.env[node]
        if not isinstance(new, Pair):
            return new
        restore = self.order(node, new.layout, "restore")
        return self.named(
            "call_function", runtime.merge_map, (new.tensor, *restore), node, "_whole"
        )

    def _merged(self, node: fx.Node, why: str) -> Any:
        """Merge before the operation; split behind it where its output is a map of that form."""
        pairs = [self.env[n] for n in maps_of(node) if isinstance(self.env[n], Pair)]
        for n in node.meta.get("writes", ()):
            self.env[n] = self.whole(n)  # what it changes is the merged map
        out = self.copy(node)
        name = node.target if node.op == "call_module" else node.name
        if node.op == "output":
            return out
        keeps = continues(node) and not node.meta.get("is_outside")
        behind = ", split behind" if keeps else ""
        self.notes.append(f"{name}: merged before{behind}; {why}")
        return self.split(node, out, pairs[0].layout) if keeps else out

    def split(self, node: fx.Node, new: fx.Node, layout: Layout) -> Pair:
        args = (new, layout.channels.high, *self.order(node, layout, "order"))
        return Pair(layout, self.named("call_function", runtime.split_map, args, node, "_split"))

    def order(self, node: fx.Node, layout: Layout, way: str) -> tuple[fx.Node, ...]:
        """A buffer of the order, `layout.order` or `layout.restore`; none where nothing moves."""
        if layout.in_order and not self.keep_orders:
            return ()
        name = f"octave_orders.{node.name}_{way}"
        if not hasattr(self.root, "octave_orders"):
            self.root.octave_orders = nn.Module().train(self.root.training)
        orders: Any = self.root.octave_orders
        short = name.partition(".")[2]
        if not hasattr(orders, short):
            device = next(self.root.parameters()).device
            indices = torch.tensor(getattr(layout, way), device=device)
            orders.register_buffer(short, indices, persistent=self.keep_orders)
        return (self.graph.get_attr(name),)

    # --- Convolutions

    def _conv(self, node: fx.Node, site: Site) -> Any:
        reads = self.env[site.reads]
        before = reads.layout if isinstance(reads, Pair) else Layout.whole(site.widths[0])
        after, why = self._output_layout(site, before)
        if before.low:
            obstacle = site.obstacle or self._misfit(site, before)
            if obstacle or (site.is_depthwise and not after.low):
                self.notes.append(f"{site.name}: merged before; {obstacle or why}")
                before, why = Layout.whole(site.widths[0]), obstacle or why
        if not before.low and (site.is_depthwise or not after.low):
            return self._left_alone(node, site, why)
        self.install(site.name, octave_conv(site, before, after, self.downsample))
        self.changes.append(ConvChange(site.name, before.channels, after.channels, why))
        if before.low:
            pair = reads.tensor
        else:
            whole = self.whole(site.reads)
            pair = self.named("call_function", OctTensor, (whole,), site.reads, "_pair")
        out = self.named("call_module", site.name, (pair,), node)
        if after.low:
            return Pair(after, out)
        return self.named("call_function", getattr, (out, "high"), node, "_high")

    def _output_layout(self, site: Site, before: Layout) -> tuple[Layout, str]:
        """The split of the output between the groups, and the reason if there is none."""
        undivided = Layout.whole(site.widths[1])
        why = site.obstacle or site.passed_over
        if site.is_depthwise:
            if why or not before.low:
                return undivided, why or "it follows its input"
            return before, ""
        space = self.plan.space(site.node)
        if not why:
            channels = self.plan.options.split(space.channels)
            layout = space.layout or divide(channels, groups=site.conv.groups)
            why = self._misfit(site, layout) or why_undivided(space, self.plan.options)
        return (undivided, why) if why or space.layout is None else (space.layout, "")

    def _misfit(self, site: Site, layout: Layout) -> str:
        """Why the groups of a convolution cannot be divided as `layout` is, or ""."""
        if site.is_depthwise or layout.has_balanced(site.conv.groups):
            return ""
        why = misfit(site, layout.channels)
        if site.is_asked:
            raise ConfigError(
                f"{site.name} cannot be octave: {why}; choose another alpha or width_rule, or"
                " exclude it"
            )
        return why

    def _left_alone(self, node: fx.Node, site: Site, why: str) -> fx.Node:
        channels = Channels(site.widths[0]), Channels(site.widths[1])
        self.changes.append(ConvChange(site.name, *channels, why))
        conv, stride = plain_conv(site.conv), site.conv.stride
        pools = getattr(site.conv, "pool", 1) > 1
        if (
            self.downsample != "pool"
            or not site.in_scope
            or site.obstacle
            or stride[-1] == 1
            or pools
        ):
            return self.copy(node)
        # As an octave convolution that pools, and without a low group.
        conv.stride, conv.by_space_to_depth = (*stride[:-2], 1, 1), False
        pooled = self.graph.call_function(down, (self.whole(site.reads), stride[-1]))
        return self.copy(node, pooled)

    # --- What rules build with

    def install(self, name: str, module: nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self.root.get_submodule(parent), child, module)


def _has_effect(node: fx.Node) -> bool:
    """Whether a node stays that no other reads: checks, calls of modules, in-place operations."""
    name = str(name_of(node.target))
    overwrites = name.endswith("_") or node.kwargs.get("inplace") or "out" in node.kwargs
    return (
        node.op in ("placeholder", "output", "call_module")
        or node.target is runtime.require
        or name.startswith("_assert")
        or bool(overwrites)
        or "has_effect" in node.meta
    )
