"""Clips as pictures: one row of frames per clip."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frames = NDArray[np.uint8]
GAP, CAPTION = 4, 18


def film_strip(
    rows: Sequence[tuple[str, Frames]], *, most: int = 8, height: int = 112
) -> Image.Image:
    """(caption, uint8 (T, H, W, 3)) rows to one picture; of a clip at most `most` frames, first and last kept."""
    drawn = []
    for caption, frames in rows:
        shown = [_thumbnail(frames[i], height) for i in _spread(len(frames), most)]
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


def _spread(count: int, most: int) -> list[int]:
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()


def _thumbnail(frame: Frames, height: int) -> Image.Image:
    width = max(round(frame.shape[1] * height / frame.shape[0]), 1)
    return Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
