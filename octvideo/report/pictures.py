"""Pictures as data URIs, so that the page is self-contained."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def film_frames(frames: NDArray[np.uint8], *, most: int = 8, height: int = 128) -> list[str]:
    """uint8 (T, H, W, 3), as the model saw them -> JPEGs of at most `most` of them, first and last
    kept."""
    chosen = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    width = max(round(frames.shape[2] * height / frames.shape[1]), 1)
    return [
        _uri(Image.fromarray(frames[i]).resize((width, height)), "JPEG", quality=80) for i in chosen
    ]


def heat_map(cells: Sequence[Sequence[int]], size: int) -> str:
    """(row, column, count) cells -> PNG of size x size pixels in one color whose opacity is the
    share of the row.

    A root keeps a single video of fifty visible. Empty cells are transparent: right for light and
    dark.
    """
    counts = np.zeros((size, size))
    for row, column, count in cells:
        counts[row, column] = count
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((size, size, 4), np.uint8)
    right = np.eye(size, dtype=bool)
    pixels[..., :3] = np.where(right[..., None], (58, 110, 220), (214, 84, 50))
    pixels[..., 3] = np.round(255 * share**0.4)
    return _uri(Image.fromarray(pixels), "PNG", optimize=True)


def _uri(image: Image.Image, format: str, **options: object) -> str:
    data = io.BytesIO()
    image.save(data, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
