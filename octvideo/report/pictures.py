"""Pictures of clips and counts: as data URIs for the page, or as sheets for files."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frames = NDArray[np.uint8]
GAP, CAPTION, BAR_WIDTH = 4, 18, 60


def film_frames(frames: Frames) -> list[str]:
    """uint8 (T, H, W, 3), as the model saw them -> JPEGs of at most 8, first and last kept."""
    shown = _shown(frames, 8, 128, Image.Resampling.BICUBIC)
    return [_uri(picture, "JPEG", quality=80) for picture in shown]


def _shown(
    frames: Frames, most: int, height: int, resampling: Image.Resampling
) -> list[Image.Image]:
    width = max(round(frames.shape[2] * height / frames.shape[1]), 1)
    chosen = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    return [Image.fromarray(frames[i]).resize((width, height), resampling) for i in chosen]


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


def film_strip(
    rows: Sequence[tuple[str, Frames]], *, most: int = 8, height: int = 112
) -> Image.Image:
    """(caption, uint8 (T, H, W, 3)) rows to one picture; of a clip at most `most` frames, first and
    last kept."""
    bilinear = Image.Resampling.BILINEAR
    drawn = [(caption, _shown(frames, most, height, bilinear)) for caption, frames in rows]
    width = GAP
    for _, shown in drawn:
        width = max(width, GAP + sum(frame.width + GAP for frame in shown))
    sheet = Image.new("RGB", (width, len(drawn) * (height + CAPTION + GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (caption, shown) in enumerate(drawn):
        left, top = GAP, GAP + row * (height + CAPTION + GAP)
        pen.text((left, top + 2), caption, fill="black")
        for frame in shown:
            sheet.paste(frame, (left, top + CAPTION))
            left += frame.width + GAP
    return sheet


def with_color_bar(sheet: Image.Image, colors: Any, caption: str) -> Image.Image:
    """The sheet with a bar at its right, 0 below, 1 above. colors: 0..1 -> RGBA in 0..1."""
    width = round(max(ImageDraw.Draw(sheet).textlength(caption) + 2 * GAP, BAR_WIDTH))
    wide = Image.new("RGB", (sheet.width + width, sheet.height), "white")
    wide.paste(sheet, (0, 0))
    length = sheet.height - 2 * CAPTION - 2 * GAP
    shades = colors(np.linspace(1, 0, length))[:, None, :3] * np.ones((1, BAR_WIDTH // 3, 1))
    left, top = sheet.width + GAP, CAPTION + GAP
    wide.paste(Image.fromarray(np.round(255 * shades).astype(np.uint8)), (left, top))
    pen = ImageDraw.Draw(wide)
    pen.text((left, GAP), caption, fill="black")
    for value in (1.0, 0.5, 0.0):
        y = top + (1 - value) * (length - 1)
        pen.text((left + BAR_WIDTH // 3 + GAP, y - 6), f"{value:g}", fill="black")
    return wide
