"""Frames out of video files: the only place that reads with a decoder.

Frame k is the k-th frame of a sequential decode of the first video stream, RGB, in display orientation. decord is the
default engine. It is fast, and silently wrong on some files (open GOPs, edit lists, several streams, ...): each file's
packets are therefore looked at first (packets.py), in a few milliseconds, and PyAV reads those files.

Damage inside a picture shows only when it is decoded, and each decoder conceals it in its own way. PyAV tells of it,
decord does not: there only a whole decode helps (`probe`; tools/check_videos.py for a list). Frame numbers stay right.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from octvideo.data.reading import DecodeError, cause_of, reading
from octvideo.data.remote import local_path
from octvideo.data.video.bitstream import inspector
from octvideo.data.video.packets import (
    Packet,
    StreamMap,
    VideoInfo,
    map_stream,
    may_be_turned,
    sane_rate,
)
from octvideo.data.video.video import Engine, Frames, Video
from octvideo.errors import DataError

BACKENDS = ("auto", "decord", "pyav")
_STRICT = {"err_detect": "explode"}
"""FFmpeg then raises an error for damage that it would conceal otherwise. Almost: the rest has frame.is_corrupt."""


@contextmanager
def open_video(
    path: str | Path,
    *,
    backend: str = "auto",
    short_side: int | None = None,
    known: VideoInfo | None = None,
) -> Iterator[Video]:
    """Open a file for several reads. `known` is a remembered VideoInfo (index.py): it saves the check.

    Raises DecodeError that names path and cause; with backend "decord", also for a file that decord reads wrongly.
    """
    if backend not in BACKENDS:
        raise ValueError(f"there is no decoder {backend!r}; there are {', '.join(BACKENDS)}")
    path = str(path)
    with reading(path):
        path = _fetched(path)
        info = _know(path, known)
        if backend == "decord" and info.backend != "decord":
            raise DecodeError(
                path,
                f"decord would give wrong frames ({info.reason}); use backend 'auto' or 'pyav'",
            )
        # decord comes first, but gives up on some files whose packets look sound: then a sequential decode decides.
        names = sorted({info.backend, "pyav"}) if backend == "auto" else [backend]
        engines = [partial(_ENGINES[name], path, info, short_side) for name in names]
        with closing(Video(path, info, engines)) as video:
            yield video


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    backend: str = "auto",
    short_side: int | None = None,
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
        info,
        num_frames=num_frames,
        duration_seconds=seconds,
        backend="pyav",
        reason="damaged",
        problems=(problem,),
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
        fps = sane_rate(
            container.streams.video[0].average_rate or container.streams.video[0].guessed_rate
        )
        layout, first = _look_through(container, first_frame=may_be_turned(path))
        marks = {
            entry.timestamp
            for entry in container.streams.video[0].index_entries
            if entry.is_keyframe
        }
        has_false_marks = container.format.name == "avi" and marks != set(layout.restarts)
    rotation = 90 * round(first.rotation / 90) if first else 0
    width, height = (codec.height, codec.width) if rotation % 180 else (codec.width, codec.height)
    reason = (
        layout.unclear
        or (f"codec {codec.name}" if codec.name not in ("h264", "mpeg4") else "")
        or ("open GOP" if layout.open_gop else "")
        or ("interlaced" if codec.field_order > 1 else "")
        or ("an index of other keyframes" if has_false_marks else "")
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


def _look_through(container: Any, *, first_frame: bool = False) -> tuple[StreamMap, Any]:
    """All packets of the first video stream, and if asked its first frame, where alone PyAV tells the rotation."""
    import av

    stream = container.streams.video[0]
    packets, first = [], None
    try:
        for packet in container.demux(stream):
            if first_frame and first is None:
                first = next(iter(packet.decode()), None)
            if packet.size:
                facts = (
                    packet.pts,
                    packet.is_keyframe,
                    packet.is_discard,
                    packet.is_corrupt,
                    bytes(packet),
                )
                packets.append(Packet(*facts))
    except av.FFmpegError:
        return StreamMap(unclear="damaged packets"), first
    inspect = inspector(
        stream.codec_context.name, stream.codec_context.extradata or b"", container.format.name
    )
    return map_stream(packets, inspect), first


def _map_of_intact_file(container: Any) -> StreamMap:
    """As `map_stream`, for a file that is known to be intact: every keyframe is a restart."""
    packets = [
        (packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.size
    ]
    return StreamMap(
        tuple(sorted(pts for pts, _ in packets)),
        tuple(sorted(pts for pts, is_key in packets if is_key)),
    )


def _count(path: str) -> tuple[int, str]:
    """Frames that a sequential decode gives, and what is wrong with them. Raises DecodeError for none."""
    num_frames, damage = _decode_all(path, _STRICT)
    if not damage:
        return num_frames, ""
    num_frames, break_off = _decode_all(path, {})
    if not num_frames:
        raise DecodeError(path, break_off or "no frame in it decodes")
    return (
        num_frames,
        f"breaks off after {num_frames} frames: {break_off}"
        if break_off
        else f"damage inside: {damage}",
    )


def _decode_all(path: str, options: dict[str, str]) -> tuple[int, str]:
    """Frames up to the end, or up to what ended it."""
    num_frames = 0
    with _opened(path) as container:
        container.streams.video[0].codec_context.options = options
        try:
            for frame in container.decode(video=0):
                if options and frame.is_corrupt:
                    return num_frames, "a damaged frame"
                num_frames += 1
        except Exception as error:  # PyAV raises OSError, ValueError and its own, by codec
            return num_frames, cause_of(error)
    return num_frames, "" if num_frames else "no frame in it decodes"


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
        layout = (
            _map_of_intact_file(self._container)
            if info.backend == "decord"
            else _look_through(self._container)[0]
        )
        # What a decoder conceals depends on the frames before: damage after a jump must be heard of.
        self._container.streams.video[0].codec_context.options = _STRICT
        # A damaged file may decode to fewer frames than its packets promise: then only counting is right.
        self._layout = (
            layout if len(layout.pts) == info.num_frames else StreamMap(unclear="damaged")
        )

    def read(self, indices: Sequence[int]) -> Frames:
        found = None
        if not self._layout.unclear:
            with suppress(OSError, ValueError):
                found = self._jump(indices)
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
        frame: Any = None
        place = None
        for index in sorted(set(indices)):
            wanted, restart = layout.pts[index], layout.restart_before(index)
            if place is None or restart > place:
                self._container.seek(restart, stream=stream)
                frames = self._container.decode(stream)
            for frame in frames:
                place = frame.pts
                if place is None or place >= wanted or frame.is_corrupt:
                    break
            if place != wanted or frame.is_corrupt:
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
        raise DecodeError(
            self._path, f"ends after {number + 1} frames; {self._info.num_frames} were announced"
        )

    def _pixels(self, frame: Any) -> Frames:
        height, width = self._size
        pixels = frame.to_ndarray(
            format="rgb24", width=width, height=height, interpolation="BILINEAR"
        )
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


_ENGINES: dict[str, Callable[[str, VideoInfo, int | None], Engine]] = {
    "decord": _Decord,
    "pyav": _PyAV,
}
