"""Made pictures whose class is a coarse shape and a fine texture together: 4 x 4 classes, 32 x 32
pixels.

The shape is a large blob, brighter or darker than what surrounds it: low frequencies. The texture
lies over the whole picture with periods of 2.4 to 3.6 pixels, of which the 2 x 2 average of a low
group loses most: high frequencies. Either alone leaves four classes open. Place, size, angle,
colors and phase are random, drawn alike for all classes.
"""

import math

import torch
from ablation.training import Examples
from torch import Tensor

SHAPES, TEXTURES = ("disk", "ring", "bar", "cross"), ("across", "down", "diagonal", "checks")
SIZE, NUM_CLASSES = 32, len(SHAPES) * len(TEXTURES)


def make_pictures(count: int, seed: int) -> Examples:
    """As many of each class; class = 4 * shape + texture."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randperm(count, generator=generator) % NUM_CLASSES
    places, draws = grid(), torch.rand(count, 12, generator=generator)
    inside = torch.stack(
        [shape(int(t) // 4, places, d) for t, d in zip(targets, draws, strict=True)]
    )
    waves = torch.stack(
        [texture(int(t) % 4, places, d[6:]) for t, d in zip(targets, draws, strict=True)]
    )
    surface = torch.rand(count, 3, 1, 1, generator=generator) * 0.5 + 0.25
    sign = torch.where(draws[:, 5] < 0.5, -1.0, 1.0).view(-1, 1, 1, 1)
    step = sign * (0.3 + 0.2 * torch.rand(count, 3, 1, 1, generator=generator))
    noise = 0.18 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    pictures = surface + step * inside[:, None] + 0.06 * waves[:, None] + noise
    return Examples((255 * pictures.clamp(0, 1)).byte(), targets)


def grid() -> Tensor:
    """(2, S, S): x and y from the middle, in pixels."""
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y])


def shape(kind: int, places: Tensor, draw: Tensor) -> Tensor:
    """(S, S): 1 inside, 0 outside, a soft edge; 7 to 13 pixels from the middle of the shape to its
    rim."""
    angle, radius = 2 * math.pi * draw[0], 9 + 4 * draw[1]
    x, y = places - 6 * (draw[2:4] - 0.5).view(2, 1, 1)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    circle = u.hypot(v) - 0.75 * radius
    bars = [torch.maximum(a.abs() - radius, b.abs() - 0.35 * radius) for a, b in ((u, v), (v, u))]
    outside = (circle, circle.abs() - 0.2 * radius, bars[0], torch.minimum(*bars))[kind]
    return (0.5 - outside).clamp(0, 1)


def texture(kind: int, places: Tensor, draw: Tensor) -> Tensor:
    """(S, S): waves from -1 to 1 of a period of 2.4 to 3.6 pixels."""
    (x, y), period = places, 2.4 + 1.2 * draw[0]
    phases = 2 * math.pi * draw[1:3]
    first, second = (
        (2 * math.pi / period * axis + phase).sin()
        for axis, phase in zip((x, y), phases, strict=True)
    )
    if kind == 3:
        return first * second
    slanted = (2 * math.pi / period * (x + y) / math.sqrt(2) + phases[0]).sin()
    return (second, first, slanted)[kind]
