"""The stem's input by space to depth, in one pass: 3 channels of 5 frames become 64 of the
half-size picture."""

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from octvideo.layers.triton import map_kernels


def stem_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int]
) -> Tensor:
    """`F.conv3d` of x (N, C, T, H, W) with stride (1, 2, 2), through 2D; x has no gradient.

    weight (O, C, kt, kh, kw), padding of time, height and width; kt is odd and padded by kt // 2.
    """
    n, _, frames, height, width = x.shape
    weight, before = _block_kernel(weight, padding[1:])
    outputs = [(size + 2 * p - k) // 2 + 1 for size, p, k in zip(
        (height, width), padding[1:], before[2:], strict=True)]  # fmt: skip
    inputs = _blocks(x, padding[0] * 2 + 1, weight.shape, before[:2], outputs)
    out = F.conv2d(inputs, weight.to(inputs.dtype), bias)
    return out.reshape(n, frames, *out.shape[1:]).transpose(1, 2)


def _block_kernel(weight: Tensor, padding: tuple[int, int]) -> tuple[Tensor, tuple[int, ...]]:
    """(O, C, kt, kh, kw) -> (O, channels, kh', kw') on 2 x 2 blocks; pixels before the picture,
    kernel sizes."""
    out, channels, kt, *size = weight.shape
    front = [p % 2 for p in padding]
    back = [(f + k) % 2 for f, k in zip(front, size, strict=True)]
    weight = F.pad(weight, (front[1], back[1], front[0], back[0]))
    height, width = weight.shape[-2:]
    weight = weight.reshape(out, channels, kt, height // 2, 2, width // 2, 2)
    weight = weight.permute(0, 2, 1, 4, 6, 3, 5).flatten(1, 4)
    whole = triton.next_power_of_2(weight.shape[1])
    weight = F.pad(weight, (0, 0, 0, 0, 0, whole - weight.shape[1]))
    before = [p + f for p, f in zip(padding, front, strict=True)]
    return weight.contiguous(memory_format=torch.channels_last), (*before, *size)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _blocks(
    x: Tensor, kernel_t: int, weight: torch.Size, before: tuple[int, ...], outputs: list[int]
) -> Tensor:
    n, channels, frames, height, width = x.shape
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    rows, columns = (o + k - 1 for o, k in zip(outputs, weight[2:], strict=True))
    out = torch.empty((n * frames, rows, columns, weight[1]), dtype=dtype, device=x.device)
    total, block = n * frames * rows * columns, 32
    map_kernels.stem_blocks[(triton.cdiv(total, block),)](
        x, out, total, frames, height, width, rows, columns, *before, *x.stride(),
        C=channels, KT=kernel_t, CHANNELS=weight[1], BP=block,
    )  # fmt: skip
    return out.permute(0, 3, 1, 2)
