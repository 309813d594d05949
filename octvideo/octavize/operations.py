"""The meaning of the nodes of a traced network for a pair of frequency groups."""

import operator
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from octvideo.layers import OctBatchNorm2d, OctBatchNorm3d, OctConv2d, OctConv3d
from octvideo.layers.calls import computes_as
from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.space_to_depth import Conv2d
from octvideo.octavize.kept import why_kept
from octvideo.octavize.norms import is_per_channel


class Kind(Enum):
    """CONV: a convolution. NORM: statistics or scales of its own for every channel or block of
    channels.

    EACH: each group by itself (elementwise functions, dropout, pools, resampling, slices of time).
    JOIN: value by value of several maps (sums, products). CAT: concatenation of channels.
    GLOBAL: one value per channel is left. ASK: a shape, size, type or device. OTHER: not
    understood.
    """

    CONV = auto()
    NORM = auto()
    EACH = auto()
    JOIN = auto()
    CAT = auto()
    GLOBAL = auto()
    ASK = auto()
    OTHER = auto()


CONVS = (nn.Conv2d, nn.Conv3d, Conv2d, Conv3d, OctConv2d, OctConv3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d, OctBatchNorm2d, OctBatchNorm3d, nn.GroupNorm, nn.PReLU)
INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)
EACH_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Hardtanh, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d, nn.Upsample),
)
_ACTIVATIONS = [
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "sigmoid",
    "logsigmoid",
    "tanh",
    "softplus",
    "softsign",
    "hardswish",
    "hardsigmoid",
    "hardtanh",
]
_POINTWISE = [
    "clamp",
    "clip",
    "abs",
    "neg",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "square",
    "pow",
    "sign",
    "round",
    "erf",
    "sin",
    "cos",
    "clone",
]
_RESIZES = ["interpolate", "upsample"]
_POOLS = ["max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", *_RESIZES]
_RESAMPLING = [
    *("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"),
    *("upsample_bicubic2d", "upsample_nearest3d", "_upsample_nearest_exact3d"),
    "upsample_trilinear3d",
]
_DROPOUTS = ["dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"]
_ARITHMETIC = ["add", "sub", "mul", "div", "true_divide", "maximum", "minimum"]


def _functions(names: Iterable[str], *spaces: Any) -> set[Any]:
    found = {getattr(space, name, None) for space in spaces for name in names}
    return found - {None}


EACH_FUNCTIONS = _functions([*_ACTIVATIONS, *_POINTWISE, *_POOLS, *_DROPOUTS], torch, F) | {
    operator.neg,
    operator.pow,
    operator.abs,
}
EACH_METHODS = {
    *_ACTIVATIONS,
    *(f"{name}_" for name in _ACTIVATIONS),
    *_POINTWISE,
    *(f"{name}_" for name in _POINTWISE),
    *("contiguous", "detach", "to", "float", "half", "double", "bfloat16", "type", "type_as"),
}
JOIN_FUNCTIONS = _functions(_ARITHMETIC, torch) | {
    *(operator.add, operator.sub, operator.mul, operator.truediv),
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv),
}
JOIN_METHODS = {*_ARITHMETIC, *(f"{name}_" for name in _ARITHMETIC)}
CAT_FUNCTIONS = {torch.cat, torch.concat, torch.concatenate}
# Of operators of ATen, which torch.export leaves; they have the names of methods otherwise.
OPERATORS = {*_POOLS, *_RESAMPLING, *_DROPOUTS, "feature_dropout"}
MEANS = {torch.mean, torch.amax, "mean", "amax"}
ADAPTIVE = {
    *(F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
    *(F.adaptive_max_pool2d, F.adaptive_max_pool3d),
    *("adaptive_avg_pool2d", "adaptive_avg_pool3d"),
}
ADAPTIVE_MODULES = (
    *(nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
RESAMPLING = _functions(_RESIZES, F) | set(_RESAMPLING)
ASKED = {"shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad", "names"}
ASKING_METHODS = {"size", "dim", "ndimension", "is_floating_point", "stride", "is_contiguous"}
# What a graph with pairs calls in place of an operation that would overwrite one of its inputs.
OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


# Operations after which the second dimension is no longer that of the channels, whatever the shape
# is.
REARRANGING = {
    *("permute", "transpose", "movedim", "swapaxes", "view", "reshape", "unflatten", "mT", "roll"),
    *(torch.permute, torch.transpose, torch.movedim, torch.swapaxes, torch.reshape, torch.roll),
}


def is_map(x: Any) -> bool:
    """(N, C, H, W) or (N, C, T, H, W)."""
    return isinstance(x, Tensor) and x.dim() in (4, 5)


def is_operator(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload)


def name_of(target: Any) -> Any:
    """The name of an ATen operator, which is that of a tensor's method; other targets as given."""
    return target._schema.name.partition("::")[2] if is_operator(target) else target


def value(node: fx.Node) -> Any:
    return node.meta["value"]


def holds_tensors(node: fx.Node) -> bool:
    """Whether it is a tensor, or a list of some; no size, number, type or device."""
    leaves = pytree.tree_leaves(node.meta.get("value"))
    return any(isinstance(leaf, Tensor) for leaf in leaves)


def continues(node: fx.Node) -> bool:
    """An operation that is not understood, but gives a map of its input's form: the pair is split
    again behind it."""
    maps = maps_of(node)
    return (
        node.op != "output"
        and len(maps) == 1
        and is_map(value(node))
        and value(node).shape == value(maps[0]).shape
        and name_of(node.target) not in REARRANGING
    )


def module_of(node: fx.Node, root: nn.Module) -> nn.Module | None:
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def maps_of(node: fx.Node) -> list[fx.Node]:
    """The inputs that are maps, in their order."""
    return [n for n in node.all_input_nodes if is_map(value(n))]


def resamples(node: fx.Node, root: nn.Module) -> bool:
    """Whether it resizes its map, by a factor or to a size."""
    module = module_of(node, root)
    return isinstance(module, nn.Upsample) or name_of(node.target) in RESAMPLING


def parts_of(node: fx.Node) -> list[fx.Node]:
    """What a concatenation puts together."""
    return list(_argument(node, 0, "tensors"))


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    """An argument of a call, by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def kind_of(node: fx.Node, root: nn.Module) -> Kind:
    """The kind of an operation, for the shapes that it has with the example."""
    if node.op == "call_module":
        return _kind_of_module(node, root.get_submodule(str(node.target)))
    if is_operator(node.target):
        name, eaches = name_of(node.target), EACH_METHODS | OPERATORS
        return _kind_of_call(node, name, {"cat"}, eaches, JOIN_METHODS | {"rsub"})
    if node.op == "call_function":
        return _kind_of_call(node, node.target, CAT_FUNCTIONS, EACH_FUNCTIONS, JOIN_FUNCTIONS)
    if node.op == "call_method":
        return _kind_of_call(node, node.target, set(), EACH_METHODS, JOIN_METHODS)
    return Kind.OTHER


def _kind_of_module(node: fx.Node, module: nn.Module) -> Kind:
    if type(module) in CONVS or _computes_as_its_base(module):
        return Kind.CONV
    if type(module) is nn.PReLU and module.num_parameters == 1:
        return Kind.EACH
    if type(module) in NORMS or is_per_channel(module):
        return Kind.NORM
    if type(module) in INSTANCE_NORMS:
        return Kind.EACH if not (module.affine or module.track_running_stats) else Kind.OTHER
    if type(module) in ADAPTIVE_MODULES:
        return Kind.GLOBAL if _leaves_one(node) else Kind.OTHER
    is_each = isinstance(module, EACH_MODULES) and not list(module.parameters())
    return Kind.EACH if is_each and _keeps_channels(node) else Kind.OTHER


def _computes_as_its_base(module: nn.Module) -> bool:
    """Whether it is a subclass of nn.Conv2d or nn.Conv3d that changes only how it is built, or its
    weights by hooks or parametrizations."""
    has_weight = "weight" in module._parameters or bool(why_kept(module))
    return has_weight and computes_as(module, (nn.Conv2d, nn.Conv3d))


def _kind_of_call(
    node: fx.Node, target: Any, cats: set[Any], eaches: set[Any], joins: set[Any]
) -> Kind:
    if (target is getattr and node.args[1] in ASKED) or (
        node.op == "call_method" and target in ASKING_METHODS
    ):
        return Kind.ASK
    if not is_map(value(node)) and target not in MEANS:
        return Kind.OTHER
    if target in cats:
        is_listed = isinstance(_argument(node, 0, "tensors"), list | tuple)
        return Kind.CAT if is_listed and _dim(node, "dim", 0) == 1 else Kind.OTHER
    if target in joins:
        return Kind.JOIN
    if target in eaches:
        return Kind.EACH if _keeps_channels(node) and "size" not in node.kwargs else Kind.OTHER
    if target in MEANS or target in ADAPTIVE:
        return Kind.GLOBAL if _leaves_one(node) else Kind.OTHER
    if target is operator.getitem:
        return Kind.EACH if _slices_time(node) else Kind.OTHER
    if target in (torch.index_select, "index_select", torch.narrow, "narrow", "slice"):
        is_time = value(node).dim() == 5 and _dim(node, "dim", 0) == 2
        return Kind.EACH if is_time else Kind.OTHER
    return Kind.OTHER


def _dim(node: fx.Node, name: str, default: Any) -> Any:
    """The dimension that a call works on: its second argument, counted from the front."""
    dim = _argument(node, 1, name, default)
    return dim + value(node).dim() if isinstance(dim, int) and dim < 0 else dim


def _keeps_channels(node: fx.Node) -> bool:
    """One map in, another with as many channels out, and no other tensor among the arguments."""
    inputs = [n for n in node.all_input_nodes if isinstance(value(n), Tensor)]
    return (
        len(inputs) == 1
        and is_map(value(node))
        and is_map(value(inputs[0]))
        and value(node).shape[:2] == value(inputs[0]).shape[:2]
        and value(node).dim() == value(inputs[0]).dim()
    )


def _leaves_one(node: fx.Node) -> bool:
    """A pool or a mean over all positions in space; time may stay."""
    inputs = node.all_input_nodes
    if len(inputs) != 1 or not is_map(value(inputs[0])) or not isinstance(value(node), Tensor):
        return False
    leaves_one = value(node).shape[-2:] == (1, 1)
    if name_of(node.target) not in MEANS:
        return leaves_one
    dims = _argument(node, 1, "dim")
    rank = value(inputs[0]).dim()
    over = {d % rank for d in ([dims] if isinstance(dims, int) else dims or ())}
    # An exported mean that drops its dimensions ends the pair as any other operation does: the
    # orders in the state dicts of such networks have those names.
    is_known = leaves_one or not is_operator(node.target)
    return is_known and {rank - 2, rank - 1} <= over and not over & {0, 1}


def _slices_time(node: fx.Node) -> bool:
    """x[:, :, a:b] or x[:, :, a:b, :, :] of a clip, or slices of the batch; also x[:, :n] of all
    channels."""
    index: Any = node.args[1]
    x = value(node.all_input_nodes[0])
    if not is_map(x) or not isinstance(index, tuple) or not is_map(value(node)):
        return False
    touched = {i for i, part in enumerate(index) if part != slice(None)}
    if len(index) > 1 and isinstance(index[1], slice) and value(node).shape[1] == x.shape[1]:
        touched -= {1}
    is_sliced = all(isinstance(index[i], slice) for i in touched)
    return ... not in index and is_sliced and not touched & {1, x.dim() - 2, x.dim() - 1}
