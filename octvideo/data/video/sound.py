"""The sound of a file beside the pictures that are written of it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from octvideo.data.reading import cause_of
from octvideo.data.video.container import ffmpeg_errors, video_stream
from octvideo.data.video.examine import decode_all
from octvideo.errors import logger

GAP_SECONDS = 0.1
"""Less is jitter of the stamps of sound."""
_USUAL_RATE = 48_000  # samples a second, of a stream that does not say its own


class Sound:
    """The first audio stream of `source`, encoded as AAC beside the pictures; nothing where there
    is none. What of it cannot be read is silent, and a line says so: the pictures are worth more.
    """

    def __init__(self, container: Any, source: Any, path: str) -> None:
        """source: the open file at `path`, or None."""
        import av

        self._container, self._frames, self._end = container, iter(()), -math.inf
        self._waiting: Any = None  # the frame behind a gap
        self._heard: int | None = None  # samples since the first picture
        heard = source.streams.audio[0] if source is not None and source.streams.audio else None
        if heard is None:
            return
        if heard.codec_context is None:
            logger.warning("%s: its sound is left out: FFmpeg does not know its codec", path)
            return
        said = heard.rate or _USUAL_RATE
        rate = min(av.Codec("aac", "w").audio_rates or (said,), key=lambda rate: abs(rate - said))
        self._stream = container.add_stream("aac", rate=rate, layout="stereo")
        self._frames = _frames_of(source, heard, path, rate)
        self._first_picture = _first_picture(source, path)

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


def _first_picture(source: Any, path: str) -> float:
    """When the first frame is shown, by the clock of the file. That of the stream is also of
    pictures that do not decode, at the beginning of a recording that was cut."""
    stamps, stream = decode_all(path, {}, 1).stamps, video_stream(source)
    if stamps and not math.isnan(stamps[0]):
        return stamps[0]
    return float((stream.start_time or 0) * stream.time_base)


def _frames_of(source: Any, stream: Any, path: str, rate: int) -> Iterator[Any]:
    """The frames that decode, in the form of the encoder, each with the time at which it is heard.
    The form may change with any of them."""
    import av

    damage, form = _Damage(path), None
    resampler: Any = None
    with damage.passed_over():
        for packet in source.demux(stream):
            frames: list[Any] = []
            with damage.passed_over():
                frames = packet.decode()
            for frame in frames:
                time, frame.pts = frame.time, None
                if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                    resampler = av.AudioResampler("fltp", "stereo", rate)
                ready: list[Any] = []
                with damage.passed_over():
                    ready = resampler.resample(frame)
                for part in ready:
                    part.pts, part.time_base = _ticks(time, rate), Fraction(1, rate)
                    yield part
                    time = None


def _ticks(time: float | None, rate: int) -> int | None:
    return None if time is None else round(time * rate)


class _Damage:
    """What is wrong with the sound of a file, said once."""

    def __init__(self, path: str) -> None:
        self._path, self._is_said = path, False

    @contextmanager
    def passed_over(self) -> Iterator[None]:
        """A context that leaves behind what cannot be read."""
        try:
            yield
        except ffmpeg_errors() as error:
            if not self._is_said:
                cause = cause_of(error)
                logger.warning("%s: what is damaged of its sound is silent: %s", self._path, cause)
            self._is_said = True


def _silence_like(frame: Any, samples: int) -> Any:
    """Less than two seconds, so that what is left is still a gap, in the form of `frame`."""
    import av

    samples = samples if samples < 2 * frame.sample_rate else frame.sample_rate
    silence = av.AudioFrame(format=frame.format.name, layout=frame.layout.name, samples=samples)
    silence.sample_rate = frame.sample_rate
    for plane in silence.planes:
        plane.update(bytes(plane.buffer_size))
    return silence
