"""The frames of a clip: pure arithmetic on frame indices and times, without torch and without
files.

Every rule clamps to the video, so that a video shorter than the clip repeats its last frame. The
four rules, for 4 frames at stride 3 (x are skipped frames):

    pyslowfast   fxxxfxxxfxxxf   linspace over the 12 frames of the span, so steps of 11/3
    stride       fxxfxxfxxf      steps of exactly 3 (video-nonlocal-net)
    segment      one frame from each of 4 equal parts of the whole video (TSN, Something-Something)
    time         the frame on screen every 3 / target_fps seconds, for files whose frame rate varies
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import truediv

RULES = ("pyslowfast", "stride", "segment", "time")


@dataclass(frozen=True, slots=True)
class Timing:
    """Frames of a video and when they are shown: `times` in seconds from the first, or () for a
    constant fps."""

    num_frames: int
    fps: float
    times: Sequence[float] = ()

    def frame_at(self, seconds: float) -> int:
        """The frame on screen at `seconds` after the first one, clamped to the video."""
        # The slack keeps 0.1 s at 30 fps, which is 3.0000000000000004 frames or 2.9999999999999996,
        # at frame 3.
        if self.times:
            return min(max(bisect_right(self.times, seconds + 1e-6) - 1, 0), self.num_frames - 1)
        return min(max(math.floor(seconds * self.fps + 1e-6), 0), self.num_frames - 1)

    @property
    def seconds(self) -> float:
        """From the start of the first frame to the start of the last."""
        return self.times[-1] if self.times else (self.num_frames - 1) / self.fps


@dataclass(frozen=True, slots=True)
class ClipRule:
    """A rule that selects `num_frames` frames, `frame_stride` apart at `target_fps`, of a video."""

    num_frames: int
    frame_stride: int
    target_fps: float = 30.0
    rule: str = "pyslowfast"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(
                f"there is no sampling rule {self.rule!r}; there are {', '.join(RULES)}"
            )
        if self.num_frames < 1 or self.frame_stride < 1 or not self.target_fps > 0:
            raise ValueError("num_frames, frame_stride and target_fps must be positive")

    def clip(self, video: Timing, draw: Callable[[], float]) -> list[int]:
        """A clip at a place that `draw` decides: 0 is the first place possible, toward 1 the last.

        `draw` is called once, under the "segment" rule once per segment. Training passes
        `random.random`,
        `lambda: 0.5` is the clip in the middle.
        """
        if self.rule == "segment":
            return segment_indices(video.num_frames, [draw() for _ in range(self.num_frames)])
        if self.rule == "time":
            period = self.frame_stride / self.target_fps
            start = draw() * max(video.seconds - (self.num_frames - 1) * period, 0.0)
            return [video.frame_at(start + k * period) for k in range(self.num_frames)]
        if self.rule == "stride":
            last_start = max(video.num_frames - (self.num_frames - 1) * self.frame_stride - 1, 0)
            start = min(math.floor(draw() * (last_start + 1)), last_start)
            return strided_indices(start, self.frame_stride, self.num_frames, video.num_frames)
        span = clip_span(self.num_frames, self.frame_stride, video.fps, self.target_fps)
        return spread_indices(
            draw() * max(video.num_frames - span, 0.0), span, self.num_frames, video.num_frames
        )

    def center_clip(self, video: Timing) -> list[int]:
        """The clip in the middle of the video."""
        return self.clip(video, lambda: 0.5)

    def uniform_clips(self, video: Timing, num_clips: int) -> list[list[int]]:
        """The clips of a test: clip i at i / num_clips of the places possible, as PySlowFast has
        it.

        Segments have no first place that would favor the beginning of the video: (i + 0.5) /
        num_clips there.
        """
        shift = 0.5 if self.rule == "segment" else 0.0
        return [self.clip(video, partial(truediv, i + shift, num_clips)) for i in range(num_clips)]


def clip_span(num_frames: int, frame_stride: int, fps: float, target_fps: float) -> float:
    """Frames of the video that a clip covers; no integer when the rates differ. (PySlowFast.)"""
    return num_frames * frame_stride * fps / target_fps


def spread_indices(start: float, span: float, num_frames: int, num_video_frames: int) -> list[int]:
    """linspace(start, start + span - 1, num_frames) clamped to the video and truncated.
    (PySlowFast.)

    8 frames at stride 8 span 64 frames and therefore step by 9. A span below one frame, in a video
    slower than the clip, repeats that frame, where the linspace would run backwards.
    """
    steps, length = max(num_frames - 1, 1), max(span - 1, 0.0)
    places = (start + k * length / steps for k in range(num_frames))
    # The slack keeps 7/10 of 330, which is 230.99999999999997 in binary, at frame 231.
    return [min(max(int(place + 1e-6), 0), num_video_frames - 1) for place in places]


def strided_indices(
    start: int, frame_stride: int, num_frames: int, num_video_frames: int
) -> list[int]:
    """4 frames, stride 3: fxxfxxfxxf = 10 frames. (video-nonlocal-net.)"""
    return [min(start + k * frame_stride, num_video_frames - 1) for k in range(num_frames)]


def segment_indices(num_video_frames: int, places: Sequence[float]) -> list[int]:
    """One frame from each of len(places) equal parts of the video: place 0 is a part's first, 0.5
    its middle. (TSN.)

    9 frames, places (.5, .5, .5): xfxxfxxfx. A part too short for a frame of its own shares its
    neighbor's.
    """
    length = num_video_frames / len(places)
    return [
        min(math.floor((k + place) * length), num_video_frames - 1)
        for k, place in enumerate(places)
    ]


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after the shorter became `short_side`; the other is floored. (PySlowFast.)"""
    if height <= width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def crop_offset(size: int, crop: int, place: int) -> int:
    """The offset of a crop along a side. place 0: its start, 1: middle (rounded up), 2: end."""
    return (0, (size - crop + 1) // 2, size - crop)[place]
