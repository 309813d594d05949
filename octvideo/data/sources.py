"""Videos from any source: path, address, bytes of a file, array, tensor, iterable of frames."""

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray

from octvideo.data.reading import DecodeError
from octvideo.data.sampling import Timing
from octvideo.data.video.decode import iter_frames, look_at, open_video
from octvideo.data.video.frame_source import FrameSource
from octvideo.data.video.times import with_end
from octvideo.data.video.video import Prepare
from octvideo.errors import ConfigError

Frames = NDArray[np.uint8]
Source = str | Path | bytes | IO[bytes] | Frames | torch.Tensor | Iterable[Any]
GIVEN = "the bytes given"  # the name of a file without one, in messages


def is_several(source: Any) -> TypeGuard[Sequence[Source]]:
    """Whether it is a list of videos, not one: its first entry is a file, or an array of frames."""
    if not isinstance(source, list | tuple) or not source:
        return False
    first = source[0]
    return _is_file(first) or getattr(first, "ndim", 3) == 4


@contextmanager
def opened(source: Source, fps: float | None, usual_fps: float) -> Iterator[FrameSource]:
    """Open one video for reads by frame number. fps: of frames without a file, by default
    `usual_fps`.

    Raises DecodeError for a file that cannot be read, ConfigError for anything else that is no
    video.
    """
    if not _is_file(source):
        yield InMemory(_all_frames(source), _rate(fps, usual_fps))
        return
    refuse_times(source, fps)
    with _on_disk(source) as path, open_video(path) as video:
        yield video


@contextmanager
def streamed(
    source: Source, fps: float | None, usual_fps: float, times: Sequence[float] = ()
) -> Iterator[tuple[Iterator[Frames], float, Sequence[float]]]:
    """(frames one after another, frames per second, the seconds at which each is shown, and for a
    file also when the last one ends).

    Raises as `opened` does, for a frame of the wrong form when it is reached. A DecodeError of what
    is done with the frames of a file is given the file's name.
    """
    if not _is_file(source):
        yield _each_frame(source), _rate(fps, usual_fps), times
        return
    refuse_times(source, fps, times)
    with _on_disk(source) as path:
        info, shown = look_at(path)
        times = with_end(shown, info.duration_seconds)
        # A damaged file is announced with the frames that decode, and is left before the damage.
        try:
            yield islice(iter_frames(path), info.num_frames), info.fps, times
        except DecodeError as error:
            raise DecodeError(path, error.cause) from error


def refuse_times(source: Any, fps: float | None, times: Sequence[float] = ()) -> None:
    """Raise ConfigError if the rate or the times are given for a file or an address."""
    given = "fps" if fps is not None else "times" if len(times) else ""
    if given:
        raise ConfigError(
            f"{_name_of(source)}: got {given}= beside a source that says itself when its frames"
            f" are shown; leave {given} out"
        )


class InMemory:
    """Frames in an array, with the interface of an open file."""

    path = "the frames given"

    def __init__(self, frames: Frames, fps: float) -> None:
        self._frames, self._fps = frames, fps

    def timing(self, *, exact_times: bool = False) -> Timing:
        return Timing(len(self._frames), self._fps)

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        chosen = self._frames[list(indices)]
        return np.stack([prepare(frame) for frame in chosen]) if prepare else chosen


# --- Files


def _is_file(source: Any) -> bool:
    return isinstance(source, str | Path | bytes | bytearray | memoryview) or hasattr(
        source, "read"
    )


@contextmanager
def _on_disk(source: Any) -> Iterator[str]:
    """The path of a file; bytes and file objects are written to a temporary file, because decoders
    open files."""
    if source == "":
        raise ConfigError("the path of the video is empty")
    if isinstance(source, str | Path):
        yield str(source)
        return
    if isinstance(source, io.TextIOBase):
        raise ConfigError(f"got {_name_of(source)} that is open as text; open it with mode 'rb'")
    content = source if hasattr(source, "read") else io.BytesIO(source)
    with NamedTemporaryFile(prefix="octvideo_") as copy:
        shutil.copyfileobj(content, copy)
        copy.flush()
        if not copy.tell():
            raise DecodeError(GIVEN, "there are none; a file object is read from where it stands")
        try:
            yield copy.name
        except DecodeError as error:
            raise DecodeError(GIVEN, error.cause.replace(copy.name, GIVEN)) from error


# --- Frames


def _rate(fps: float | None, usual: float) -> float:
    if fps is None:
        return usual
    if not 0 < fps < 1e6:
        raise ConfigError(f"fps is {fps}; give the frames per second, a positive number")
    return float(fps)


def _all_frames(source: Any) -> Frames:
    """uint8 (T, H, W, 3) of an array, a tensor, or frames one after another."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return _checked(_as_array(source))
    frames = list(_each_frame(source))
    if not frames:
        raise ConfigError("the video has no frames")
    odd = next((frame.shape for frame in frames if frame.shape != frames[0].shape), None)
    if odd is not None:
        raise ConfigError(
            f"got frames of {frames[0].shape} and of {odd}; all frames of a video have one size: "
            "resize them first, or give the file"
        )
    return np.stack(frames)


def _each_frame(source: Any) -> Iterator[Frames]:
    if isinstance(source, np.ndarray | torch.Tensor):
        return iter(_checked(_as_array(source)))
    if not isinstance(source, Iterable) or isinstance(source, dict):
        raise ConfigError(
            f"got {_name_of(source)}; a video is a path, an address, the bytes of a file, an open"
            " file, uint8 frames (T, H, W, 3), or an iterable of frames"
        )
    frames = iter(source)
    if (first := next(frames, None)) is None:
        raise ConfigError("the video has no frames")
    return map(_frame, chain([first], frames))


def _frame(frame: Any) -> Frames:
    if isinstance(frame, torch.Tensor) and frame.dim() == 3:
        return _checked(_as_array(frame[None]))[0]
    return _checked(np.asarray(frame)[None])[0]


def _as_array(frames: Any) -> Frames:
    """A tensor may have its channels behind the time, as decoders give it: (T, 3, H, W)."""
    if not isinstance(frames, torch.Tensor):
        return cast(Frames, frames)
    frames = frames.detach().cpu()
    if frames.dim() == 4 and frames.shape[1] == 3 != frames.shape[3]:
        frames = frames.permute(0, 2, 3, 1)
    return cast(Frames, frames.numpy() if frames.dtype != torch.bfloat16 else frames.float())


def _checked(frames: Any) -> Frames:
    kind, shape = str(frames.dtype).removeprefix("torch."), tuple(frames.shape)
    if kind != "uint8" or len(shape) != 4 or shape[-1] != 3 or not all(shape):
        raise ConfigError(
            f"got frames {kind} {shape}; a video is uint8 (T, H, W, 3), RGB, or as a tensor also"
            " (T, 3, H, W)"
        )
    return cast(Frames, frames)


def _name_of(source: Any) -> str:
    if isinstance(source, str | Path):
        return str(source)
    return f"a {type(source).__name__}"
