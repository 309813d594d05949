"""A split map in a graph that is being built."""

from dataclasses import dataclass

from torch import fx

from octvideo.layers import OctTensor
from octvideo.octavize.layout import Layout


@dataclass
class Pair:
    """A divided map in the new graph: a node for the OctTensor, or one for each group; the other is
    made when asked."""

    layout: Layout
    node: fx.Node | None = None
    parts: tuple[fx.Node, fx.Node] | None = None

    @property
    def groups(self) -> tuple[fx.Node, fx.Node]:
        if self.parts is None:
            assert self.node is not None
            graph, name = self.node.graph, self.node.name
            self.parts = tuple(  # type: ignore[assignment]
                graph.create_node("call_function", getattr, (self.node, part), {}, f"{name}_{part}")
                for part in ("high", "low")
            )
        assert self.parts is not None
        return self.parts

    @property
    def tensor(self) -> fx.Node:
        if self.node is None:
            high, low = self.groups
            self.node = high.graph.create_node(
                "call_function", OctTensor, (high, low), {}, f"{high.name}_pair"
            )
        return self.node


class NotUnderstoodError(Exception):
    """An operation on a pair that has no rule for it; the message says why."""
