"""Depthwise 3D convolutions with gradients that are fast on a CPU.

PyTorch's forward pass is fast, but its gradients, a loop over channels, take most of a training
step of X3D. They are convolutions as well:

    of the input     of the output's gradient, zeros between its strides, by the mirrored kernel
    of the weight    for each clip and frame of the kernel the gradient of a 2D convolution, which
                     PyTorch has a fast form for; time is its batch. For maps of few pixels, which
                     that form is slow for, a product and a sum for each weight of the kernel
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

Three = tuple[int, int, int]

# Pixels of the largest map on which products and sums are faster than the 2D form, whatever the
# channels; at 4 x 4 either is.
FEW_PIXELS = 9


def has_fast_gradients(conv: nn.Conv3d) -> bool:
    """Whether a convolution is depthwise, zero-padded by less than its kernel, undilated."""
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and conv.dilation == (1, 1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and all(p < k for p, k in zip(conv.padding, conv.kernel_size, strict=True))
    )


def depthwise_conv3d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Three, padding: Three
) -> Tensor:
    """`F.conv3d` of x (N, C, T, H, W) and weight (C, 1, kt, kh, kw), a group for each channel.

    The gradients are those of this module on a CPU; PyTorch's on other devices, in a compiled
    graph, in torch.func and in forward-mode AD.
    """
    if x.device.type != "cpu" or not takes_own_gradients(x, weight):
        return F.conv3d(x, weight, bias, stride, padding, 1, len(weight))
    if torch.is_autocast_enabled("cpu"):
        x, weight, bias = (_as_autocast_does(tensor) for tensor in (x, weight, bias))  # type: ignore[assignment]
    out: Tensor = Depthwise.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return out


def takes_own_gradients(*tensors: Tensor) -> bool:
    """Whether an autograd.Function of ours is to be called: one has a gradient to find, and not
    only PyTorch's operations are taken."""
    has_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return has_gradient and not is_transformed()


def is_transformed() -> bool:
    """Whether this runs in a compiled graph, in torch.func or in forward-mode AD, which take
    operations of PyTorch only, and none into a tensor that is there."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _as_autocast_does(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype("cpu"))


class Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Three, padding: Three
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv3d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", enabled=False):
            return (
                _grad_of_input(grad, x.shape, weight, ctx.stride, ctx.padding) if of_x else None,
                _grad_of_weight(grad, x, weight, ctx.stride, ctx.padding) if of_weight else None,
                grad.sum((0, 2, 3, 4)) if of_bias else None,
                None,
                None,
            )


def _grad_of_input(
    grad: Tensor, shape: torch.Size, weight: Tensor, stride: Three, padding: Three
) -> Tensor:
    kernel = weight.shape[2:]
    if stride != (1, 1, 1):
        sizes = [n + 2 * p - k + 1 for n, p, k in zip(shape[2:], padding, kernel, strict=True)]
        spread = torch.empty(
            (*grad.shape[:2], *sizes), dtype=grad.dtype, memory_format=torch.channels_last_3d
        )
        st, sh, sw = stride
        spread.zero_()[:, :, ::st, ::sh, ::sw] = grad
        grad = spread
    around = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
    return F.conv3d(grad, weight.flip(2, 3, 4), None, 1, around, 1, len(weight))


def _grad_of_weight(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Three, padding: Three
) -> Tensor:
    dtype = torch.promote_types(weight.dtype, torch.float32)
    if grad.shape[3] * grad.shape[4] <= FEW_PIXELS:
        sums = _sums_of_products(grad.to(dtype), x.to(dtype), weight.shape[2:], stride, padding)
        return sums.to(weight.dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    out = torch.zeros_like(weight, dtype=dtype)
    for i in range(weight.shape[2]):
        seen, used = _frames(i, x.shape[2], grad.shape[2], stride[0], padding[0])
        of_clips = grad[:, :, used].transpose(1, 2)
        for clip, of_clip in zip(x[:, :, seen].transpose(1, 2), of_clips, strict=True):
            if len(clip):
                out[:, :, i] += _backward(of_clip, clip, weight[:, :, i], stride[1:], padding[1:])
    return out.to(weight.dtype)


def _sums_of_products(
    grad: Tensor, x: Tensor, kernel: torch.Size, stride: Three, padding: Three
) -> Tensor:
    """(C, 1, kt, kh, kw): each weight's sum over clips, frames and pixels of the output's gradient
    times the inputs that the weight sees."""
    around = [n for size in reversed(padding) for n in (size, size)]
    x = F.pad(x, around).contiguous(memory_format=torch.channels_last_3d)
    sums = []
    for offset in product(*map(range, kernel)):
        steps = zip(offset, stride, grad.shape[2:], strict=True)
        seen = [slice(first, first + step * (n - 1) + 1, step) for first, step, n in steps]
        sums.append((x[:, :, *seen] * grad).sum((0, 2, 3, 4)))
    return torch.stack(sums, 1).view(-1, 1, *kernel)


def _frames(i: int, frames: int, out_frames: int, stride: int, padding: int) -> tuple[slice, slice]:
    """The frames of the clip that frame `i` of a kernel sees, and the output's frames for which."""
    first = max(0, -(-(padding - i) // stride))
    last = min(out_frames - 1, (frames - 1 + padding - i) // stride)
    if last < first:
        return slice(0), slice(0)
    start = first * stride - padding + i
    return slice(start, start + (last - first) * stride + 1, stride), slice(first, last + 1)


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Tensor:
    """PyTorch's gradient of the weight."""
    ones, zeros = (1,) * len(stride), (0,) * len(stride)
    options = (stride, padding, ones, False, zeros, len(weight), (False, True, False))
    out: Tensor = torch.ops.aten.convolution_backward(grad, x, weight, None, *options)[1]
    return out
