"""The description of a video file, before its frames are read."""

from collections.abc import Mapping
from dataclasses import dataclass

from octvideo.data.sampling import short_side_size
from octvideo.data.video.orientation import Orientation

DAMAGED = "damaged"
"""Reason of a file in which a whole decode met damage: every read decodes it from its beginning."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The description of a file's first video stream.

    num_frames: frames that decode. width, height: as displayed, after the stored picture was
    mirrored left to right (`flip`) and turned by `rotation` degrees counterclockwise; of the first
    frame, to whose size all are scaled.
    fps: frames over the time that they are shown. backend: the engine that `auto` uses in loader
    workers; reason: why not decord. problems: damage and changes of size, for people to read.
    num_bytes: size of the file at its examination, by which a stale entry is recognized.
    pixel_aspect: width of a displayed pixel over its height; frames keep their pixels, whatever it
    is.
    """

    num_frames: int
    fps: float
    width: int
    height: int
    rotation: int
    codec: str
    duration_seconds: float
    backend: str
    reason: str = ""
    problems: tuple[str, ...] = ()
    num_bytes: int = 0
    flip: bool = False
    pixel_aspect: float = 1.0

    @classmethod
    def remembered(cls, numbers: Mapping[str, float], reason: str) -> "VideoInfo":
        """From the numbers that an index keeps, by field. reason: why not decord, "" if it may."""
        return cls(
            num_frames=int(numbers["num_frames"]),
            width=int(numbers["width"]),
            height=int(numbers["height"]),
            rotation=int(numbers["rotation"]),
            num_bytes=int(numbers["num_bytes"]),
            fps=numbers["fps"],
            codec="",
            duration_seconds=numbers["duration_seconds"],
            backend="pyav" if reason else "decord",
            reason=reason,
            flip=bool(numbers["flip"]),
            pixel_aspect=numbers["pixel_aspect"],
        )

    @property
    def orientation(self) -> Orientation:
        return Orientation(self.rotation, self.flip)

    def stored_size(self, short_side: int | None = None) -> tuple[int, int]:
        """(height, width) to scale the stored picture to, before it is turned for display."""
        height, width = self.height, self.width
        if short_side:
            height, width = short_side_size(height, width, short_side)
        return (width, height) if self.orientation.is_on_its_side else (height, width)
