"""Pixel transforms: uint8 resize, crop, flip and color in the worker, normalization on the device.

The worker keeps uint8 with the channel last in memory, where these steps cost 3 ms a clip beside 40
ms of decoding (benchmarks/); moving them to the device would gain nothing and would need one size
for a whole batch.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from octvideo.data.sampling import crop_offset, short_side_size

_LUMA = torch.tensor([0.299, 0.587, 0.114])
Box = tuple[int, int, int, int]  # left, top, right, bottom
Draw = Callable[[], float]
"""A source of numbers in [0, 1): `random.Random(seed).random`."""
Change = Callable[[Tensor], Tensor]
"""What is done to a clip, the same for each of its frames alone."""


def normalize(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (N, 3, [T,] H, W) -> float32 of that shape, (x / 255 - mean) / std per channel.

    Runs on the device of the inputs: only a quarter of the bytes is copied there, and the worker's
    CPU is left for decoding.
    """
    shape = (-1, *[1] * (inputs.dim() - 2))
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float32))
    shift = torch.tensor(mean, dtype=torch.float32) * 255 * scale
    # A GPU gets the six numbers without being waited for.
    scale, shift = (
        numbers.view(shape).to(inputs.device, non_blocking=True) for numbers in (scale, shift)
    )
    return inputs.float().mul_(scale).sub_(shift)


def resize_short_side(clip: Tensor, short_side: int) -> Tensor:
    """uint8 (3, T, H, W), bilinear without antialias, the other side floored. (PySlowFast.)"""
    return resize(clip, *short_side_size(clip.shape[-2], clip.shape[-1], short_side))


def resize_frame(frame: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    """One frame (H, W, 3) as `resize_short_side` resizes a clip, pixel by pixel."""
    return change_frame(frame, partial(resize_short_side, short_side=short_side))


def change_frame(frame: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """One frame (H, W, 3) as `change` changes the clips that it is in."""
    # torch warns of arrays that cannot be written, as a caller's may be.
    clip = torch.from_numpy(np.require(frame, requirements=["C", "W"]))[None].movedim(-1, 0)
    # As a view, a crop would keep the whole frame in memory.
    return np.ascontiguousarray(change(clip).movedim(0, -1)[0].numpy())


def resize(clip: Tensor, height: int, width: int) -> Tensor:
    if clip.shape[-2:] == (height, width):
        return clip
    resized = F.interpolate(
        clip.transpose(0, 1), (height, width), mode="bilinear", align_corners=False
    )
    return resized.transpose(0, 1)


def crop(clip: Tensor, size: int, top: int, left: int) -> Tensor:
    return clip[..., top : top + size, left : left + size]


def center_crop(clip: Tensor, short_side: int, size: int) -> Tensor:
    """(3, T, H, W) -> (3, T, size, size) from the middle, after the short side became `short_side`
    (at least size)."""
    clip = resize_short_side(clip, max(short_side, size))
    return crop(
        clip, size, crop_offset(clip.shape[-2], size, 1), crop_offset(clip.shape[-1], size, 1)
    )


def random_crop(
    height: int,
    width: int,
    scales: tuple[int, int],
    size: int,
    draw: Draw,
    *,
    inverse_uniform: bool,
) -> Change:
    """(3, T, height, width) -> (3, T, size, size) from anywhere, after the short side became one of
    `scales` (at least size).

    inverse_uniform: 1 / short side is uniform instead of the short side.
    """
    low, high = scales
    short_side = (
        1 / _between(1 / high, 1 / low, draw()) if inverse_uniform else _between(low, high, draw())
    )
    resized = short_side_size(height, width, max(round(short_side), size))
    top, left = (int(draw() * (side - size + 1)) for side in resized)
    return lambda clip: crop(resize(clip, *resized), size, top, left)


def random_resized_crop(
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    size: int,
    draw: random.Random,
) -> Change:
    """(3, T, height, width) -> (3, T, size, size), a `random_box` resized."""
    left, top, right, bottom = random_box(width, height, area, aspect, draw)
    return lambda clip: resize(clip[..., top:bottom, left:right], size, size)


def random_box(
    width: int,
    height: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    draw: random.Random,
) -> Box:
    """A box in the picture; after ten draws without a fit, the largest centered one allowed."""
    for _ in range(10):
        target = width * height * draw.uniform(*area)
        ratio = math.exp(draw.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = draw.randint(0, width - w), draw.randint(0, height - h)
            return left, top, left + w, top + h
    w = min(width, max(round(height * aspect[1]), 1))
    h = min(height, max(round(width / aspect[0]), 1))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def color_jitter(clip: Tensor, strength: float, draw: Draw) -> Tensor:
    """Brightness, contrast and saturation of a uint8 clip (3, T, H, W), each times 1 +- strength,
    equal in all frames.

    The three are one affine map of RGB, rounded and clamped once at the end.
    """
    brightness, contrast, saturation = (
        _between(1 - strength, 1 + strength, draw()) for _ in range(3)
    )
    pixels = clip.movedim(0, -1).reshape(-1, 3).float()
    gray = brightness * (pixels.mean(0) @ _LUMA)
    matrix = (
        brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * _LUMA.view(3, 1))
    )
    jittered = (
        torch.addmm(((1 - contrast) * gray + 0.5).expand(3), pixels, matrix).clamp_(0, 255).byte()
    )
    return jittered.view(*clip.shape[1:], 3).movedim(-1, 0)


def _between(low: float, high: float, place: float) -> float:
    return low + (high - low) * place
