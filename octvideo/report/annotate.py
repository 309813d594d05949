"""A video with the names of what happens in it: the top classes and their bars, drawn over time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frame = NDArray[np.uint8]
BAR = (96, 160, 255, 255)
PANEL = (12, 14, 18, 170)


def draw_bars(frame: Frame, ranking: Sequence[tuple[str, float]]) -> Frame:
    """uint8 (H, W, 3) with a panel at the lower left: per (name, probability in 0..1) a line of text and a bar."""
    height, width = frame.shape[:2]
    size = max(min(height // 16, width // 22), 9)
    font = ImageFont.load_default(size)
    row, margin = round(size * 1.7), size // 2
    panel_width = min(width, size * 17)
    top = height - row * len(ranking) - margin
    layer = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(layer)
    pen.rectangle((0, top - margin, panel_width, height), fill=PANEL)
    for i, (name, probability) in enumerate(ranking):
        y = top + i * row
        length = round((panel_width - 2 * margin) * min(max(probability, 0.0), 1.0))
        pen.text((margin, y), f"{probability:4.0%}  {name}", font=font, fill="white")
        pen.rectangle(
            (margin, y + size + 2, margin + length, y + size + 2 + max(size // 6, 2)), fill=BAR
        )
    return np.asarray(
        Image.alpha_composite(Image.fromarray(frame).convert("RGBA"), layer).convert("RGB")
    )


def annotated(
    frames: Iterable[Frame],
    fps: float,
    rankings: Sequence[Sequence[tuple[str, float]]],
    middles: Sequence[float],
    times: Sequence[float] = (),
) -> Iterator[Frame]:
    """Each frame with the ranking whose middle (seconds, ascending) is nearest to it; one frame in memory at a time.

    times: when the frames are shown, where they are not 1 / fps apart.
    """
    between = [(a + b) / 2 for a, b in pairwise(middles)]
    for number, frame in enumerate(frames):
        seconds = times[number] if len(times) else number / fps
        yield draw_bars(frame, rankings[int(np.searchsorted(between, seconds))])
