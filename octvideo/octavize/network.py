"""The module that `octavize` returns."""

import copy
import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate

from octvideo.copies import computed_weights_copied
from octvideo.layers import OctBatchNorm2d, OctBatchNorm3d, OctTensor
from octvideo.octavize.kept import sharing
from octvideo.octavize.operations import CONVS, is_operator
from octvideo.octavize.report import OctaveReport

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, OctBatchNorm2d, OctBatchNorm3d)
HOOKS = (
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook"),
    *("_state_dict_pre_hooks", "_state_dict_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
)
MODULE_STATE = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training")


class OctaveModule(fx.GraphModule):
    """A network that takes and returns plain tensors and passes pairs inside, with the submodules
    of the network that it was made of.

    It works like any module of torch. `print(model.code)` shows the forward pass,
    `model.octave_report` lists what became of every convolution.
    """

    octave_report: OctaveReport
    norm_follows: dict[str, str]

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        super().__init__(root, graph)
        _order_as(self, root)
        self.norm_follows = norms_behind(graph, self)

    def __copy__(self) -> "OctaveModule":
        copied = OctaveModule(self, self.graph)
        vars(copied).update(self._carried())
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> "OctaveModule":
        with computed_weights_copied(self):
            copied: Any = super().__deepcopy__(memo)
        vars(copied).update({k: copy.deepcopy(v, memo) for k, v in self._carried().items()})
        return copied

    def __reduce__(self) -> Any:
        """The graph node by node: torch.fx would trace the generated code, and into its calls. The
        hooks and attributes, which may hold the module itself, follow when it is there."""
        carried = self._carried()
        state = {name: carried.pop(name) for name in MODULE_STATE}
        return _rebuild, (state, _as_rows(self.graph), carried.pop("octave_report")), carried

    def _carried(self) -> dict[str, Any]:
        """What a copy has beside the graph: layers, mode, hooks, and what the module was given. Not
        what `compile` left, as of any module: it calls this one."""
        kept, made = {*MODULE_STATE, *HOOKS, "norm_follows"}, _made()
        state: dict[str, Any] = self.__getstate__()  # type: ignore[no-untyped-call]
        return {name: x for name, x in state.items() if name in kept or name not in made}


@functools.cache
def _made() -> frozenset[str]:
    """The attributes that a new module has."""
    return frozenset(vars(OctaveModule(nn.Module(), fx.Graph())))


class GraphMethod:
    """A method of a module that a graph replaces; it is copied and pickled with the module."""

    def __init__(self, owner: nn.Module, graph: fx.Graph) -> None:
        self.owner, self.graph = owner, graph
        self._compile()

    def _compile(self) -> None:
        source = self.graph.python_code("self")
        namespace = dict(source.globals)
        exec(source.src, namespace)
        self.code, self._function = source.src, namespace["forward"]

    def __call__(self, *args: Any) -> Any:
        return self._function(self.owner, *args)

    def __getstate__(self) -> dict[str, Any]:
        return {"owner": self.owner, "rows": _as_rows(self.graph)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.owner, self.graph = state["owner"], _as_graph(state["rows"])
        self._compile()


def _order_as(model: nn.Module, root: nn.Module) -> None:
    """Submodules in the order of `root`, not of their calls: optimizers go by the order of the
    parameters. Buffers are in the state dict where they were; tensors that were plain attributes,
    which torch.fx makes buffers, are not."""
    if isinstance(root, torch.jit.ScriptModule):  # one call, as it is
        return
    plain = set(model._buffers) - set(root._buffers)
    model._non_persistent_buffers_set = plain | (
        root._non_persistent_buffers_set & set(model._buffers)
    )
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


@dataclass(frozen=True, slots=True)
class _Operator:
    """An operator of ATen among the targets, which has no pickle: "aten::add", "Tensor"."""

    name: str
    overload: str

    def find(self) -> Any:
        space, _, name = self.name.partition("::")
        return getattr(getattr(getattr(torch.ops, space), name), self.overload)


def _refer(x: Any) -> Any:
    return _Reference(x.name) if isinstance(x, fx.Node) else x


def _as_rows(graph: fx.Graph) -> list[tuple[Any, ...]]:
    rows = []
    for node in graph.nodes:
        args, kwargs = map_aggregate((node.args, node.kwargs), _refer)
        target = node.target
        if is_operator(target):
            target = _Operator(target._schema.name, target._overloadname)
        rows.append((node.op, target, args, kwargs, node.name))
    return rows


def _as_graph(rows: list[tuple[Any, ...]]) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}

    def node(x: Any) -> Any:
        return nodes[x.name] if isinstance(x, _Reference) else x

    for op, target, args, kwargs, name in rows:
        args, kwargs = map_aggregate((args, kwargs), node)
        found = target.find() if isinstance(target, _Operator) else target
        nodes[name] = graph.create_node(op, found, args, kwargs, name)
    return graph


def _rebuild(
    state: dict[str, Any], rows: list[tuple[Any, ...]], report: OctaveReport
) -> OctaveModule:
    root = nn.Module()
    root.__dict__.update(state)
    model = OctaveModule(root, _as_graph(rows))
    # As they were: torch.fx makes the modules around the layers anew, and leaves out the others.
    vars(model).update(state)
    model.octave_report = report
    return model


def norms_behind(graph: fx.Graph, root: nn.Module) -> dict[str, str]:
    """Batch norm -> the convolution whose output it alone reads, by their names in `root`. Not of a
    convolution whose weights are read elsewhere too."""
    shared = sharing(root, graph)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found: dict[str, str] = {}
    for node in graph.nodes:
        if not _calls(node, root, NORMS):
            continue
        source = node.all_input_nodes[0]
        # A convolution without a low output gives a pair, of which the norm sees the high group.
        while source.target in (getattr, OctTensor) and len(source.all_input_nodes) == 1:
            source = source.all_input_nodes[0] if len(source.users) == 1 else node
        alone = len(source.users) == 1 and calls[source.target] == calls[node.target] == 1
        if alone and _calls(source, root, CONVS):
            conv = root.get_submodule(str(source.target))
            if shared.isdisjoint(conv.modules()):
                found[str(node.target)] = str(source.target)
    return found


def _calls(node: fx.Node, root: nn.Module, kinds: tuple[type, ...]) -> bool:
    return node.op == "call_module" and type(root.get_submodule(str(node.target))) in kinds
