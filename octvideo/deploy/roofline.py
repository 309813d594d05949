"""Predict the time of a network on a named GPU from the roofline of each of its kernels.

A kernel takes max(FLOPs / rate, bytes / bandwidth). The operators of a network are grouped into
kernels in one of four forms:

    unfused     every operator is a kernel: eager PyTorch
    fused       convolutions are kernels; everything pointwise between them is fused, as
                torch.compile does; pools and batch statistics begin or end a kernel
    fused-pools the kernel that writes a map also writes its 2 x 2 average
    one-pass    an octave layer with its BN, residual sum and ReLU is one kernel that reads and
                writes each group once; its backward pass is another one

    predict(model, (3, 8, 224, 224), "h100", batch=8, form="fused").seconds
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Literal

from torch import nn

from octvideo.deploy.gpus import Gpu, find_gpu
from octvideo.deploy.operators import Access, Operator, Operators, Style, trace_operators
from octvideo.errors import ConfigError

Form = Literal["unfused", "fused", "fused-pools", "one-pass"]
Precision = Literal["bf16", "fp16", "tf32", "fp32"]
ITEMSIZE = {"bf16": 2, "fp16": 2, "tf32": 4, "fp32": 4}


@dataclass(frozen=True, slots=True)
class Kernel:
    """Operators as one kernel; `layer`: of the first matrix product, else the first operator."""

    layer: str
    matrix: bool
    backward: bool
    flops: int
    num_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Kernels in the order in which they run. Seconds are for the whole batch."""

    kernels: tuple[Kernel, ...]

    @property
    def seconds(self) -> float:
        return sum(k.seconds for k in self.kernels)

    @property
    def matrix_seconds(self) -> float:
        """Time of the kernels that convolve or multiply matrices, with what is fused into them."""
        return sum(k.seconds for k in self.kernels if k.matrix)

    @property
    def flops(self) -> int:
        return sum(k.flops for k in self.kernels)

    @property
    def num_bytes(self) -> int:
        return sum(k.num_bytes for k in self.kernels)

    def layers(self) -> dict[str, "Prediction"]:
        """The kernels of each layer, forward and backward."""
        kernels: dict[str, list[Kernel]] = defaultdict(list)
        for kernel in self.kernels:
            kernels[kernel.layer].append(kernel)
        return {layer: Prediction(tuple(found)) for layer, found in kernels.items()}


def predict(
    model: nn.Module,
    input_shape: Sequence[int],
    gpu: str | Gpu,
    *,
    batch: int = 1,
    dtype: Precision = "bf16",
    form: Form = "unfused",
    train: bool = False,
    launch_seconds: float = 0.0,
) -> Prediction:
    """The predicted time of one forward pass, or of one training step, of `model` on `gpu`.

    input_shape: (C, T, H, W) of a clip or (C, H, W) of an image.
    gpu: a name that `find_gpu` knows, or a `Gpu` with rates of your own.
    dtype: "bf16" or "fp16" (tensor cores, 2 bytes), "tf32" (tensor cores, 4 bytes), "fp32" (4
    bytes).
    form: how operators are grouped into kernels; the module's docstring has the four.
    train: forward, backward and the optimizer's update, with batch statistics.
    launch_seconds: added to each kernel; about 4e-6 in eager PyTorch where the GPU waits for the
    CPU, 1e-6 in a graph.

    Raises ConfigError for an unknown GPU or form, and for a dtype that the GPU does not have.
    """
    if dtype not in ITEMSIZE:
        raise ConfigError(f"dtype is {dtype!r}; it is one of {', '.join(ITEMSIZE)}")
    operators = trace_operators(
        model, input_shape, batch=batch, train=train, itemsize=ITEMSIZE[dtype]
    )
    return predict_operators(operators, gpu, dtype=dtype, form=form, launch_seconds=launch_seconds)


def predict_operators(
    operators: Operators,
    gpu: str | Gpu,
    *,
    dtype: Precision = "bf16",
    form: Form = "unfused",
    launch_seconds: float = 0.0,
) -> Prediction:
    """`predict` from a trace, for several forms and GPUs. The trace has the itemsize of `dtype`."""
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    if form not in FORMS:
        raise ConfigError(f"form is {form!r}; it is one of {', '.join(FORMS)}")
    if dtype not in gpu.rates:
        raise ConfigError(f"{gpu.name} has no {dtype}; it has {', '.join(gpu.rates)}")

    def kernel(layer: str, matrix: bool, backward: bool, flops: int, num_bytes: int) -> Kernel:
        seconds = max(flops / gpu.rates[dtype], num_bytes / gpu.bandwidth) + launch_seconds
        return Kernel(layer, matrix, backward, flops, num_bytes, seconds)

    groups, merged = FORMS[form](operators)
    sizes = _bytes_moved(groups, operators.results, merged, keep_unused=form == "unfused")
    kernels = []
    for group, num_bytes in zip(groups, sizes, strict=True):
        first = next((op for op in group if op.flops), group[0])
        flops = sum(op.flops for op in group)
        kernels.append(kernel(first.layer, flops > 0, first.backward, flops, num_bytes))
    if operators.train:
        # SGD with momentum reads three fp32 numbers and writes two; a half copy is made of the
        # weight.
        half = ITEMSIZE[dtype]
        moved = (5 * 4 + (4 + half if half < 4 else 0)) * operators.num_parameters
        kernels.append(kernel("optimizer", False, True, 0, moved))
    return Prediction(tuple(kernels))


# --- Bytes of a kernel

Groups = list[list[Operator]]
Merged = dict[int, Access]


@dataclass(slots=True)
class _Touched:
    """The part of one value that a kernel reads or writes."""

    regions: dict[tuple[int, int], int] = field(default_factory=dict)
    total: int = 0
    whole: bool = False

    def add(self, access: Access, size: int, whole: bool) -> None:
        self.regions[access.region] = access.num_bytes
        self.total = max(self.total, size)
        self.whole = self.whole or whole

    @property
    def num_bytes(self) -> int:
        return self.total if self.whole else min(sum(self.regions.values()), self.total)


def _bytes_moved(
    groups: Groups, results: frozenset[int], merged: Merged, *, keep_unused: bool
) -> list[int]:
    """The bytes that each group reads from outside, and those that it writes for other groups or as
    a result of the network.

    merged: values that are recomputed from another one wherever they are needed, and that one.
    keep_unused: a value that nobody reads (the indices of a max pool) is written nevertheless.
    """
    readers: dict[int, set[int]] = defaultdict(set)
    for i, group in enumerate(groups):
        for op in group:
            for access in op.reads:
                readers[_source(access, merged).value].add(i)
    wanted = {merged[value].value if value in merged else value for value in results}
    moved = []
    for i, group in enumerate(groups):
        read = _touched((a for op in group for a in op.reads), merged)
        kept = (a for op in group for a in op.writes if a.value not in merged)
        written = _touched(kept, merged)
        inputs = sum(touched.num_bytes for v, touched in read.items() if v not in written)
        outputs = 0
        for value, touched in written.items():
            unused = keep_unused and not readers[value]
            if readers[value] - {i} or value in wanted or unused:
                outputs += touched.num_bytes
        moved.append(inputs + outputs)
    return moved


def _source(access: Access, merged: Merged) -> Access:
    return merged.get(access.value, access)


def _touched(accesses: Iterable[Access], merged: Merged) -> dict[int, _Touched]:
    touched: dict[int, _Touched] = defaultdict(_Touched)
    for access in accesses:
        source = _source(access, merged)
        whole = source.value != access.value
        touched[source.value].add(access, source.total_bytes, whole)
    return touched


# --- The forms


def _fused(operators: Operators, joining: Callable[[Operator], bool]) -> tuple[Groups, Merged]:
    """A `joining` operator joins the latest kernel that it reads from, unless that is closed or has
    to be complete.

    Kernels that only it reads from join it in turn, so that a gradient that is upsampled or pooled
    is not written before it is added to another.
    """
    alive = _alive(operators)
    readers: dict[int, list[Operator]] = defaultdict(list)
    for op in alive:
        for access in op.reads:
            readers[access.value].append(op)
    groups: dict[int, list[Operator]] = {}
    group_of: dict[int, int] = {}
    for number, op in enumerate(alive):
        producers = sorted({group_of[a.value] for a in op.reads if a.value in group_of})
        joinable = [p for p in producers if joining(op) and _is_open(groups[p], op)]
        if producers and producers[-1] in joinable:
            home = producers[-1]
            groups[home].append(op)
        else:
            home = number
            absorbed = [groups.pop(p) for p in joinable if _only_reader(op, groups[p], readers)]
            groups[home] = [*chain(*absorbed), op]
        group_of.update((a.value, home) for member in groups[home] for a in member.writes)
    return [groups[number] for number in sorted(groups)], {}


def _is_pointwise(op: Operator) -> bool:
    return op.style in (Style.POINTWISE, Style.REDUCTION)


# The backward pass of an upsampling sums 2 x 2 positions.
OCTAVE_POOLS = (
    "avg_pool2d",
    "avg_pool3d",
    "upsample_nearest2d_backward",
    "upsample_nearest3d_backward",
)


def _is_open(group: list[Operator], op: Operator) -> bool:
    """Whether `op` may become part of this kernel, from which it reads."""
    if any(member.style in (Style.MATRIX, Style.OTHER) for member in group):
        return False
    sums = {a.value for m in group if m.style is Style.REDUCTION for a in m.writes}
    return not any(access.value in sums for access in op.reads)


def _only_reader(op: Operator, group: list[Operator], readers: dict[int, list[Operator]]) -> bool:
    allowed = {id(op), *map(id, group)}
    found = [r for member in group for a in member.writes for r in readers[a.value]]
    return allowed.issuperset(map(id, found))


def _one_pass(operators: Operators) -> tuple[Groups, Merged]:
    """A kernel per layer and direction; readers compute batch norms, ReLUs and pools again."""
    groups: dict[tuple[str, bool], list[Operator]] = defaultdict(list)
    merged: Merged = {}
    for op in _alive(operators):
        groups[op.layer, op.backward].append(op)
        if op.name in RECOMPUTED and not op.backward:
            source = _source(op.reads[0], merged)
            merged.update((access.value, source) for access in op.writes)
    return list(groups.values()), merged


RECOMPUTED = ("normalize", "relu", "relu_", "avg_pool2d", "avg_pool3d")


def _alive(operators: Operators) -> list[Operator]:
    """The operators without those whose results nobody needs: counters of batches."""
    needed = set(operators.results)
    kept = []
    for op in reversed(operators.operators):
        if any(access.value in needed for access in op.writes):
            needed.update(access.value for access in op.reads)
            kept.append(op)
    return kept[::-1]


FORMS: dict[str, Callable[[Operators], tuple[Groups, Merged]]] = {
    "unfused": lambda operators: ([[op] for op in operators.operators], {}),
    "fused": partial(_fused, joining=_is_pointwise),
    "fused-pools": partial(_fused, joining=lambda op: _is_pointwise(op) or op.name in OCTAVE_POOLS),
    "one-pass": _one_pass,
}
