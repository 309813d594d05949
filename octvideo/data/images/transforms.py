"""From an RGB picture to a uint8 crop: augmentation for training, center crops for evaluation."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from octvideo.data.transforms import color_jitter as jitter_colors
from octvideo.data.transforms import random_box
from octvideo.errors import ConfigError

Transform = Callable[[Image.Image, random.Random], Tensor]  # -> uint8 (3, size, size)

# Principal components of ImageNet's pixels: standard deviations on 0..255, directions in columns.
# (Krizhevsky 2012.)
PCA_STD = torch.tensor([55.46, 4.794, 1.148])
PCA_DIRECTIONS = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


@dataclass(frozen=True, slots=True)
class RandomResizedCrop:
    """A box of random area and shape, resized to `size` x `size`; then flip, colors, noise.
    (Szegedy et al. 2015.)

    area: smallest and largest share of the picture; aspect: width / height of the box, uniform in
    its logarithm.
    color_jitter: brightness, contrast and saturation each change by up to this share.
    pca_noise: standard deviation of the shift along the principal components of color.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    color_jitter: float = 0.4
    pca_noise: float = 0.1

    def __call__(self, image: Image.Image, draw: random.Random) -> Tensor:
        box = random_box(image.width, image.height, self.area, self.aspect, draw)
        crop = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        return vary(to_tensor(np.asarray(crop)), draw, self.flip, self.color_jitter, self.pca_noise)


@dataclass(frozen=True, slots=True)
class PaddedCrop:
    """A `size` x `size` crop anywhere in the picture with a black border of `padding`: CIFAR's
    augmentation."""

    size: int = 32
    padding: int = 4
    flip: bool = True
    color_jitter: float = 0.0
    pca_noise: float = 0.0

    def __call__(self, image: Image.Image, draw: random.Random) -> Tensor:
        pixels, border = np.asarray(resize_short_side(image, self.size)), self.padding
        height, width = pixels.shape[:2]
        # np.pad takes as long as all other steps together.
        padded = np.zeros((height + 2 * border, width + 2 * border, 3), np.uint8)
        padded[border : border + height, border : border + width] = pixels
        top, left = (draw.randint(0, side - self.size) for side in padded.shape[:2])
        crop = padded[top : top + self.size, left : left + self.size]
        return vary(to_tensor(crop), draw, self.flip, self.color_jitter, self.pca_noise)


@dataclass(frozen=True, slots=True)
class CenterCrop:
    """The middle `size` x `size` after a bicubic resize of the short side to `short_side`; nothing
    is random."""

    size: int = 224
    short_side: int = 256

    def __post_init__(self) -> None:
        if self.short_side < self.size:
            raise ConfigError(
                f"a center crop of {self.size} does not fit into a short side of {self.short_side}"
            )

    def __call__(self, image: Image.Image, draw: random.Random | None = None) -> Tensor:
        resized = resize_short_side(image, self.short_side)
        left, top = ((side - self.size) // 2 for side in resized.size)
        return to_tensor(np.asarray(resized.crop((left, top, left + self.size, top + self.size))))


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    return (
        image
        if (width, height) == image.size
        else image.resize((width, height), Image.Resampling.BICUBIC)
    )


def vary(
    crop: Tensor, draw: random.Random, flip: bool, color_jitter: float, pca_noise: float
) -> Tensor:
    """Mirror every second crop, change its colors, shift it along the principal components."""
    if flip and draw.random() < 0.5:
        crop = crop.flip(-1)
    if color_jitter:
        crop = jitter_colors(crop[:, None], color_jitter, draw.random)[:, 0]
    if pca_noise:
        shift = PCA_DIRECTIONS @ (
            PCA_STD * torch.tensor([draw.gauss(0, pca_noise) for _ in range(3)])
        )
        crop = (crop + shift[:, None, None]).round_().clamp_(0, 255).byte()
    return crop


def to_tensor(crop: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, 3) -> (3, H, W) with its own memory."""
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
