"""The module that `octavize` returns."""

from dataclasses import dataclass
from typing import Any

from torch import fx, nn
from torch.fx.node import map_aggregate

from octvideo.octavize.report import OctaveReport

MODULE_STATE = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training")


class OctaveModule(fx.GraphModule):
    """A network of plain tensors at its rim and pairs inside, with the submodules of the network that it was made of.

    Everything that torch does with a module it does with this one. `print(model.code)` shows the forward pass,
    `model.octave_report` what became of every convolution.
    """

    octave_report: OctaveReport

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph)
        _order_as(self, root)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OctaveModule":
        copied: Any = super().__deepcopy__(memo)
        copied.octave_report = self.octave_report
        copied.training = self.training
        _order_as(copied, self)
        return copied

    def __reduce__(self) -> Any:
        """The graph node by node: torch.fx would trace the generated code again, and into what it calls."""
        state = {name: self.__dict__[name] for name in MODULE_STATE}
        return _rebuild, (state, _as_rows(self.graph), self.octave_report)


def _order_as(model: nn.Module, root: nn.Module) -> None:
    """Submodules in the order of `root`, not of their calls: optimizers go by the order of the parameters."""
    places = {name: i for i, name in enumerate(root._modules)}
    ordered = sorted(model._modules.items(), key=lambda item: places.get(item[0], len(places)))
    model._modules = dict(ordered)
    for name, child in ordered:
        if name in places and child is not None and child is not root._modules[name]:
            _order_as(child, root.get_submodule(name))


@dataclass(frozen=True, slots=True)
class _Reference:
    """A node among the arguments of another one."""

    name: str


def _refer(x: Any) -> Any:
    return _Reference(x.name) if isinstance(x, fx.Node) else x


def _as_rows(graph: fx.Graph) -> list[tuple[Any, ...]]:
    rows = []
    for node in graph.nodes:
        args, kwargs = map_aggregate((node.args, node.kwargs), _refer)
        rows.append((node.op, node.target, args, kwargs, node.name))
    return rows


def _rebuild(
    state: dict[str, Any], rows: list[tuple[Any, ...]], report: OctaveReport
) -> OctaveModule:
    root = nn.Module()
    root.__dict__.update(state)
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}

    def node(x: Any) -> Any:
        return nodes[x.name] if isinstance(x, _Reference) else x

    for op, target, args, kwargs, name in rows:
        args, kwargs = map_aggregate((args, kwargs), node)
        nodes[name] = graph.create_node(op, target, args, kwargs, name)
    model = OctaveModule(root, graph)
    model.octave_report, model.training = report, root.training
    return model
