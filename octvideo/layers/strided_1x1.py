"""Strided 1 x 1 convolutions of few channels, as unstrided ones of the pixels that they see. Exact.

On CPUs with AVX2, oneDNN's gradient of the weights of a strided 1 x 1 writes past its workspace if
maps are channels-last, have fewer input channels than a register holds numbers, and a height and
width that the stride divides (oneDNN issue 6035; in PyTorch 2.13). It ends the process, or the
gradient is wrong without a word. Convolutions in 3D are not affected.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

REGISTER = 8
"""Numbers in a register of AVX2."""


def pixels_seen(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int] | str
) -> tuple[Tensor, Sequence[int]]:
    """Input and stride of the same convolution: the pixels of x (..., H, W) that a strided 1 x 1 of
    few channels sees, and 1, on a CPU where gradients are recorded; otherwise both as they are.

    weight: (out, in, 1, 1) or (out, in, 1, 1, 1). stride, padding: of height and width.
    """
    is_affected = weight.shape[1] < REGISTER and x.device.type == "cpu" and torch.is_grad_enabled()
    if not is_affected or max(stride) == 1:
        return x, stride
    if set(weight.shape[2:]) != {1} or padding not in ((0, 0), "valid"):
        return x, stride
    return x[..., :: stride[0], :: stride[1]], (1, 1)


def strides_over_few(conv: nn.Conv2d) -> bool:
    """Whether it is a strided 1 x 1 of few channels."""
    few = conv.in_channels // conv.groups < REGISTER
    return few and set(conv.kernel_size) == {1} and max(conv.stride) > 1
