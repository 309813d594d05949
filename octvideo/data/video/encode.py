"""Writing H.264 mp4 files with PyAV, each atomically."""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.data.reading import DecodeError, cause_of
from octvideo.data.video.container import ffmpeg_errors, file_url, opened
from octvideo.errors import DataError
from octvideo.files import appears_whole

_TICK = Fraction(
    1, 90_000
)  # seconds; what MPEG counts in, a whole number of them at all usual rates

GAP_SECONDS = 0.1
"""Less is jitter of the stamps of sound."""
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
    sound_of: a video file whose first audio stream, if it has one, comes along as AAC, as long
    before or after the first frame as it was there; gaps in it are silent. Raises DataError without
    a frame.
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
        source = sounds.enter_context(opened(str(sound_of))) if sound_of else None
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
                sound = _Sound(container, source, str(sound_of))
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


def _decoded(source: Any, stream: Any, path: str) -> Iterator[Any]:
    try:
        yield from source.decode(stream)
    except ffmpeg_errors() as error:
        raise DecodeError(path, cause_of(error)) from error


class _Sound:
    """The first audio stream of `source`, encoded as AAC beside the pictures; nothing where there
    is none."""

    def __init__(self, container: Any, source: Any, path: str) -> None:
        self._container, self._frames, self._end = container, iter(()), -math.inf
        self._waiting: Any = None  # the frame behind a gap
        self._heard: int | None = None  # samples since the first picture
        if source is not None and source.streams.audio:
            heard, shown = source.streams.audio[0], source.streams.video[0]
            self._stream = container.add_stream("aac", rate=heard.rate)
            self._frames = _decoded(source, heard, path)
            self._first_picture = float((shown.start_time or 0) * shown.time_base)

    def mux_until(self, seconds: float) -> None:
        """Keeps up with the pictures, so that players need not look far ahead; infinity ends the
        stream, and leaves out what is heard behind a gap that lasts longer than the pictures."""
        while self._end < seconds:
            frame = self._waiting or next(self._frames, None)
            gap = 0 if frame is None else self._gap_before(frame)
            if frame is None or (gap > 0 and seconds == math.inf):
                if self._heard is not None:
                    self._container.mux(self._stream.encode(None))
                self._end = math.inf
            elif self._heard is not None:
                self._waiting = frame if gap > 0 else None
                self._mux(_silence_like(frame, gap) if gap > 0 else frame)

    def _gap_before(self, frame: Any) -> int:
        """Samples of silence; jitter of stamps is none. `_heard` is None before the pictures."""
        if frame.time is None and self._heard is not None:
            return 0
        begin = round(((frame.time or 0.0) - self._first_picture) * frame.sample_rate)
        if self._heard is None and begin + frame.samples > 0:
            self._heard = max(begin, 0)
        gap = begin - (self._heard or 0)
        return gap if self._heard is not None and gap > GAP_SECONDS * frame.sample_rate else 0

    def _mux(self, frame: Any) -> None:
        # Frames follow each other without gaps: AVI files number their audio frames in ways that
        # the encoder refuses.
        assert self._heard is not None
        frame.pts, frame.time_base = self._heard, Fraction(1, frame.sample_rate)
        self._heard += frame.samples
        self._end = self._heard / frame.sample_rate
        self._container.mux(self._stream.encode(frame))


def _silence_like(frame: Any, samples: int) -> Any:
    """Less than two seconds, so that what is left is still a gap, in the form of `frame`."""
    import av

    samples = samples if samples < 2 * frame.sample_rate else frame.sample_rate
    silence = av.AudioFrame(format=frame.format.name, layout=frame.layout.name, samples=samples)
    silence.sample_rate = frame.sample_rate
    middle = b"\x80" if frame.format.name.startswith("u8") else b"\0"
    for plane in silence.planes:
        plane.update(middle * plane.buffer_size)
    return silence
