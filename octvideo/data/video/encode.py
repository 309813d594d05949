"""Writing H.264 mp4 files with PyAV, each atomically."""

import math
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.data.remote import local_path
from octvideo.data.video.container import file_url, opened
from octvideo.data.video.sound import Sound
from octvideo.errors import DataError
from octvideo.files import appears_whole

_TICK = Fraction(
    1, 90_000
)  # seconds; what MPEG counts in, a whole number of them at all usual rates
_FRAME_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: how long a frame is shown reaches the file


def write_video(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float | Fraction = 30,
    *,
    size: tuple[int, int] | None = None,
    gop: int = 12,
    crf: int = 20,
    preset: str = "veryfast",
    times: Sequence[float] | None = None,
    sound_of: str | Path | None = None,
) -> int:
    """RGB frames (H, W, 3), or one array (T, H, W, 3), to H.264 4:2:0; the number of frames
    written.

    Equal frames give an equal file (one encoder thread). A keyframe every `gop` frames makes seeks
    cheap. size: (H, W) to scale to, else that of the first frame; an odd one grows by a pixel, as
    4:2:0 counts in pairs. times: seconds at which the frames are shown, where they are not 1 / fps
    apart; one time more than frames is when the last one ends.
    sound_of: a video file, or its address, whose first audio stream, if it has one, comes along as
    AAC, as long before or after the first frame as it was there; gaps in it, and what of it does
    not decode, are silent. Raises DataError without a frame.
    """
    import av
    from av.video.reformatter import VideoReformatter

    count, stream, scaler = 0, None, VideoReformatter()
    ticks = _ticks(times or ())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        partial = stack.enter_context(appears_whole(Path(path)))
        container = stack.enter_context(av.open(file_url(partial), "w", format="mp4"))
        # Closed without the errors of what is written, which are not those of this file.
        sounds = ExitStack()
        stack.callback(sounds.close)
        heard = local_path(sound_of) if sound_of else ""
        source = sounds.enter_context(opened(heard)) if heard else None
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if stream is None:
                height, width = (side + side % 2 for side in size or frame.shape[:2])
                stream = _h264_stream(
                    container, fps, width, height, gop=gop, crf=crf, preset=preset
                )
                if times is not None:
                    # mp4 keeps the frames' own times only if pictures are stored as displayed.
                    stream.codec_context.time_base = _TICK
                    stream.codec_context.flags |= _FRAME_DURATION
                    stream.options = stream.options | {"bf": "0"}
                sound = Sound(container, source, heard)
            picture = scaler.reformat(
                picture, stream.width, stream.height, format="yuv420p", interpolation="AREA"
            )
            if times is not None:
                picture.pts, picture.time_base = ticks[count], _TICK
                if count + 1 < len(ticks):
                    picture.duration = ticks[count + 1] - ticks[count]
            container.mux(stream.encode(picture))
            count += 1
            sound.mux_until(count / fps if times is None else times[min(count, len(times) - 1)])
        if stream is None:
            raise DataError(f"{path}: no frame to write; a video has at least one.")
        container.mux(stream.encode())
        sound.mux_until(math.inf)
    return count


def _ticks(times: Sequence[float]) -> "array[int]":
    """Times in _TICK; frames closer than one follow each other by one."""
    ticks = array("q")
    for second in times:
        tick = round(second / _TICK)
        ticks.append(max(tick, ticks[-1] + 1) if ticks else tick)
    return ticks


def _h264_stream(
    container: Any,
    fps: float | Fraction,
    width: int,
    height: int,
    *,
    gop: int,
    crf: int,
    preset: str,
) -> Any:
    """A video stream of an open av container: closed GOPs, one thread, so that the same input gives
    the same bytes."""
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(100_000))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1
    # x264's macroblock tree gave different bytes from run to run (3 of 16 clips); without it files
    # are .2 larger.
    params = f"keyint={gop}:min-keyint=1:scenecut=0:open-gop=0:mbtree=0"
    stream.options = {"crf": str(crf), "preset": preset, "x264-params": params}
    return stream
