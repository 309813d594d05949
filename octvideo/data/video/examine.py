"""Examining a file before frames are read: a check of its packets, or a whole decode."""

from array import array
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from octvideo.data.reading import DecodeError, cause_of, still_reading
from octvideo.data.video.bits import Parameters
from octvideo.data.video.bitstream import Inspector, inspector
from octvideo.data.video.container import opened, status_of, video_stream
from octvideo.data.video.frame_table import FrameTable, KnownFile
from octvideo.data.video.info import DAMAGED, VideoInfo
from octvideo.data.video.mp4_header import is_fragmented, may_be_turned, read_moov
from octvideo.data.video.orientation import Orientation, orientation_of
from octvideo.data.video.packets import (
    StreamMap,
    index_differs,
    look_through,
    map_of_known,
    map_stream,
)
from octvideo.data.video.times import rate_and_duration, sane_rate, true_times

STRICT = {"err_detect": "explode"}
"""FFmpeg then raises an error for damage that it would conceal otherwise. Almost: the rest has
frame.is_corrupt."""

_INDEXED = ("mov", "matroska", "avi")
"""Containers that decord may read: those for which `index_differs` tells whether a jump by their
index is right."""

_NO_PROBLEMS: tuple[str, ...] = ()

Size = tuple[int, int]  # (width, height)


def know(path: str, known: VideoInfo | None) -> VideoInfo:
    """The remembered metadata if the file's size is unchanged, else new. Raises DecodeError."""
    status = status_of(path)
    if known is not None and known.num_bytes == status.st_size:
        return known
    return examine(path, status.st_size, status.st_mtime_ns)


@dataclass(slots=True)
class Decoded:
    """The outcome of a sequential decode. stamps: seconds of each frame, nan if it has none; end:
    the error that ended it early."""

    stamps: "array[float]" = field(default_factory=lambda: array("d"))
    sizes: list[Size] = field(default_factory=list)
    orientation: Orientation = field(default_factory=Orientation)
    last_seconds: float = 0.0
    end: str = ""

    @property
    def num_frames(self) -> int:
        return len(self.stamps)

    def add(self, frame: Any) -> None:
        if not self.sizes:
            self.orientation = orientation_of(frame)
        if (frame.width, frame.height) not in self.sizes:
            self.sizes.append((frame.width, frame.height))
        self.stamps.append(np.nan if frame.time is None else frame.time)
        self.last_seconds = float(frame.duration * frame.time_base) if frame.duration else 0.0


@lru_cache(maxsize=4096)
def examine(path: str, num_bytes: int, _modified: int) -> VideoInfo:
    """The cheap check. Only where the packets do not tell how many frames there are is the file
    decoded to count."""
    with opened(path) as container:
        stream = video_stream(container)
        moov, inspect = read_moov(path), _inspector_of(container)
        layout, first = _map_of(container, inspect, first_frame=may_be_turned(moov))
        parameters = inspect.parameters if inspect else Parameters()
        codec, problems = stream.codec_context, _NO_PROBLEMS
        shown = Decoded() if first else Decoded(sizes=[(codec.width, codec.height)])
        if first:
            shown.add(first)  # with its orientation, too
        must_count = bool(layout.unclear) or len(parameters.sizes) > 1
        if must_count or (parameters.is_turned and not first):
            shown, problems = count(path)
        reason = (
            layout.unclear
            or _doubt_of_codec(codec, parameters, shown)
            or ("fragmented" if is_fragmented(moov) else "")
            or _doubt_of_container(path, container, layout)
        )
        announced = stream.average_rate or stream.guessed_rate
        if must_count:
            times, last_seconds = true_times(shown.stamps, sane_rate(announced)), shown.last_seconds
        else:
            times = layout.seconds(stream.time_base)
            last_seconds = float(layout.last_duration * stream.time_base)
        fps, seconds = rate_and_duration(times, announced, last_seconds)
        info = _described(stream, shown, fps)
    return replace(
        info,
        num_frames=len(times),
        duration_seconds=seconds,
        backend="pyav" if reason else "decord",
        reason=reason,
        problems=problems,
        num_bytes=num_bytes,
    )


def _described(stream: Any, shown: Decoded, fps: float) -> VideoInfo:
    """The description of the pictures, without their number."""
    (width, height), orientation = shown.sizes[0], shown.orientation
    aspect = float(stream.sample_aspect_ratio or 1)
    if orientation.is_on_its_side:
        width, height, aspect = height, width, 1 / aspect
    return VideoInfo(
        num_frames=0,
        fps=fps,
        width=width,
        height=height,
        rotation=orientation.rotation,
        codec=stream.codec_context.name,
        duration_seconds=0.0,
        backend="pyav",
        flip=orientation.flip,
        pixel_aspect=aspect,
    )


def _inspector_of(container: Any) -> Inspector | None:
    codec = video_stream(container).codec_context
    return inspector(codec.name, codec.extradata or b"", container.format.name)


def _map_of(
    container: Any, inspect: Inspector | None, *, first_frame: bool = False
) -> tuple[StreamMap, Any]:
    if inspect is None:
        return StreamMap(unclear="codec whose packets are not understood"), None
    table, first = look_through(container, inspect, first_frame=first_frame)
    return map_stream(table), first


def _doubt_of_codec(codec: Any, parameters: Parameters, shown: Decoded) -> str:
    """Why decord's pictures may differ, "" where they do not."""
    width, height = shown.sizes[0]
    if codec.name not in ("h264", "mpeg4"):
        return f"codec {codec.name}"
    if len(parameters.sizes) > 1 or len(shown.sizes) > 1:
        return "the picture size changes"
    # decord converts the colors of interlaced pictures in another way.
    if parameters.is_interlaced or codec.field_order > 1:
        return "interlaced"
    if parameters.is_cropped:
        return "cropped at the left or the top"
    if shown.orientation != Orientation():
        flipped = " and flipped" * shown.orientation.flip
        return f"rotated by {shown.orientation.rotation} degrees{flipped}"
    if codec.pix_fmt not in ("yuv420p", "yuvj420p"):
        return f"pixel format {codec.pix_fmt}"
    # decord gives the last line of an odd height other colors, and pictures of up to 16 x 16
    # another shape.
    is_usual = min(width, height) > 16 and width % 2 == height % 2 == 0
    return "" if is_usual else f"{width} x {height} pixels"


def _doubt_of_container(path: str, container: Any, layout: StreamMap) -> str:
    """Why decord may look for frames in the wrong places, "" where it will not."""
    kinds = [stream.type for stream in container.streams]
    name = container.format.name.partition(",")[0]
    if layout.open_gop:
        return "open GOP"
    if layout.num_hidden:
        return f"an edit list hides {layout.num_hidden} frames"
    # Also where the others are covers: decord chooses its stream by itself.
    if kinds.count("video") > 1:
        return f"{kinds.count('video')} video streams"
    # Subtitles in AVI are files of their own, which FFmpeg opens; decord's cannot be told which
    # kinds not to.
    if "subtitle" in kinds or name not in _INDEXED:
        return "subtitles" if "subtitle" in kinds else f"container {name}"
    return "an index of other keyframes" if index_differs(path, container, layout) else ""


def count(path: str) -> tuple[Decoded, tuple[str, ...]]:
    """A sequential decode, and the problems of the file. Raises DecodeError if no frame decodes."""
    decoded = decode_all(path, STRICT)
    problem = decoded.end
    if problem:
        decoded = decode_all(path, {})
        if not decoded.num_frames:
            raise DecodeError(path, decoded.end or "no frame in it decodes")
        broken = f"breaks off after {decoded.num_frames} frames: {decoded.end}"
        problem = broken if decoded.end else f"damage inside: {problem}"
    return decoded, tuple(filter(None, (problem, _change_of_size(decoded.sizes))))


def _change_of_size(sizes: list[Size]) -> str:
    if len(sizes) < 2:
        return ""
    named = ", ".join(f"{width} x {height}" for width, height in sizes[:4])
    return f"the picture size changes in mid-stream ({named}); all frames are scaled to the first"


def decode_all(path: str, options: dict[str, str], most: int | None = None) -> Decoded:
    """Frames up to the end, to what ended it, or to `most`."""
    decoded = Decoded()
    with opened(path) as container:
        video_stream(container).codec_context.options = options
        try:
            for frame in islice(container.decode(video_stream(container)), most):
                if options and frame.is_corrupt:
                    decoded.end = "a damaged frame"
                    return decoded
                decoded.add(frame)
                still_reading()
        except Exception as error:  # PyAV raises OSError, ValueError and its own, by codec
            decoded.end = cause_of(error)
            return decoded
    decoded.end = "" if decoded.num_frames else "no frame in it decodes"
    return decoded


def frame_table(path: str, info: VideoInfo) -> FrameTable:
    """The positions and times of the frames of an examined file: from its packets if they suffice,
    else from a sequential decode."""
    with opened(path) as container:
        layout, stream = layout_of(container, info), video_stream(container)
        place, time_base = stream.index, stream.time_base
    if not layout.unclear:
        seconds = layout.seconds(time_base)
    else:
        seconds = true_times(decode_all(path, {}, info.num_frames).stamps, info.fps)
    times = array("d")
    times.frombytes(seconds.data.cast("B"))
    return FrameTable(layout, times, place, time_base)


def frame_times(file: KnownFile) -> "array[float]":
    """Seconds of each frame from the first."""
    return (file.find_table() or frame_table(file.path, file.info)).times


def layout_of(container: Any, info: VideoInfo) -> StreamMap:
    """The map of a file that was examined before, from its packets; unclear where its frames are
    not those of its packets."""
    if info.backend == "decord":  # It was found clear: its packets need not be understood again.
        layout = map_of_known(look_through(container, None)[0])
    else:
        layout, _ = _map_of(container, _inspector_of(container))
    # A damaged file may decode to fewer frames than its packets promise, and what a decoder shows
    # behind the damage depends on where it began: then only counting is right.
    is_whole = len(layout.pts) == info.num_frames and info.reason != DAMAGED
    return layout if is_whole else replace(layout, unclear=layout.unclear or DAMAGED)
