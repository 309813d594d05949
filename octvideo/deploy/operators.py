"""The operators that a network runs, with the memory that each reads and writes and its
floating-point operations.

The network runs on the meta device: nothing is computed, and an operator is known by its input and
output tensors. `octvideo.deploy.roofline` groups operators into kernels and kernels into a
predicted time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import _get_sequence_nr  # type: ignore[attr-defined]
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from octvideo.copies import copied, drop_data
from octvideo.counted_run import running
from octvideo.layers import OctConv2d, OctConv3d, OctTensor, save_memory

CONV_LAYERS = (OctConv2d, OctConv3d, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Style(Enum):
    """The way an operator reads its inputs, which decides what can be fused with it.

    MATRIX: a convolution or matrix product.
    POINTWISE: each output needs one position of each input, perhaps of another size (upsampling).
    WINDOW: each output needs several positions of its input (a pool), so that the input is read
    from memory.
    REDUCTION: batch statistics, taken while a map is written; an operator that uses them must wait
    for all of it.
    OTHER: anything else; no compiler is assumed to fuse it.
    """

    MATRIX = "matrix"
    POINTWISE = "pointwise"
    WINDOW = "window"
    REDUCTION = "reduction"
    OTHER = "other"


_POINTWISE = """
    add add_ sub mul mul_ div div_ neg linspace
    relu relu_ threshold_backward hardtanh hardtanh_ hardtanh_backward sigmoid sigmoid_backward
    cat stack slice_backward index_select bernoulli_ native_dropout native_dropout_backward
    normalize normalize_backward _softmax _softmax_backward_data
    upsample_nearest2d upsample_nearest3d avg_pool2d_backward avg_pool3d_backward
"""
_WINDOW = """
    avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices mean sum
    upsample_nearest2d_backward upsample_nearest3d_backward
    max_pool2d_with_indices_backward max_pool3d_with_indices_backward
"""
_REDUCTION = "batch_statistics batch_statistics_backward"
STYLES = {
    **dict.fromkeys(_POINTWISE.split(), Style.POINTWISE),
    **dict.fromkeys(_WINDOW.split(), Style.WINDOW),
    **dict.fromkeys(_REDUCTION.split(), Style.REDUCTION),
}
# A network whose maps are channels-last throughout makes no copy between layouts.
LAYOUT_COPIES = {"clone", "copy_", "_to_copy", "contiguous"}
# The backward pass of a pool is given its input, of which it needs no more than the size.
SIZE_ONLY = {
    "avg_pool2d_backward",
    "avg_pool3d_backward",
    "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices_backward",
}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write of a tensor. `value` numbers what the memory holds; `total_bytes` is the size
    of all of it."""

    value: int
    region: tuple[int, int]
    num_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a forward or backward pass.

    layer: the convolution or linear layer to which it belongs; an operator outside of any belongs
    to the layer whose
        output it takes, but a pool is a layer of its own.
    """

    name: str
    layer: str
    style: Style
    backward: bool
    flops: int
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes read and written if this operator is a kernel of its own."""
        return sum(access.num_bytes for access in (*self.reads, *self.writes))


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators of a pass. results: values that outlive it (outputs, gradients)."""

    operators: tuple[Operator, ...]
    results: frozenset[int]
    num_parameters: int
    train: bool


def trace_operators(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    train: bool = False,
    itemsize: int = 2,
) -> Operators:
    """The operators of one forward pass in evaluation mode, or of a forward and backward pass in
    training mode.

    The four convolutions of an octave layer, its pool, upsampling and sums are operators of their
    own (the plain form). Copies between memory layouts are left out.

    input_shape: (C, T, H, W) of a clip or (C, H, W) of an image.
    itemsize: bytes of a floating-point element, 2 or 4; integers keep their size.
    """
    model = save_memory(copied(model), False).to("meta").train(train)
    drop_data(model)
    recorder = _Recorder(itemsize)
    with running(model, recorder.stack), torch.enable_grad(), recorder:
        outputs = _tensors(model(torch.empty(batch, *input_shape, device="meta")))
        if train:
            torch.autograd.backward(outputs, [torch.empty_like(out) for out in outputs])
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    results = frozenset(recorder.access(t).value for t in [*outputs, *gradients])
    num_parameters = sum(p.numel() for p in model.parameters())
    return Operators(tuple(recorder.operators), results, num_parameters, train)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operator below autograd. `stack` holds the modules that are running."""

    def __init__(self, itemsize: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.itemsize = itemsize
        self.operators: list[Operator] = []
        self.stack: list[tuple[str, nn.Module]] = []
        self.values: dict[int, int] = {}
        # A storage that is freed would leave its address to another one.
        self.storages: list[Any] = []
        self.layer_of_value: dict[int, str] = {}
        self.layer_of_node: dict[int, str] = {}
        self.num_values = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        out = OUTPUTS[name](args) if name in OUTPUTS else func(*args, **(kwargs or {}))
        read, written = _tensors((args, kwargs)), _tensors(out)
        if name in LAYOUT_COPIES and read:
            self.values[_address(written[0])] = self.access(read[-1]).value
            self.storages.append(written[0].untyped_storage())
        elif name not in ALLOCATIONS:
            inputs = {_address(t) for t in read}
            if not func._schema.is_mutable:
                written = [t for t in written if _address(t) not in inputs]
            if written:
                self._record(func, name, args, out, read, written)
        return out

    def _record(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        out: Any,
        read: list[Tensor],
        written: list[Tensor],
    ) -> None:
        if name in SPLIT:
            for part, part_read, part_written in SPLIT[name](args, out):
                self._append(part, part_read, part_written, 0)
            return
        flops = 0
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, out_val=out)
        if name == "convolution_backward":
            parts = _convolution_backward(args, out)
            for part, part_read, part_written in parts:
                self._append(part, part_read, part_written, flops // len(parts))
        elif name in SIZE_ONLY:
            self._append(name, [read[0], *read[2:]], written, 0)
        else:
            self._append(name, read, written, flops)

    def _append(self, name: str, read: list[Tensor], written: list[Tensor], flops: int) -> None:
        style = Style.MATRIX if flops else STYLES.get(name, Style.OTHER)
        reads = tuple(self.access(t) for t in read)
        node = torch._C._current_autograd_node()
        layer = self._layer(style, reads, node)
        writes = tuple(self._write(t, layer) for t in written)
        self.operators.append(Operator(name, layer, style, node is not None, flops, reads, writes))

    def _layer(self, style: Style, reads: Sequence[Access], node: Any) -> str:
        if node is not None and node._sequence_nr() in self.layer_of_node:
            return self.layer_of_node[node._sequence_nr()]
        producers = [a.value for a in reads if a.value in self.layer_of_value]
        inside = [name for name, module in self.stack if isinstance(module, CONV_LAYERS)]
        if inside:
            layer = inside[0]
        elif style in (Style.POINTWISE, Style.REDUCTION) and producers:
            layer = self.layer_of_value[max(producers)]
        else:
            layer = self.stack[-1][0] if self.stack else "network"
        # The node that autograd made for this operator has the number before the next one.
        self.layer_of_node.setdefault(_get_sequence_nr() - 1, layer)
        return layer

    def access(self, tensor: Tensor) -> Access:
        address = _address(tensor)
        if address not in self.values:
            self._renew(tensor)
        elements = 1
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            elements *= size if stride else 1
        size = self.itemsize if tensor.is_floating_point() else tensor.element_size()
        total = tensor.untyped_storage().nbytes() // tensor.element_size()
        region = (int(tensor.storage_offset()), elements)
        return Access(self.values[address], region, size * elements, size * total)

    def _write(self, tensor: Tensor, layer: str) -> Access:
        self._renew(tensor)
        access = self.access(tensor)
        self.layer_of_value[access.value] = layer
        return access

    def _renew(self, tensor: Tensor) -> None:
        """The memory of `tensor` holds something new from here on."""
        self.values[_address(tensor)] = self.num_values
        self.storages.append(tensor.untyped_storage())
        self.num_values += 1


Part = tuple[str, list[Tensor], list[Tensor]]


def _batch_norm(args: tuple[Any, ...], out: Any) -> list[Part]:
    """Batch norm; in training it takes two passes over the input: statistics first."""
    x, weight, bias, mean, var, training = args[:6]
    if not training:
        return [("normalize", _tensors((x, weight, bias, mean, var)), [out[0]])]
    statistics = [out[1], out[2]]
    return [
        ("batch_statistics", _tensors((x, mean, var)), statistics),
        ("normalize", _tensors((x, weight, bias, statistics)), [out[0]]),
    ]


def _batch_norm_backward(args: tuple[Any, ...], out: Any) -> list[Part]:
    """Two passes over the input and its gradient: the sums first."""
    grad, x, weight, _, _, mean, invstd = args[:7]
    sums = _tensors((out[1], out[2]))
    return [
        ("batch_statistics_backward", _tensors((grad, x, mean, invstd)), sums),
        ("normalize_backward", _tensors((grad, x, weight, mean, invstd, sums)), [out[0]]),
    ]


def _convolution_backward(args: tuple[Any, ...], out: Any) -> list[Part]:
    """The gradient of the input and that of the weight (and bias) are two kernels."""
    grad, x, weight = args[:3]
    parts: list[Part] = []
    if out[0] is not None:
        parts.append(("convolution_backward_input", [grad, weight], [out[0]]))
    if out[1] is not None:
        parts.append(("convolution_backward_weight", [grad, x], _tensors((out[1], out[2]))))
    return parts


def _batch_norm_outputs(args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    x = args[0]
    return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _batch_norm_gradients(args: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
    outputs = _batch_norm_outputs(args[1:])
    return tuple(out if wanted else None for out, wanted in zip(outputs, args[-1], strict=True))


# Without data only sizes are left of a batch norm, and to run it takes most of the time.
OUTPUTS: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {
    "native_batch_norm": _batch_norm_outputs,
    "native_batch_norm_backward": _batch_norm_gradients,
}
SPLIT: dict[str, Callable[[tuple[Any, ...], Any], list[Part]]] = {
    "native_batch_norm": _batch_norm,
    "native_batch_norm_backward": _batch_norm_backward,
}


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, OctTensor):
        tree = (tree.high, tree.low)
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
