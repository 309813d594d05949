"""Frames out of video files: the only place that reads with a decoder.

Frame k is the k-th frame of a sequential decode of the first video stream, RGB, in display
orientation and at the size of the first frame. Loader workers read with decord, which is fast, and
silently wrong on some files (open GOPs, edit lists, false keyframe marks, ...): each file's packets
are therefore looked at first (examine.py), in a few milliseconds, and PyAV reads those files.
Everything else reads with PyAV too, since decord may end its process on a damaged file; asked for
by name it reads in a child process. torchcodec reads in workers in decord's place where it is asked
for, those files that decord reads rightly. The pixels of a file do not depend on which, but for
CUDA decoding.

Damage inside a picture shows only when it is decoded, and each decoder conceals it in its own way.
PyAV tells of it, decord does not: there only a whole decode helps (`probe`; `octvideo check` for a
list). Frame numbers stay right.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from octvideo.data.reading import (
    DecodeError,
    cause_of,
    is_worker,
    reading,
    refuse_known_bad,
    still_reading,
)
from octvideo.data.remote import local_path
from octvideo.data.video.container import ffmpeg_errors, opened, video_stream
from octvideo.data.video.decord_engine import DecordEngine
from octvideo.data.video.examine import count, frame_table, frame_times, know
from octvideo.data.video.frame_table import FindTable, KnownFile
from octvideo.data.video.info import DAMAGED, VideoInfo
from octvideo.data.video.pyav_engine import Pixels, PyAVEngine
from octvideo.data.video.times import rate_and_duration, true_times
from octvideo.data.video.torchcodec_engine import TorchCodecEngine, require_torchcodec
from octvideo.data.video.video import Engine, Frames, Video
from octvideo.errors import DataError

BACKENDS = ("auto", "decord", "pyav", "torchcodec", "torchcodec:cuda")
_ENGINES: dict[str, Callable[[KnownFile, int | None], Engine]] = {
    "decord": DecordEngine,
    "pyav": PyAVEngine,
    "torchcodec": TorchCodecEngine,
    "torchcodec:cuda": partial(TorchCodecEngine, device="cuda"),
}


def require_backend(name: str) -> None:
    """Raises ValueError for an unknown backend, OctvideoError for one not installed here."""
    if name not in BACKENDS:
        raise ValueError(f"there is no decoder {name!r}; there are {', '.join(BACKENDS)}")
    library, _, device = name.partition(":")
    if library == "torchcodec":
        require_torchcodec(device or "cpu")


@contextmanager
def open_video(
    path: str | Path,
    *,
    backend: str = "auto",
    short_side: int | None = None,
    known: VideoInfo | None = None,
    name: str = "",
    content: bytes | None = None,
    find_table: FindTable = lambda: None,
) -> Iterator[Video]:
    """Open a file for several reads. `known` is a remembered VideoInfo (data/video/index.py): it
    saves the check.

    name: what the video is called in messages, where that is not `path`. content: the bytes of the
    file, where they are in memory. find_table: reads what was remembered of its packets, so that
    they are not looked at again. Raises DecodeError that names it and the cause; with backend
    "decord", also for a file that decord reads wrongly.
    """
    require_backend(backend)
    listed, path = str(path), _fetched(str(path))
    with reading(name or listed), _called(path, name):
        info = know(path, known)
        if backend == "decord" and info.backend != "decord":
            raise DecodeError(
                path,
                f"decord would give wrong frames ({info.reason}); use backend 'auto' or 'pyav'",
            )
        # A table is of the file that `known` was found on.
        file = KnownFile(path, info, content, find_table if info is known else lambda: None)
        engines = [
            partial(_ENGINES[name], file, short_side) for name in _engines_for(backend, info)
        ]
        with closing(Video(path, info, engines, partial(frame_times, file))) as video:
            yield video


@contextmanager
def _called(path: str, name: str) -> Iterator[None]:
    """A context in which errors about `path` name the video as users know it."""
    try:
        yield
    except DecodeError as error:
        if not name or error.path != path:
            raise
        raise DecodeError(name, error.cause.replace(path, name)) from error


def _engines_for(backend: str, info: VideoInfo) -> list[str]:
    if backend in ("decord", "pyav"):
        return [backend]
    # The fast one gives up on some files whose packets look sound: then a sequential decode
    # decides.
    fast = "decord" if backend == "auto" else backend
    return [fast, "pyav"] if info.backend == "decord" and is_worker() else ["pyav"]


def takes_a_table(backend: str, info: VideoInfo) -> bool:
    """Whether the engine that reads such a file asks for what was kept of its packets."""
    return _engines_for(backend, info)[0] != "decord"


def read_frames(
    path: str | Path,
    indices: Sequence[int],
    *,
    backend: str = "auto",
    short_side: int | None = None,
) -> Frames:
    """Frames at these numbers: uint8 (T, H, W, 3). `indices` may be in any order and repeat.

    short_side resizes while decoding, which is cheaper than resizing afterwards but depends on the
    engine's scaler (decord bicubic, PyAV bilinear): pixels then differ a little between engines and
    from a resize in torch. Raises DecodeError for what cannot be read, for frames outside the
    video, and for decord's wrong files.
    """
    with open_video(path, backend=backend, short_side=short_side) as video:
        return video.read([int(index) for index in indices])


def probe(path: str | Path) -> VideoInfo:
    """Decode the whole file once and describe it: num_frames is the number that really decodes.
    Raises DecodeError."""
    with _known(path) as (file, info):
        decoded, problems = count(file)
    if decoded.num_frames == info.num_frames and problems == info.problems:
        return info
    if not problems:
        problems = (f"{info.num_frames} frames announced, {decoded.num_frames} decode",)
    times = true_times(decoded.stamps, info.fps)
    fps, seconds = rate_and_duration(times, info.fps, decoded.last_seconds)
    return replace(
        info,
        num_frames=decoded.num_frames,
        fps=fps,
        duration_seconds=seconds,
        backend="pyav",
        reason=DAMAGED,
        problems=problems,
    )


def look_at(path: str | Path) -> tuple[VideoInfo, Sequence[float]]:
    """The description of a file, and when each of its frames is shown, in seconds from the first.

    No file stays open, and memory grows by 70 to 90 bytes a frame. Raises DecodeError.
    """
    with _known(path) as (file, info):
        return info, frame_table(file, info).times


def iter_frames(path: str | Path) -> Iterator[Frames]:
    """Every frame in order, uint8 (H, W, 3), one in memory at a time. Raises DecodeError where the
    file breaks off."""
    with _known(path) as (file, info), opened(file) as container:
        pixels = Pixels(info, info.stored_size())
        try:
            for frame in container.decode(video_stream(container)):
                yield pixels.of(frame)
                still_reading()
        except ffmpeg_errors() as error:
            raise DecodeError(file, cause_of(error)) from error


@contextmanager
def _known(path: str | Path) -> Iterator[tuple[str, VideoInfo]]:
    """The context in which a file is read: its path on this machine, and its description."""
    file = _fetched(str(path))
    with reading(str(path)):
        yield file, know(file, None)


def _fetched(path: str) -> str:
    refuse_known_bad(path)
    try:
        return local_path(path)
    except DataError as error:
        raise DecodeError(path, str(error).removeprefix(f"{path}: ")) from error
