"""Frames out of video files: the only place that reads with a decoder.

Frame k is the k-th frame of a sequential decode of the first video stream, RGB, in display orientation. decord is the
default engine. It is fast, and silently wrong on some files (open GOPs, edit lists, several streams, ...): each file's
packets are therefore looked at first (octvideo/data/stream.py), in a few milliseconds, and PyAV reads those files.

Damage inside a packet of the right length shows only when it is decoded: decoders conceal it, or drop the picture and
with it the numbers of those that follow. Only a whole decode notices: `probe`, and tools/check_videos.py for a list.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from octvideo.data.remote import local_path
from octvideo.data.sampling import Timing
from octvideo.data.stream import Packet, StreamMap, VideoInfo, inspector, map_stream, may_be_turned, sane_rate
from octvideo.data.watch import DecodeError, cause_of, reading
from octvideo.errors import DataError

BACKENDS = ("auto", "decord", "pyav")
Frames = NDArray[np.uint8]
Answer = TypeVar("Answer")


class Engine(Protocol):
    """An open file."""

    def read(self, indices: Sequence[int]) -> Frames: ...
    def times(self) -> list[float]:
        """When each frame is shown, in seconds from the first; [] in a file that does not say."""

    def close(self) -> None: ...


class Video:
    """An open video: what is known of it, and its frames. Made by `open_video`."""

    def __init__(self, path: str, info: VideoInfo, backend: str, short_side: int | None) -> None:
        self.path, self.info = path, info
        self._short_side = short_side
        self._may_fall_back = backend == "auto" and info.backend == "decord"
        self._engine: Engine
        try:
            engine = _Decord if (info.backend if backend == "auto" else backend) == "decord" else _PyAV
            self._engine = engine(path, info, short_side)
        except Exception as error:
            self._fall_back(error)

    def timing(self, *, exact_times: bool = False) -> Timing:
        """For the sampling rules; with the true time of every frame where asked for."""
        times = self._ask(lambda engine: engine.times()) if exact_times else []
        return Timing(self.info.num_frames, self.info.fps, times)

    def read(self, indices: Sequence[int]) -> Frames:
        """uint8 (T, H, W, 3), in the order asked for; frames may repeat."""
        wrong = [index for index in indices if not 0 <= index < self.info.num_frames]
        if wrong:
            raise DecodeError(self.path, f"frame {wrong[0]} was asked for; there are {self.info.num_frames}")
        if not len(indices):
            return self.read([0])[:0]
        return self._ask(lambda engine: engine.read(indices))

    def close(self) -> None:
        self._engine.close()

    def _ask(self, question: Callable[[Engine], Answer]) -> Answer:
        try:
            return question(self._engine)
        except Exception as error:
            self._engine.close()
            self._fall_back(error)
            return self._ask(question)

    def _fall_back(self, error: Exception) -> None:
        """decord gives up on some files whose packets look sound: then a sequential decode decides."""
        if not self._may_fall_back:
            raise error if isinstance(error, DecodeError) else DecodeError(self.path, cause_of(error)) from error
        self._may_fall_back = False
        self._engine = _PyAV(self.path, self.info, self._short_side)


@contextmanager
def open_video(
    path: str | Path, *, backend: str = "auto", short_side: int | None = None, known: VideoInfo | None = None
) -> Iterator[Video]:
    """Open a file for several reads. `known` is a remembered VideoInfo (octvideo/data/index.py): it saves the check.

    Raises DecodeError that names path and cause; with backend "decord", also for a file that decord reads wrongly.
    """
    if backend not in BACKENDS:
        raise ValueError(f"there is no decoder {backend!r}; there are {', '.join(BACKENDS)}")
    path = str(path)
    with reading(path):
        path = _fetched(path)
        info = _know(path, known)
        if backend == "decord" and info.backend != "decord":
            raise DecodeError(path, f"decord would give wrong frames ({info.reason}); use backend 'auto' or 'pyav'")
        video = Video(path, info, backend, short_side)
        try:
            yield video
        finally:
            video.close()


def read_frames(
    path: str | Path, indices: Sequence[int], *, backend: str = "auto", short_side: int | None = None
) -> Frames:
    """Frames at these numbers: uint8 (T, H, W, 3). `indices` may be in any order and repeat.

    short_side resizes while decoding, which is cheaper than resizing afterwards but depends on the engine's scaler
    (decord bicubic, PyAV bilinear): pixels then differ a little between engines and from a resize in torch.
    Raises DecodeError for what cannot be read, for frames outside the video, and for decord's wrong files.
    """
    with open_video(path, backend=backend, short_side=short_side) as video:
        return video.read([int(index) for index in indices])


def probe(path: str | Path) -> VideoInfo:
    """Decode the whole file once and tell what is there: num_frames is what really decodes. Raises DecodeError."""
    path = str(path)
    with reading(path):
        path = _fetched(path)
        info = _know(path, None)
        num_frames, problem = _count(path)
    if num_frames == info.num_frames and not problem:
        return info
    problem = problem or f"{info.num_frames} frames announced, {num_frames} decode"
    seconds = num_frames / info.fps
    return replace(
        info, num_frames=num_frames, duration_seconds=seconds, backend="pyav", reason="damaged", problems=(problem,)
    )


def iter_frames(path: str | Path) -> Iterator[Frames]:
    """Every frame in order, uint8 (H, W, 3), one in memory at a time. Raises DecodeError where the file breaks off."""
    path = str(path)
    with reading(path):
        path = _fetched(path)
        turns = _know(path, None).rotation // 90
        with _opened(path) as container:
            try:
                for frame in container.decode(container.streams.video[0]):
                    yield np.rot90(frame.to_ndarray(format="rgb24"), turns)
            except (OSError, ValueError) as error:
                raise DecodeError(path, cause_of(error)) from error


def _fetched(path: str) -> str:
    try:
        return local_path(path)
    except DataError as error:
        raise DecodeError(path, str(error).removeprefix(f"{path}: ")) from error


def _know(path: str, known: VideoInfo | None) -> VideoInfo:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None
    if known is not None and known.num_bytes == status.st_size:
        return known
    if not status.st_size:
        raise DecodeError(path, "the file is empty")
    return _examine(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _examine(path: str, num_bytes: int, _modified: int) -> VideoInfo:
    """The cheap check. Only where the packets do not tell how many frames there are is the file decoded to count."""
    with _opened(path) as container:
        num_streams = len(container.streams.video)
        codec = container.streams.video[0].codec_context
        fps = sane_rate(container.streams.video[0].average_rate or container.streams.video[0].guessed_rate)
        layout, first = _look_through(container, first_frame=may_be_turned(path))
    rotation = 90 * round(first.rotation / 90) if first else 0
    width, height = (codec.height, codec.width) if rotation % 180 else (codec.width, codec.height)
    reason = (
        layout.unclear
        or (f"codec {codec.name}" if codec.name not in ("h264", "mpeg4") else "")
        or ("open GOP" if layout.open_gop else "")
        or (f"an edit list hides {layout.num_hidden} frames" if layout.num_hidden else "")
        or (f"{num_streams} video streams" if num_streams > 1 else "")
        or (f"rotated by {rotation} degrees" if rotation else "")
        or (f"pixel format {codec.pix_fmt}" if codec.pix_fmt not in ("yuv420p", "yuvj420p") else "")
        or (f"{width} x {height} pixels" if min(width, height) < 16 else "")
    )
    num_frames, problem = _count(path) if layout.unclear else (len(layout.pts), "")
    return VideoInfo(
        num_frames=num_frames,
        fps=fps,
        width=width,
        height=height,
        rotation=rotation,
        codec=codec.name,
        duration_seconds=num_frames / fps,
        backend="pyav" if reason else "decord",
        reason=reason,
        problems=(problem,) if problem else (),
        num_bytes=num_bytes,
    )


def _look_through(container: Any, *, first_frame: bool) -> tuple[StreamMap, Any]:
    """All packets of the first video stream, and if asked its first frame, where alone PyAV tells the rotation."""
    import av

    stream = container.streams.video[0]
    packets, first = [], None
    try:
        for packet in container.demux(stream):
            if first_frame and first is None:
                first = next(iter(packet.decode()), None)
            if packet.size:
                facts = packet.pts, packet.is_keyframe, packet.is_discard, packet.is_corrupt, bytes(packet)
                packets.append(Packet(*facts))
    except av.FFmpegError:
        return StreamMap(unclear="damaged packets"), first
    inspect = inspector(stream.codec_context.name, stream.codec_context.extradata or b"", container.format.name)
    return map_stream(packets, inspect), first


def _count(path: str) -> tuple[int, str]:
    """Frames that a sequential decode gives, and the error that ended it, if one did. Raises DecodeError for none."""
    num_frames, problem = 0, ""
    with _opened(path) as container:
        try:
            for _ in container.decode(video=0):
                num_frames += 1
        except Exception as error:  # PyAV raises OSError, ValueError and its own, by codec
            problem = f"breaks off after {num_frames} frames: {cause_of(error)}"
    if not num_frames:
        raise DecodeError(path, problem or "no frame in it decodes")
    return num_frames, problem


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """An av container that has a video stream, decoding on one thread: workers are the parallelism."""
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise DecodeError(path, "there is no video stream in it")
            if container.streams.video[0].codec_context is None:
                raise DecodeError(path, "its codec is not known")
            container.streams.video[0].codec_context.thread_count = 1
            yield container
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise DecodeError(path, cause_of(error)) from error


class _PyAV:
    """Decodes forward from the last restart before a frame; from the beginning where jumps cannot be trusted."""

    def __init__(self, path: str, info: VideoInfo, short_side: int | None) -> None:
        self._path, self._info = path, info
        self._size = info.stored_size(short_side)
        self._resources = ExitStack()
        self._container = self._resources.enter_context(_opened(path))
        layout, _ = _look_through(self._container, first_frame=False)
        # A damaged file may decode to fewer frames than its packets promise: then only counting is right.
        self._layout = layout if len(layout.pts) == info.num_frames else StreamMap(unclear="damaged")

    def read(self, indices: Sequence[int]) -> Frames:
        found = None if self._layout.unclear else self._jump(indices)
        found = found or self._walk(indices)
        return np.stack([found[index] for index in indices])

    def times(self) -> list[float]:
        if not self._layout.unclear:
            tick = float(self._container.streams.video[0].time_base)
            seconds = [pts * tick for pts in self._layout.pts]
        else:
            with _opened(self._path) as container:
                frames = islice(container.decode(video=0), self._info.num_frames)
                # In AVI the pictures of a B-frame file carry each other's times.
                seconds = sorted(frame.time for frame in frames if frame.time is not None)
            if len(seconds) < self._info.num_frames:
                return []
        return [second - seconds[0] for second in seconds]

    def close(self) -> None:
        self._resources.close()

    def _jump(self, indices: Sequence[int]) -> dict[int, Frames] | None:
        """Frames known by their timestamps; None when one does not come by, and the file must be walked through."""
        layout, found = self._layout, {}
        stream = self._container.streams.video[0]
        frames: Iterator[Any] = iter(())
        frame, place = None, None
        for index in sorted(set(indices)):
            wanted, restart = layout.pts[index], layout.restart_before(index)
            if place is None or restart > place:
                self._container.seek(restart, stream=stream)
                frames = self._container.decode(stream)
            for frame in frames:
                place = frame.pts
                if place is None or place >= wanted:
                    break
            if place != wanted:
                return None
            found[index] = self._pixels(frame)
        return found

    def _walk(self, indices: Sequence[int]) -> dict[int, Frames]:
        wanted, found = set(indices), {}
        with _opened(self._path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = self._pixels(frame)
                    if len(found) == len(wanted):
                        return found
        raise DecodeError(self._path, f"ends after {number + 1} frames; {self._info.num_frames} were announced")

    def _pixels(self, frame: Any) -> Frames:
        height, width = self._size
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
        return np.rot90(pixels, self._info.rotation // 90) if self._info.rotation else pixels


class _Decord:
    """One decord reader on one thread. It holds up to 400 MB (720p) until it is dropped."""

    def __init__(self, path: str, info: VideoInfo, short_side: int | None) -> None:
        # After a wrong frame count decord retries at the end of the file, by default (10240) long enough to look hung.
        # Low limits fail on sound files when the machine is busy: 32 did, 1024 did not.
        os.environ.setdefault("DECORD_EOF_RETRY_MAX", "2048")
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        height, width = info.stored_size(short_side) if short_side else (-1, -1)
        self._reader = decord.VideoReader(path, num_threads=1, width=width, height=height)
        if len(self._reader) != info.num_frames:
            raise RuntimeError(f"decord counts {len(self._reader)} frames of {info.num_frames}")

    def read(self, indices: Sequence[int]) -> Frames:
        return self._reader.get_batch(list(indices)).asnumpy()

    def close(self) -> None:
        del self._reader

    def times(self) -> list[float]:
        starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        return (starts - starts[0]).tolist()
