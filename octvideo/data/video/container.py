"""Opening a file for FFmpeg: only containers listed here, by a name that is never
taken for a URL."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from octvideo.data.reading import DecodeError, cause_of

FORMATS = (
    *("mov", "matroska", "avi", "flv", "live_flv", "mpegts", "mpeg", "asf", "ogg", "rm", "gif"),
    *("nut", "mxf", "gxf", "wtv", "dv", "ivf", "yuv4mpegpipe", "swf", "nsv", "roq", "4xm"),
    *("h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "h263", "h261", "vc1", "mjpeg"),
)
"""FFmpeg's demuxers that read one file and nothing else. Playlists, concat scripts, picture
sequences, session
descriptions and devices are not among them: they open what a file names."""

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2", ".f4v"),
    *(".avi", ".divx", ".mkv", ".webm", ".flv"),
    *(".ts", ".m2t", ".m2ts", ".mts", ".mpg", ".mpeg", ".mpe", ".m2v", ".m1v", ".vob"),
    *(".wmv", ".asf", ".ogv", ".ogm", ".rm", ".rmvb", ".gif"),
    *(".mxf", ".gxf", ".nut", ".dv", ".wtv", ".nsv", ".ivf", ".y4m", ".mjpg", ".mjpeg"),
    *(".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".h266", ".vvc", ".av1", ".obu", ".h263"),
)
"""Names of files of these containers and raw streams."""

_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
_NO_PROBE = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
_ATTACHED_PICTURE = 1 << 10  # AV_DISPOSITION_ATTACHED_PIC
_NO_TIMESTAMPS = 1 << 7  # AVFMT_NOTIMESTAMPS
_UNALIGNED = 1  # AV_CODEC_FLAG_UNALIGNED: crop at the very column that the file says


def status_of(path: str) -> os.stat_result:
    """The stat of a file. Raises DecodeError for an empty file and for anything but a file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None
    except ValueError:
        raise DecodeError(path, "the name holds a NUL, which no file name can") from None
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(path, "this is a folder, not a video file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(path, "this is a pipe, a socket or a device, not a file")
    if not status.st_size:
        raise DecodeError(path, "the file is empty")
    return status


def file_url(path: str | Path) -> str:
    """The name by which FFmpeg opens this file and nothing else: `10:30.mp4` would be a protocol,
    `pipe:0` a pipe."""
    return f"file:{path}"


def ffmpeg_errors() -> tuple[type[Exception], ...]:
    """The exceptions of PyAV for files that FFmpeg cannot read; IndexError: of a stream that
    appears midway."""
    import av

    return av.FFmpegError, OSError, ValueError, IndexError, MemoryError


def video_stream(container: Any) -> Any:
    """The first stream of moving pictures; a cover, which FFmpeg lists as a video of one frame, is
    none. Raises ValueError where there is none, and for a codec that FFmpeg does not know."""
    streams = container.streams.video
    moving = [stream for stream in streams if not stream.disposition & _ATTACHED_PICTURE]
    if not moving:
        covers = ", only a cover picture" if streams else ""
        raise ValueError(f"there is no video stream in it{covers}")
    if moving[0].codec_context is None:
        raise ValueError("its codec is not known")
    return moving[0]


@contextmanager
def opened(path: str, *, probes: bool = True) -> Iterator[Any]:
    """An av container that has a video stream, decoding on one thread: workers are the parallelism.

    probes: False leaves FFmpeg with what the header says; it reads no packets to find out more.
    """
    import av

    status_of(path)
    try:
        container = av.open(
            file_url(path),
            container_options=_OPTIONS if probes else _OPTIONS | _NO_PROBE,
            metadata_errors="replace",
        )
    except av.ArgumentError:
        raise DecodeError(
            path, "Invalid data: not a container of video that is read here"
        ) from None
    except ffmpeg_errors() as error:
        raise DecodeError(path, cause_of(error)) from error
    try:
        with container:
            codec = video_stream(container).codec_context
            codec.thread_count = 1
            codec.flags |= _UNALIGNED
            yield container
    except ffmpeg_errors() as error:
        raise DecodeError(path, cause_of(error)) from error


LIVE_PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "udp": "udp",
}
"""Scheme of a live address -> the protocols that FFmpeg may speak for it. No other entrance opens
an address."""

_LIVE_FORMATS = {"rtsp": ("rtsp",), "http": ("mpjpeg",), "https": ("mpjpeg",)}
"""Scheme -> demuxers beside FORMATS. mpjpeg: the parts of an answer are pictures."""

SLOWER = "a slower source needs longer timeout_seconds"
_MAX_LIVE_PIXELS = 2**26  # of a picture: a stream may change its size to any at any time


def has_timestamps(container: Any) -> bool:
    """Whether its frames say when they are shown; of raw pictures FFmpeg supposes 25 a second."""
    return not container.format.flags & _NO_TIMESTAMPS


@contextmanager
def opened_live(source: Any, scheme: str, timeout_seconds: float) -> Iterator[Any]:
    """An av container of a live source: a name for FFmpeg, or a file object that is read without
    seeking.

    scheme: of LIVE_PROTOCOLS, "camera" (a device of v4l2) or "file" (an object). Raises the
    exceptions of `ffmpeg_errors`, and DecodeError when nothing arrives for timeout_seconds.
    """
    import av

    formats = (*FORMATS, *_LIVE_FORMATS.get(scheme, ()))
    options = {
        "format_whitelist": "v4l2,video4linux2" if scheme == "camera" else ",".join(formats),
        "protocol_whitelist": LIVE_PROTOCOLS.get(scheme, "file"),
        # Five seconds of looking ahead, which files can afford, would be latency here.
        "analyzeduration": "1000000",
        # A reader that does not come back (`LiveFrames`) still holds the port; others are refused.
        **({"reuse": "1"} if scheme == "udp" else {}),
    }
    late = "no beginning of a video"
    try:
        container = av.open(
            source,
            format="v4l2" if scheme == "camera" else None,
            container_options=options,
            metadata_errors="replace",
            timeout=(timeout_seconds, timeout_seconds),
        )
        late = "nothing arrived"
        with container:
            codec = video_stream(container).codec_context
            codec.thread_count = 1
            codec.flags |= _UNALIGNED
            codec.options = {"max_pixels": str(_MAX_LIVE_PIXELS)}
            yield container
    except av.ExitError:  # by PyAV's clock; FFmpeg calls it "Immediate exit requested"
        raise DecodeError("", f"{late} for {timeout_seconds:g} s ({SLOWER})") from None
