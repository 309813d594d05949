"""3D convolutions and pools computed as 2D ones on views of the same memory.

PyTorch's 3D kernels on a CPU are well below its 2D ones, and most kernels of a video network are
flat: 1 x k x k or k x 1 x 1. In channels-last memory (N, T, H, W, C) both are 2D convolutions on a
free view:

    1 x k x k    (N * T, C, H, W)
    k x 1 x 1    (N, C, T, H * W), kernel (k, 1)

A kernel that is deep and wide (the stem, 5 x 7 x 7) is 1 x 7 x 7 on 5 shifted copies of its few
input channels, and 1 x 1 x 1 a matrix product where PyTorch would make one anyway. A depthwise
kernel that is deep and wide stays in 3D, with gradients of its own (`layers/depthwise.py`).

The same views serve a GPU. Whether they are faster there depends on the card and on cuDNN:
`compute_in_2d` decides.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.layers.depthwise import depthwise_conv3d, has_fast_gradients, takes_own_gradients
from octvideo.layers.space_to_depth import (
    BySpaceToDepth,
    Conv2d,
    has_space_to_depth,
    space_to_depth,
    spatial_padding,
    takes_space_to_depth,
)
from octvideo.layers.strided_1x1 import pixels_seen, strides_over_few

In2D = bool | Literal["auto"]

FASTER_IN_2D = frozenset({"cpu", "cuda"})
"""The types of device on which "auto" computes in 2D, by measurement (decision 003)."""


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` that computes as 2D convolutions where `in_2d` says so (`compute_in_2d`)."""

    in_2d: In2D = False
    by_space_to_depth: BySpaceToDepth = False

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:  # as in `layers/initialize.py`
            super().reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        is_batch = x.dim() == 5
        by_space_to_depth = is_batch and takes_space_to_depth(self.by_space_to_depth, x)
        chosen = is_batch and _in_2d(self.in_2d, x)
        in_2d = chosen and self._has_form()
        if by_space_to_depth and in_2d and self._in_one_pass(x):
            from octvideo.layers.triton.stem import stem_conv

            return stem_conv(x, self.weight, self.bias, self.padding)  # type: ignore[arg-type]
        if not (by_space_to_depth or in_2d):
            if chosen and has_fast_gradients(self):
                return depthwise_conv3d(x, self.weight, self.bias, self.stride, self.padding)  # type: ignore[arg-type]
            return super().forward(x)
        weight, stride, padding = self.weight, self.stride, self.padding
        assert not isinstance(padding, str)
        if by_space_to_depth:
            x, weight = space_to_depth(x, weight, spatial_padding(self))
            stride, padding = (stride[0], 1, 1), (padding[0], 0, 0)
        if in_2d:
            return conv3d_as_2d(x, weight, stride, padding, self.groups, self.bias)
        return F.conv3d(x, weight, self.bias, stride, padding)

    def _in_one_pass(self, x: Tensor) -> bool:
        """Whether one kernel rearranges the clip: on a GPU, without a gradient, frame by frame."""
        keeps_frames = self.stride[0] == 1 and self.kernel_size[0] == 2 * int(self.padding[0]) + 1
        return keeps_frames and x.is_cuda and not x.requires_grad and has_triton()

    def _has_form(self) -> bool:
        """Without dilation, and with padding only where the kernel has neighbors to see; a
        depthwise kernel only where it is flat."""
        if (
            isinstance(self.padding, str)
            or self.padding_mode != "zeros"
            or self.dilation != (1, 1, 1)
        ):
            return False
        t, *window = self.kernel_size
        if self.groups == self.in_channels > 1 and t > 1 and max(window) > 1:
            return False
        return all(k > 1 or p == 0 for k, p in zip(self.kernel_size, self.padding, strict=True))


class MaxPool3d(nn.MaxPool3d):
    """`nn.MaxPool3d` that computes 1 x k x k as a 2D pool and 2 x 1 x 1 as the larger of two frames
    where `in_2d` says so.

    PyTorch's pool is slower in 3D, and as a (2, 1) pool in 2D much slower (decision 003).
    """

    in_2d: In2D = False

    def forward(self, x: Tensor) -> Tensor:
        if not (_in_2d(self.in_2d, x) and self._has_form(x)):
            return super().forward(x)
        (t, *k), (st, *s) = _three(self.kernel_size), _three(self.stride)
        if t == 1:
            x = x[:, :, ::st]
            return unfold_time(F.max_pool2d(fold_time(x), k, s, _three(self.padding)[1:]), x)
        return LargerOfTwo.apply(x) if takes_own_gradients(x) else torch.maximum(*_pairs(x))  # type: ignore[no-untyped-call]

    def _has_form(self, x: Tensor) -> bool:
        """A batch, padded in space only, without dilation, indices and windows beyond the edge."""
        kernel, stride, padding = map(_three, (self.kernel_size, self.stride, self.padding))
        plain = _three(self.dilation) == (1, 1, 1) and not (self.return_indices or self.ceil_mode)
        is_pair = kernel == stride == (2, 1, 1) and padding == (0, 0, 0) and x.shape[2] > 1
        return x.dim() == 5 and plain and padding[0] == 0 and (kernel[0] == 1 or is_pair)


def _three(sizes: Any) -> tuple[int, int, int]:
    """A size of every dimension, given as one number or as three."""
    t, h, w = sizes if isinstance(sizes, Sequence) else (sizes,) * 3
    return t, h, w


class LargerOfTwo(torch.autograd.Function):
    """The maximum of frames 0 and 1, of frames 2 and 3, ...; where both are equal, the first gets
    the gradient.

    Saves one byte per output for the backward pass. (The gradient of `torch.maximum` on slices
    fills and adds whole maps.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        first, second = _pairs(x)
        ctx.save_for_backward(first >= second)
        ctx.frames = x.shape[2]
        return torch.maximum(first, second)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (is_first,) = ctx.saved_tensors
        shape = (*grad.shape[:2], ctx.frames, *grad.shape[3:])
        layout = torch.channels_last_3d
        out = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
        if torch.is_grad_enabled():  # a second derivative, which `out=` does not have
            _pairs(out)[0].copy_(grad * is_first)
            _pairs(out)[1].copy_(grad * ~is_first)
        else:
            first, second = _pairs(out)
            torch.mul(grad, is_first, out=first)
            torch.sub(grad, first, out=second)
        out[:, :, 2 * grad.shape[2] :] = 0
        return out


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Frames 0, 2, ... and frames 1, 3, ...; the last frame of an odd number is left out."""
    end = x.shape[2] // 2 * 2
    return x[:, :, 0:end:2], x[:, :, 1:end:2]


@cache
def has_triton() -> bool:
    """Whether Triton can be imported; PyTorch's CUDA builds bring it along."""
    return find_spec("triton") is not None


def in_2d() -> bool:
    """False while a graph is exported: runtimes fuse plain 3D graphs and choose their layout."""
    # Torch has is_exporting since 2.7, and up to 2.11 torch.compile answers True to it, too.
    exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return not exporting or _exported_in_2d.get()


_exported_in_2d = ContextVar("exported_in_2d", default=False)


@contextmanager
def exported_in_2d() -> Iterator[None]:
    """Graphs exported in this context compute in 2D, for runtimes with slow 3D convolutions."""
    token = _exported_in_2d.set(True)
    try:
        yield
    finally:
        _exported_in_2d.reset(token)


def compute_in_2d(model: nn.Module, on: In2D = "auto") -> nn.Module:
    """Let the 3D convolutions and max pools of `model` compute in 2D, or in 3D again; returns
    `model`.

    PyTorch's own, which networks of others have, become `Conv3d` and `MaxPool3d` of this package in
    place, with their parameters, names and hooks; subclasses that others wrote stay as they are.
    What they compute in 2D is channels-last. An `nn.Conv2d` that strides as 1 x 1 over fewer than 8
    channels becomes this package's `Conv2d`: on CPUs with AVX2 its gradient may be wrong.

    on: True or False holds on every device; "auto" is True on devices where 2D was measured to be
    faster (`FASTER_IN_2D`). A compiled network is compiled again after a change.
    """
    for module in model.modules():
        if on and type(module) in _OURS:
            module.__class__ = _OURS[type(module)]
            with_python_numbers(module)
        elif on and type(module) is nn.Conv2d and strides_over_few(module):
            module.__class__ = Conv2d
        if isinstance(module, Conv3d | MaxPool3d):
            module.in_2d = on
    return model


_OURS: dict[type, type] = {nn.Conv3d: Conv3d, nn.MaxPool3d: MaxPool3d}


def with_python_numbers(layer: nn.Module) -> None:
    """Its sizes and strides as ints: torch.compile takes pytorchvideo's numpy ones for tensors."""
    for name, sizes in list(vars(layer).items()):
        if isinstance(sizes, tuple) and any(type(size).__module__ == "numpy" for size in sizes):
            setattr(layer, name, tuple(int(size) for size in sizes))


def stem_by_space_to_depth(model: nn.Module, on: BySpaceToDepth = "auto") -> nn.Module:
    """Let the strided convolutions of `model` that have few input channels (its stem) compute by
    space to depth; returns `model`.

    on: True or False holds everywhere; "auto" is True for the devices and dtypes where it was
    measured to be faster (`FASTER_BY_SPACE_TO_DEPTH`). Parameters do not change, and results change
    by rounding only.
    """
    for module in model.modules():
        if isinstance(module, Conv2d | Conv3d) and has_space_to_depth(module):
            module.by_space_to_depth = on
    return model


def lower(model: nn.Module, on: In2D = "auto") -> nn.Module:
    """The name of `compute_in_2d` in version 0.1.0."""
    return compute_in_2d(model, on)


def _in_2d(choice: In2D, x: Tensor) -> bool:
    on = x.device.type in FASTER_IN_2D if choice == "auto" else choice
    return on and in_2d()


def channels_last(model: nn.Module, on: bool = True) -> nn.Module:
    """Store the kernels of `model` channels-last, or contiguously again; returns `model`.

    PyTorch's convolutions choose their algorithm by the memory format of their weights: on CPUs
    channels-last is faster by a third.
    """
    for parameter in model.parameters():
        last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.dim())
        if last is not None:
            parameter.data = parameter.data.contiguous(
                memory_format=last if on else torch.contiguous_format
            )
    return model


def conv3d_as_2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """`F.conv3d` of x (N, C, T, H, W), without dilation; the result is channels-last where x is."""
    t, kh, kw = weight.shape[2:]
    (st, *s), (pt, *p) = stride, padding
    in_space: Sequence[int] = s
    if t == kh == kw == groups == 1 and st == 1 and s == [1, 1] and _copies_1x1(x):
        return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)
    if kh == kw == 1 and t > 1:
        x = x if s == [1, 1] else x[..., :: s[0], :: s[1]]
        out = F.conv2d(x.flatten(3), weight.squeeze(4), bias, (st, 1), (pt, 0), 1, groups)
        return unflatten_space(out, x)
    if t == 1:
        x, in_space = pixels_seen(x[:, :, ::st], weight, s, tuple(p))
        weight = weight.squeeze(2)
    else:
        x, weight = _frames_seen(x, t, st, pt, groups), weight.transpose(1, 2).flatten(1, 2)
    out = F.conv2d(fold_time(x), weight, bias, in_space, p, 1, groups)
    # cuDNN gives contiguous maps in float64; unfolded, they would be in neither format.
    return unfold_time(_channels_last(out), x)


def fold_time(x: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N * T, C, H, W), channels-last; a view where x is channels-last."""
    # Reshaped, a single frame has strides of which PyTorch's batch norm mistakes the layout.
    return _channels_last(x.squeeze(2) if x.shape[2] == 1 else x.transpose(1, 2).flatten(0, 1))


def _channels_last(x: Tensor) -> Tensor:
    """In that memory format; torch.func.vmap copies into no such one."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return x
    return x.contiguous(memory_format=torch.channels_last)


def unfold_time(x: Tensor, like: Tensor) -> Tensor:
    """(N * T, C, H, W) -> (N, C, T, H, W), the clips and frames of `like`; N may be 0."""
    if like.shape[2] == 1:
        return x.unsqueeze(2)
    return x.reshape(like.shape[0], like.shape[2], *x.shape[1:]).transpose(1, 2)


def unflatten_space(x: Tensor, like: Tensor) -> Tensor:
    """(N, C, T, H * W) -> (N, C, T, H, W), the height and width of `like`."""
    return x.reshape(*x.shape[:3], *like.shape[3:])


def _copies_1x1(x: Tensor) -> bool:
    """On a CPU, in one thread, PyTorch computes an unstrided 1 x 1 of fewer than 16 images as a
    matrix product of copies."""
    return (
        x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch.get_num_threads() == 1
        and x.shape[0] * x.shape[2] < 16
    )


def _frames_seen(x: Tensor, kernel_t: int, stride_t: int, padding_t: int, groups: int) -> Tensor:
    """(N, C, T, H, W) -> (N, kt * C, T', H, W): the frames that each kernel sees, by group."""
    x = F.pad(x, (0, 0, 0, 0, padding_t, padding_t))
    if x.shape[2] < kernel_t:
        raise RuntimeError(
            f"a clip of {x.shape[2]} frames, padding included, is shorter than a kernel of"
            f" {kernel_t}: give more frames"
        )
    frames = (x.shape[2] - kernel_t) // stride_t + 1
    if groups > 1:
        x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    shifted = [x[..., i::stride_t, :, :][..., :frames, :, :] for i in range(kernel_t)]
    return torch.cat(shifted, dim=-4).flatten(1, -4)
