"""Clips as pictures: one row of frames per clip."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frames = NDArray[np.uint8]
GAP, CAPTION, BAR_WIDTH = 4, 18, 60


def film_strip(
    rows: Sequence[tuple[str, Frames]], *, most: int = 8, height: int = 112
) -> Image.Image:
    """(caption, uint8 (T, H, W, 3)) rows to one picture; of a clip at most `most` frames, first and
    last kept."""
    drawn = []
    for caption, frames in rows:
        size = (max(round(frames.shape[2] * height / frames.shape[1]), 1), height)
        shown = [
            Image.fromarray(frames[i]).resize(size, Image.Resampling.BILINEAR)
            for i in _spread(len(frames), most)
        ]
        drawn.append((caption, shown))
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
    """The sheet with a bar at its right, from 0 (below) to 1 (above). colors: values in 0..1 ->
    RGBA in 0..1."""
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


def _spread(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()
