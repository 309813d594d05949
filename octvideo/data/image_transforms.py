"""From an RGB picture to a uint8 crop: what training on images varies, and the centre crops of their evaluation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from octvideo.errors import ConfigError

Pixels = NDArray[np.float32]  # (H, W, 3), 0..255
Transform = Callable[[Image.Image, np.random.Generator], Tensor]  # -> uint8 (3, size, size)
Box = tuple[int, int, int, int]  # left, top, right, bottom

GREY = np.array([0.299, 0.587, 0.114], np.float32)
# Principal components of ImageNet's pixels: standard deviations on 0..255, directions in columns. (Krizhevsky 2012.)
PCA_STD = np.array([55.46, 4.794, 1.148], np.float32)
PCA_DIRECTIONS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
)


@dataclass(frozen=True, slots=True)
class RandomResizedCrop:
    """A box of random area and shape, resized to `size` x `size`; then flip, colours, noise. (Szegedy et al. 2015.)

    area: smallest and largest share of the picture; aspect: width / height of the box, uniform in its logarithm.
    colour_jitter: brightness, contrast and saturation each change by up to this share, in random order.
    pca_noise: standard deviation of the shift along the principal components of colour.
    """

    size: int = 224
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    colour_jitter: float = 0.4
    pca_noise: float = 0.1

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        box = random_box(image.width, image.height, self.area, self.aspect, rng)
        crop = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
        return to_tensor(vary(np.asarray(crop), rng, self.flip, self.colour_jitter, self.pca_noise))


@dataclass(frozen=True, slots=True)
class PaddedCrop:
    """A `size` x `size` crop anywhere in the picture with a black border of `padding`: CIFAR's augmentation."""

    size: int = 32
    padding: int = 4
    flip: bool = True
    colour_jitter: float = 0.0
    pca_noise: float = 0.0

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Tensor:
        border = ((self.padding, self.padding), (self.padding, self.padding), (0, 0))
        padded = np.pad(np.asarray(resize_short_side(image, self.size)), border)
        top, left = (int(rng.integers(side - self.size + 1)) for side in padded.shape[:2])
        crop = padded[top : top + self.size, left : left + self.size]
        return to_tensor(vary(crop, rng, self.flip, self.colour_jitter, self.pca_noise))


@dataclass(frozen=True, slots=True)
class CentreCrop:
    """The middle `size` x `size` after a bicubic resize of the short side to `short_side`; nothing is random."""

    size: int = 224
    short_side: int = 256

    def __post_init__(self) -> None:
        if self.short_side < self.size:
            raise ConfigError(f"a centre crop of {self.size} does not fit into a short side of {self.short_side}")

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None) -> Tensor:
        resized = resize_short_side(image, self.short_side)
        left, top = ((side - self.size) // 2 for side in resized.size)
        return to_tensor(np.asarray(resized.crop((left, top, left + self.size, top + self.size))))


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)


def random_box(
    width: int, height: int, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A box inside the picture; after ten that stick out, the largest in the middle whose shape is allowed."""
    for _ in range(10):
        target = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(round(height * aspect[1]), 1))
    h = min(height, max(round(width / aspect[0]), 1))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def vary(
    crop: NDArray[np.uint8], rng: np.random.Generator, flip: bool, colour_jitter: float, pca_noise: float
) -> NDArray[np.uint8]:
    """Mirror every second crop, change its colours, shift it along the principal components."""
    if flip and rng.random() < 0.5:
        crop = crop[:, ::-1]
    if not (colour_jitter or pca_noise):
        return crop
    pixels = crop.astype(np.float32)
    if colour_jitter:
        pixels = jitter_colours(pixels, colour_jitter, rng)
    if pca_noise:
        pixels = pixels + PCA_DIRECTIONS @ (PCA_STD * rng.normal(0, pca_noise, 3).astype(np.float32))
    return pixels.round().clip(0, 255).astype(np.uint8)


def jitter_colours(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Brightness, contrast and saturation in random order: a blend with black, the mean grey, each pixel's grey."""
    for kind in rng.permutation(3):
        share = np.float32(rng.uniform(max(1 - strength, 0), 1 + strength))
        grey = (pixels @ GREY)[..., None]
        anchor = (np.float32(0), grey.mean(), grey)[kind]
        pixels = (anchor + (pixels - anchor) * share).clip(0, 255)
    return pixels


def to_tensor(crop: NDArray[np.uint8]) -> Tensor:
    """uint8 (H, W, 3) -> (3, H, W) with its own memory."""
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
