"""A torch.fx tracer that computes the value of every node for an example, on fake tensors."""

import operator
import re
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from octvideo.copies import copied
from octvideo.errors import ConfigError, first_line
from octvideo.layers import OctBatchNorm2d, OctBatchNorm3d, OctConv2d, OctConv3d, OctTensor
from octvideo.octavize.aliases import compute
from octvideo.octavize.kept import has_hooks

OCTAVE_NORMS = (OctBatchNorm2d, OctBatchNorm3d)
OCTAVE_LAYERS = (OctConv2d, OctConv3d, *OCTAVE_NORMS)
AUTOGRAD_FUNCTION = str(Path(torch.autograd.function.__file__))
FRAME = re.compile(r'File "(.+)", line (\d+), in .*\n\s*(.+)')
CONSTANTS = "octave_constants"
OUR_FILES = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def add_constants(root: nn.Module, constants: dict[str, Tensor]) -> None:
    """As buffers that no state dict has."""
    holder = nn.Module()
    for name, tensor in constants.items():
        holder.register_buffer(name, tensor, persistent=False)
    if constants:
        setattr(root, CONSTANTS, holder)


def is_leaf(module: nn.Module, path: str, opaque: Collection[type]) -> bool:
    """Whether a call of this module is one node: layers of torch, and what cannot be traced."""
    return (
        isinstance(module, (nn.Conv2d, nn.Conv3d, nn.MaxPool3d))
        or type(module) in opaque
        or fx.Tracer().is_leaf_module(module, path)
    )


@dataclass(frozen=True, slots=True)
class Guard:
    """A number or condition on which the trace depends. where: "file:line" of the question."""

    node: fx.Node
    value: Any
    where: str


class UntraceableError(Exception):
    """The innermost module that cannot be traced ("" is the network itself), its type, and why."""

    def __init__(self, path: str, kind: type, reason: str) -> None:
        super().__init__(reason)
        self.path, self.kind, self.reason = path, kind, reason


class ValueTracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(
        self, values: Any, mode: Any, real: nn.Module, opaque: dict[type, str], method: str
    ) -> None:
        super().__init__()
        self.traced_func_name = method
        self.values, self.mode, self.real, self.opaque = values, mode, real, opaque
        self.guards: list[Guard] = []
        self.constants: dict[str, Tensor] = {}
        self._evaluating = False
        self._contexts = _contexts()

    # --- What is looked into

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, OCTAVE_LAYERS) or is_leaf(m, module_qualified_name, self.opaque)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._evaluating:
            return forward(*args, **kwargs)
        if type(m) is nn.Identity and not has_hooks(m):
            return args[0]
        if isinstance(m, OCTAVE_LAYERS):
            return self._call_octave_layer(m, forward, args[0])
        try:
            return super().call_module(m, forward, args, kwargs)
        except (UntraceableError, ConfigError):
            raise
        except Exception as error:
            raise UntraceableError(self.path_of_module(m), type(m), described(error)) from error

    def _call_octave_layer(self, m: Any, forward: Callable[..., Any], x: OctTensor) -> OctTensor:
        """Without a low group it is a plain layer, and the graph passes it a plain tensor."""
        channels = m.channels if isinstance(m, OCTAVE_NORMS) else m.out_channels
        if x.low is not None or channels.low:
            raise ConfigError(
                "octavize got a network that is octave already; give the one with alpha=0"
            )
        return OctTensor(super().call_module(m, forward, (x.high,), {}))

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return (
            attr_val if self._evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)
        )

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """One placeholder; of a list, a tuple or a dict its items are taken out in the graph."""
        name = root_fn.__code__.co_varnames[1]
        x = self.create_proxy("placeholder", name, (), {})
        return root_fn, [self.root, self._items(x, self.values)]

    def _items(self, proxy: Any, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(self._items(proxy[i], item) for i, item in enumerate(value))
        if isinstance(value, dict):
            return {key: self._items(proxy[key], item) for key, item in value.items()}
        return proxy

    # --- Values

    def create_arg(self, a: Any) -> Any:
        if type(a) is Tensor:
            return self.create_node("get_attr", f"{CONSTANTS}.{self._constant(a)}", (), {})
        if isinstance(a, Tensor) and not self._is_named(a):
            where = _where(traceback.extract_stack())
            raise UntraceableError(*self._caller(), f"{where}: {HIDDEN}")
        is_number = type(a).__module__ == "numpy" and getattr(a, "ndim", None) == 0
        return super().create_arg(a.item() if is_number else a)

    def _is_named(self, tensor: Tensor) -> bool:
        """Whether a module has it under a name, by which a graph can read it."""
        named = isinstance(tensor, nn.Parameter) or tensor in self.tensor_attrs
        return named or any(tensor is buffer for buffer in self.root.buffers())

    def _constant(self, tensor: Tensor) -> str:
        """The name of a tensor that `forward` makes of numbers."""
        name = next((n for n, t in self.constants.items() if t is tensor), "")
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = tensor
        add_constants(self.root, self.constants)
        return name

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _ValueProxy(node, self)

    def create_node(
        self,
        kind: str,
        target: Any,
        args: Any,
        kwargs: Any,
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        if _contexts() != self._contexts and not _in_autograd_function():
            path, module_kind = self._caller()
            raise UntraceableError(
                path, module_kind, f"{_where(traceback.extract_stack())}: {CONTEXTS_ARE_LOST}"
            )
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if kind != "output":
            compute(node, lambda: self._evaluate(node))
            if node.meta["writes"]:
                node.meta["where"] = _where(traceback.extract_stack())
        return node

    def _caller(self) -> tuple[str, type]:
        """The module whose `forward` is being traced, and its type."""
        calls = [(path, self.root.get_submodule(path)) for path, _ in self.module_stack.values()]
        inside = [(path, m) for path, m in calls if not self.is_leaf_module(m, path)]
        path, module = inside[-1] if inside else ("", self.root)
        return path, type(module)

    def _evaluate(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.values
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta["value"])
        self._evaluating = True
        try:
            with self.mode, torch.no_grad():
                return self._run(node, args, kwargs)
        finally:
            self._evaluating = False

    def _run(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.root)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        module = self.root.get_submodule(str(node.target))
        if isinstance(module, OCTAVE_LAYERS):
            return module(OctTensor(args[0])).high
        try:
            return module(*args, **kwargs)
        except Exception:
            if type(module) not in self.opaque:
                raise
            return self._run_on_zeros(str(node.target), args, kwargs)

    def _run_on_zeros(self, path: str, args: Any, kwargs: Any) -> Any:
        """The output of an opaque module that needs the content of its input, for zeros."""
        from torch._subclasses.fake_tensor import unset_fake_temporarily

        with unset_fake_temporarily():
            module = copied(self.real.get_submodule(path)).eval()
            args, kwargs = pytree.tree_map_only(
                Tensor, lambda t: torch.zeros(t.shape, dtype=t.dtype), (args, kwargs)
            )
            out = module(*args, **kwargs)
        return pytree.tree_map_only(Tensor, self.mode.from_tensor, out)

    def concrete(self, proxy: "_ValueProxy") -> Any:
        """The value of a number or condition, which the rewritten network then requires."""
        value = proxy.node.meta["value"]
        if isinstance(value, Tensor):
            raise TypeError(CONTENT_DECIDES)
        if all(guard.node is not proxy.node for guard in self.guards):
            self.guards.append(Guard(proxy.node, value, _where(traceback.extract_stack())))
        return value


class _ValueProxy(fx.Proxy):
    tracer: ValueTracer
    __array_priority__ = 1000  # as that of tensors: a number of numpy leaves sums to them

    def in_example(self) -> Any:
        return self.node.meta["value"]

    def __getattr__(self, k: str) -> Any:
        getattr(self.node.meta["value"], k)  # so that hasattr is answered as for the value
        return _ValueAttribute(self, k)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        value = self.tracer.concrete(self)
        kind = torch.float64 if isinstance(value, float) else None
        array = torch.as_tensor(value, dtype=kind).numpy()
        return array if dtype is None else array.astype(dtype)

    def __bool__(self) -> bool:
        return bool(self.tracer.concrete(self))

    def __index__(self) -> int:
        return operator.index(self.tracer.concrete(self))

    def __int__(self) -> int:
        return int(self.tracer.concrete(self))

    def __float__(self) -> float:
        return float(self.tracer.concrete(self))

    def __len__(self) -> int:
        value = self.node.meta["value"]
        return int(self.shape[0]) if isinstance(value, Tensor) else len(value)

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])  # type: ignore[index]


def _in_place(target: Any) -> Any:
    def change(self: _ValueProxy, other: Any) -> Any:
        if not isinstance(self.node.meta["value"], Tensor):
            return NotImplemented  # Python takes `x = x + y` for `x += y`
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return change


# torch.fx has none of these, and so would lose that `x += y` changes x for all that hold it.
ARITHMETIC = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow")
for _name in (*ARITHMETIC, "iand", "ior", "ixor", "ilshift", "irshift"):
    setattr(_ValueProxy, f"__{_name}__", _in_place(getattr(operator, _name)))


class _ValueAttribute(_ValueProxy):
    """`x.name`, a node only when it is used; `x.name()` is a method call."""

    def __init__(self, root: _ValueProxy, name: str) -> None:
        self.root, self.name, self.tracer = root, name, root.tracer
        self._node: fx.Node | None = None

    def in_example(self) -> Any:
        return getattr(self.root.in_example(), self.name)

    @property
    def node(self) -> fx.Node:  # type: ignore[override]
        if self._node is None:
            self._node = self.tracer.create_proxy(
                "call_function", getattr, (self.root, self.name), {}
            ).node
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", self.name, (self.root, *args), kwargs)


HIDDEN = "a graph has no tensors that are in a list, in a dict or behind an attribute of a class"
CONTEXTS_ARE_LOST = "a graph keeps neither no_grad nor autocast"
CONTENT_DECIDES = "the content of a tensor decides what is computed"


def _contexts() -> tuple[bool, ...]:
    """The state that a `with` statement in a `forward` may change."""
    autocasts = (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))
    return torch.is_grad_enabled(), *autocasts


def _in_autograd_function() -> bool:
    """Whether an autograd.Function is being traced: its forward runs without gradients, and is
    traced into operators that have them."""
    frames = traceback.extract_stack()
    return any(frame.filename == AUTOGRAD_FUNCTION for frame in frames)


def described(error: Exception) -> str:
    from torch._subclasses.fake_tensor import DataDependentOutputException
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    where = _where(traceback.extract_tb(error.__traceback__))
    if isinstance(error, DataDependentOutputException | GuardOnDataDependentSymNode):
        reason = CONTENT_DECIDES
    else:
        reason = first_line(error)
    return f"{where}: {reason}" if where else reason


def _where(frames: traceback.StackSummary) -> str:
    """ "file:line: source" of the innermost frame outside torch and this package."""
    for frame in reversed(frames):
        if not frame.filename.startswith(OUR_FILES):
            return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return ""


def place(node: fx.Node) -> str:
    """ "file:line: source" of the network's own code that a node was made of, if known."""
    if "where" in node.meta:
        return str(node.meta["where"])
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith((*OUR_FILES, "torch/"))]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}: {own[-1][2]}" if own else str(node)
