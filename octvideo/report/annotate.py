"""A video with its predictions over time: below the picture, or in a small box in a corner."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from octvideo.errors import ConfigError, did_you_mean

Frame = NDArray[np.uint8]
BAR = (96, 160, 255, 255)
PANEL = (12, 14, 18, 255)
BOX = (12, 14, 18, 190)
SOFT = (170, 176, 186, 255)
POSITIONS = ("below", "top-left", "top-right", "bottom-left", "bottom-right")
SHARE = 0.25  # of the picture, that a box may take
SMALLEST = 9  # pixels of text that can be read


@dataclass(frozen=True, slots=True)
class Label:
    """Options of the class label. position: "below" makes the video taller and covers no part of
    it; otherwise a corner.

    threshold: less probable classes are left out. rows: the greatest number of classes. Raises
    ConfigError for an unknown position, a threshold outside [0, 1), and less than one row.
    """

    position: str = "below"
    threshold: float = 0.0
    rows: int = 5

    def __post_init__(self) -> None:
        if self.position not in POSITIONS:
            hint = did_you_mean(self.position, POSITIONS, f"there are {', '.join(POSITIONS)}")
            raise ConfigError(f"there is no position {self.position!r}; {hint}")
        if not 0 <= self.threshold < 1:
            raise ConfigError(f"the threshold is {self.threshold}; it lies in [0, 1)")
        if isinstance(self.rows, bool) or not isinstance(self.rows, int) or self.rows < 1:
            raise ConfigError(f"rows is {self.rows!r}; give how many classes to show, 1 or more")

    def draw(
        self, frame: Frame, ranking: Sequence[tuple[str, float]], seconds: float | None = None
    ) -> Frame:
        """uint8 (H, W, 3), taller where the label stands below. ranking: (name, probability in
        0..1), best first.

        seconds: of the frame, as a time stamp.
        """
        height, width = frame.shape[:2]
        size = max(min(height, width) // 30, SMALLEST)
        stamp = "" if seconds is None else _clock(seconds)
        shown = tuple((name, p) for name, p in ranking[: self.rows] if p >= self.threshold)
        if self.position == "below":
            high = _row(size) * self.rows + size
            high += high % 2  # H.264 stores two lines of color as one
            panel = _panel(width, high, size, shown, "", PANEL).copy()
            font = ImageFont.load_default(size)
            place = (width - size // 2, size // 2)
            ImageDraw.Draw(panel).text(place, stamp, font=font, fill=SOFT, anchor="ra")
            below = np.asarray(panel.convert("RGB"))
            return np.concatenate([frame, below])
        return self._in_a_corner(frame, size, shown, stamp)

    def _in_a_corner(
        self, frame: Frame, size: int, shown: tuple[tuple[str, float], ...], stamp: str
    ) -> Frame:
        height, width = frame.shape[:2]
        box_width = min(size * 13, round(width * SHARE**0.5))
        most = int(height * width * SHARE / box_width)
        rows = max(min(len(shown), (most - size) // _row(size) - bool(stamp)), 0)
        if not (rows or stamp):
            return frame
        box_height = min(_row(size) * (rows + bool(stamp)) + size, most)
        panel = _panel(box_width, box_height, size, shown[:rows], stamp, BOX)
        top = 0 if self.position.startswith("top") else height - box_height
        left = 0 if self.position.endswith("left") else width - box_width
        picture = Image.fromarray(frame).convert("RGBA")
        picture.alpha_composite(panel, (left, top))
        return np.asarray(picture.convert("RGB"))


def annotated(
    frames: Iterable[Frame],
    fps: float,
    rankings: Sequence[Sequence[tuple[str, float]]],
    middles: Sequence[float],
    times: Sequence[float] = (),
    *,
    label: Label = Label(),
) -> Iterator[Frame]:
    """Each frame with the ranking whose middle (seconds, ascending) is nearest to it; one frame in
    memory at a time.

    times: when the frames are shown, where they are not 1 / fps apart.
    """
    known = np.array(middles)
    between = (known[:-1] + known[1:]) / 2
    for number, frame in enumerate(frames):
        seconds = times[number] if len(times) else number / fps
        yield label.draw(frame, rankings[int(np.searchsorted(between, seconds))], seconds)


def _row(size: int) -> int:
    return round(size * 1.75)


@lru_cache(maxsize=4)  # Many frames have the same one.
def _panel(
    width: int,
    height: int,
    size: int,
    ranking: tuple[tuple[str, float], ...],
    stamp: str,
    background: tuple[int, ...],
) -> Image.Image:
    """A time stamp, and per class a line of text over its bar. Not to be drawn on: it is kept."""
    panel = Image.new("RGBA", (width, height), background)
    pen, font, margin = ImageDraw.Draw(panel), ImageFont.load_default(size), size // 2
    y = margin
    if stamp:
        pen.text((margin, y), stamp, font=font, fill=SOFT)
        y += _row(size)
    # A third of a picture that is too narrow for the time beside the classes.
    length = max(min(width - size * 5 * (not stamp), size * 26) - 2 * margin, width // 3)
    column = margin + font.getlength("100%")
    for name, probability in ranking:
        pen.text((column, y), f"{probability:.0%}", font=font, fill="white", anchor="ra")
        text = _fitted(name, font, margin + length - column - margin)
        pen.text((column + margin, y), text, font=font, fill="white")
        filled = round(length * min(max(probability, 0.0), 1.0))
        under = y + round(size * 1.35)
        pen.rectangle((margin, under, margin + filled, under + max(size // 8, 1)), fill=BAR)
        y += _row(size)
    return panel


def _fitted(text: str, font: Any, width: float) -> str:
    """The text, or its beginning and an ellipsis, no wider than `width`."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


def _clock(seconds: float) -> str:
    """75.25 -> 1:15.2"""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{int(rest * 10) / 10:04.1f}"
