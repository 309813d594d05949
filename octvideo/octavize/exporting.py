"""A network as a graph by torch.export, for what torch.fx cannot trace.

A program that was exported has operators of ATen in place of modules, and has fixed the mode, the
batch and the sizes. Therefore every layer is exported as one call of an operator that stands for
it, which becomes a call of the module again; the batch is a symbol; and the program is made in both
modes and at a batch of one, which may differ in nothing but the flag of a dropout or a norm.
"""

import copy
import functools
import logging
import operator
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from io import StringIO
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from octvideo.copies import copying
from octvideo.layers.calls import hooks_of
from octvideo.octavize.kept import ASSIGNS, as_buffers, has_hooks, own_tensors, restored
from octvideo.octavize.operations import is_operator
from octvideo.octavize.value_tracer import (
    CONSTANTS,
    CONTEXTS_ARE_LOST,
    Guard,
    UntraceableError,
    described,
    is_leaf,
    place,
)

SIZE = torch.ops.aten.sym_size.int
DROPPED = {"aten::_assert_tensor_metadata", "aten::sym_constrain_range_for_size"}
LAYERS: ContextVar[dict[str, Callable[..., Any]]] = ContextVar("LAYERS")


@torch.library.custom_op("octvideo::layer", mutates_args=())
def layer(path: str, inputs: Sequence[Tensor]) -> Tensor:
    """A call of the module at `path`; it is only ever exported."""
    raise NotImplementedError("this operator is traced, never computed")


@torch.library.custom_op("octvideo::layer_in_place", mutates_args={"x"})
def layer_in_place(path: str, x: Tensor) -> None:
    """A call of an activation or a dropout that changes its input, and returns it."""
    raise NotImplementedError("this operator is traced, never computed")


@layer.register_fake
def _(path: str, inputs: Sequence[Tensor]) -> Tensor:
    forward: Any = LAYERS.get()[path]
    with without_statistics(forward.__self__):
        out = forward(*inputs)
    return torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=out.device)


@contextmanager
def without_statistics(module: nn.Module) -> Iterator[None]:
    """A batch norm in evaluation: in training it may ask how many batches it has seen, which only
    the content of a tensor says."""
    training = module.training
    module.training = training and not isinstance(module, nn.modules.batchnorm._BatchNorm)
    try:
        yield
    finally:
        module.training = training


class Exporter:
    """Exports a model for an example: a tensor, or a list, tuple or dict of tensors.

    guards, constants: of the last graph; a constant is a tensor that `forward` makes of numbers.
    """

    def __init__(self, model: nn.Module, opaque: Collection[type]) -> None:
        memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
        with copying(lambda tensor, memo: tensor.detach().clone()):
            self.model = as_buffers(copy.deepcopy(model, memo))
        self.guards: list[Guard] = []
        self.constants: dict[str, Tensor] = {}
        self._layers: dict[str, Callable[..., Any]] = {}
        self._assigned: list[str] = []
        for path, module in self.model.named_modules():
            is_passed = type(module) is nn.Identity and not has_hooks(module)
            if path and is_leaf(module, path, opaque) and not is_passed:
                self._as_one_call(path, module)
        self._watch_assignments()

    def _as_one_call(self, path: str, module: nn.Module) -> None:
        forward = self._layers[path] = module.forward
        is_hooked = has_hooks(module)
        for hooks in hooks_of(module):
            hooks.clear()

        @functools.wraps(forward)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not kwargs and len(args) == 1 and getattr(module, "inplace", False):
                layer_in_place(path, args[0])
                return args[0]
            if not kwargs and args and all(isinstance(x, Tensor) for x in args):
                return layer(path, list(args))
            if is_hooked:
                raise ValueError(f"{path} has hooks, and is called with more than tensors")
            return forward(*args, **kwargs)

        module.forward = call

    def _watch_assignments(self) -> None:
        """Note the modules whose `forward` assigns tensors: a program silently leaves that out."""
        calls = tuple(f"{path}." for path in self._layers)  # do it again, whenever they are called
        named = self.model.named_modules()
        modules = {p: m for p, m in named if not isinstance(m, torch.jit.ScriptModule)}
        before = {}

        def note(module: nn.Module, inputs: Any) -> None:
            before.update({path: own_tensors(m) for path, m in modules.items()})

        def compare(module: nn.Module, inputs: Any, out: Any) -> None:
            assigned = [path for path, m in modules.items() if restored(m, before[path])]
            self._assigned = [path for path in assigned if not f"{path}.".startswith(calls)]

        self.model.register_forward_pre_hook(note)
        self.model.register_forward_hook(compare)

    def graph(self, example: Any, training: bool, any_batch: bool = True) -> fx.Graph:
        """Raises UntraceableError for what cannot be exported, or would be fixed silently."""
        self.model.train(training)
        try:
            program = self._program(example, any_batch)
        except Exception as error:
            raise UntraceableError("", type(self.model), _described(error)) from error
        if self._assigned:
            path = self._assigned[0]
            raise UntraceableError(path, type(self.model.get_submodule(path)), ASSIGNS)
        names = _names_of_constants(program)
        self.guards = []
        self.constants = {name: program.constants[key] for key, name in names.items()}
        try:
            return _Raising(program, example, self.guards).graph
        except ValueError as error:
            raise UntraceableError("", type(self.model), str(error)) from error

    def _program(self, example: Any, any_batch: bool) -> Any:
        batch = torch.export.Dim("batch")
        sizes = pytree.tree_map(lambda x: {0: batch} if any_batch else None, example)
        token = LAYERS.set(self._layers)
        logging.disable(logging.WARNING)
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # graphs, if it fails
                return torch.export.export(
                    self.model, (example,), dynamic_shapes=(sizes,), strict=False
                )
        finally:
            logging.disable(logging.NOTSET)
            LAYERS.reset(token)


def _described(error: Exception) -> str:
    text = described(error)
    if "Constraints violated" in text:
        condition = re.search(r"satisfy the generated guard (.+?)\.?\n", str(error))
        return f"the batch decides what is computed: {condition[1] if condition else text}"
    return text


def _names_of_constants(program: Any) -> dict[str, str]:
    """Those of the tensors that `forward` makes of numbers, or that its modules hold in a list."""
    constants = program.graph_signature.inputs_to_lifted_tensor_constants.values()
    return {key: f"constant_{i}" for i, key in enumerate(dict.fromkeys(constants))}


class _Raising:
    """`graph`: an exported program with its layers as modules, on one placeholder."""

    def __init__(self, program: Any, example: Any, guards: list[Guard]) -> None:
        self.program, self.graph, self.guards = program, fx.Graph(), guards
        signature = program.graph_signature
        if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
            raise ValueError("its forward changes its input or a buffer in place")
        constants = _names_of_constants(program)
        self.attributes = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **{
                k: f"{CONSTANTS}.{constants[v]}"
                for k, v in signature.inputs_to_lifted_tensor_constants.items()
            },
        }
        self.env: dict[fx.Node, Any] = {}
        # Of the node that is raised: the modules and lines it is from.
        self.meta: dict[str, Any] = {}
        self.x = self.graph.placeholder("x")
        inputs = dict(zip(signature.user_inputs, self._items(example), strict=True))
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in inputs:
                self.env[node] = inputs[node.name]
            elif node.op in ("call_function", "output") and node.target is not SIZE:
                self._raise(node)

    def _items(self, example: Any) -> list[fx.Node]:
        """The tensors of the example, and a check of the size of each."""
        items = []
        for keys, tensor in pytree.tree_flatten_with_path(example)[0]:
            item = self.x
            for key in keys:
                name = getattr(key, "idx", None)  # of a list; a dict has keys
                name = getattr(key, "key", name)
                item = self.graph.call_function(operator.getitem, (item, name))
            shape = self.graph.call_function(getattr, (item, "shape"))
            sizes = self.graph.call_function(operator.getitem, (shape, slice(1, None)))
            self.guards.append(Guard(sizes, tensor.shape[1:], "x.shape[1:]"))
            items.append(item)
        return items

    def _raise(self, node: fx.Node) -> None:
        _check_sizes(node)
        if node.op == "output":
            outputs = [self._new(n) for n in node.args[0]]  # type: ignore[union-attr]
            self.graph.output(pytree.tree_unflatten(outputs, self.program.call_spec.out_spec))
            return
        target: Any = node.target
        name = target._schema.name if is_operator(target) else ""
        if name in DROPPED:
            return
        if isinstance(target, torch._ops.HigherOrderOperator):
            raise ValueError(f"{_place_inside(node)}: {CONTEXTS_ARE_LOST}")
        kept = ("nn_module_stack", "stack_trace")
        self.meta = {k: node.meta[k] for k in kept if k in node.meta}
        args: Any = map_aggregate(node.args, self._new)
        kwargs: Any = map_aggregate(node.kwargs, self._new)
        if name == "octvideo::layer":
            new = self.graph.call_module(args[0], tuple(args[1]))
        elif name == "octvideo::layer_in_place":
            new = self.graph.call_module(args[0], (args[1],))
            self.env[node.args[1]] = new  # type: ignore[index]
        elif name == "aten::alias" or (name == "aten::slice" and _is_whole(node)):
            self.env[node] = args[0]
            return
        else:
            new = self.graph.create_node("call_function", target, args, kwargs)
        new.meta = {**self.meta, "content": _stand_in(node.meta.get("val"))}
        self.env[node] = new

    def _new(self, x: Any) -> Any:
        """The new node of an old one; a device is that of the input. Attributes and sizes, which
        torch.export puts in front, come where they are read first."""
        if isinstance(x, torch.device):
            first = next(guard.node.all_input_nodes[0].all_input_nodes[0] for guard in self.guards)
            device = self.graph.call_function(getattr, (first, "device"))
            device.meta = dict(self.meta)
            return device
        if not isinstance(x, fx.Node):
            return x
        if x not in self.env:
            if x.target is SIZE:
                new = self.graph.call_function(SIZE, (self._new(x.args[0]), x.args[1]))
            else:
                new = self.graph.create_node("get_attr", self.attributes[x.name])
            new.meta, self.env[x] = dict(self.meta), new
        return self.env[x]


def _place_inside(node: fx.Node) -> str:
    """The place of a `with no_grad()` or `autocast()`, whose body is a graph of its own."""
    bodies = [n.target for n in node.all_input_nodes if n.op == "get_attr"]
    root: Any = node.graph.owning_module
    inner = [n for name in bodies for n in getattr(root, str(name)).graph.nodes]
    return next((place(n) for n in inner if n.op == "call_function"), place(node))


def _is_whole(node: fx.Node) -> bool:
    defaults = (None, 0, None, None, 1)
    bounds: Any = (*node.args, *defaults[len(node.args) :])
    start, end, step = bounds[2:]
    ends = (None, torch.iinfo(torch.int64).max)
    return start in (None, 0) and end in ends and step == 1


def _check_sizes(node: fx.Node) -> None:
    tensors = [t for t in pytree.tree_leaves(node.meta.get("val")) if isinstance(t, Tensor)]
    if any(_depends_on_content(tensor) for tensor in tensors):
        raise ValueError(f"{place(node)}: the content of a tensor decides a size")


def _depends_on_content(x: Any) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(x))


def _stand_in(number: Any) -> Any:
    """A number for one that only the content of a tensor gives."""
    kinds = {torch.SymFloat: 1.0, torch.SymInt: 1, torch.SymBool: True}
    return kinds[type(number)] if type(number) in kinds and _depends_on_content(number) else None
