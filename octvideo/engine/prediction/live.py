"""Windows of a live source, each as soon as its last frame has arrived."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from octvideo.data.sources import Source, is_several, refuse_times, streamed
from octvideo.data.video.live import LiveFrame, LiveFrames, grown_frames, is_live
from octvideo.engine.prediction.events import Window
from octvideo.engine.prediction.named import Network
from octvideo.engine.prediction.windows import VideoWindows, check_lengths
from octvideo.errors import ConfigError

Frame = NDArray[np.uint8]
_HELD_PER_FRAME = 8  # of the network: of more in a window some are not held
_SLACK = 1e-6
OF_ADDRESSES = ("timeout_seconds", "give_up_seconds", "max_waiting")
OF_FOLLOWED = ("follow", "timeout_seconds")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options for reading a live source; one without effect on a source is refused beside it.

    follow: the source is a file that is still written; it has ended when it has not grown for
    timeout_seconds.
    timeout_seconds: after so long without a frame, a connection counts as lost and is opened again.
    Frames further apart by their own times, and over 10 seconds, have a break between them.
    give_up_seconds: after so long without a frame of an address, DecodeError is raised (None:
    never).
    max_waiting: how many frames of an address may wait for the network; older ones are dropped, and
    counted.
    """

    follow: bool = False
    timeout_seconds: float = 10.0
    give_up_seconds: float | None = None
    max_waiting: int = 64

    def __post_init__(self) -> None:
        give_up = 1.0 if self.give_up_seconds is None else self.give_up_seconds
        if not (0 < self.timeout_seconds < inf and give_up > 0 and self.max_waiting >= 1):
            raise ConfigError(
                f"{self}: times are positive, a time-out finite, and at least one frame may wait"
            )


def stream_windows(
    network: Network,
    source: Source | int,
    window_seconds: float,
    stride_seconds: float,
    fps: float | None,
    options: LiveOptions,
) -> Iterator[Window]:
    """See `Recognizer.stream`; wrong arguments raise at once, not at the first window."""
    check_lengths(window_seconds, stride_seconds)
    if is_live(source):
        refuse_times(str(source), fps)
        _refuse_unused(options, OF_ADDRESSES, f"beside {source}, which is an address or a camera")
        return _live(network, str(source), window_seconds, stride_seconds, options)
    if isinstance(source, int) or is_several(source):
        raise ConfigError("a stream is of one source: an address, a camera, a video or its frames")
    if not options.follow:
        _refuse_unused(options, (), "beside a video or its frames, which are not live")
        return _counted(network, source, window_seconds, stride_seconds, fps)
    if not isinstance(source, str | Path):
        raise ConfigError("follow is of a file that is still written; give its path")
    refuse_times(source, fps)
    _refuse_unused(options, OF_FOLLOWED, "beside follow: a file ends when it no longer grows")
    frames = grown_frames(source, network.center_crop, options.timeout_seconds)
    return _timed(network, frames, None, window_seconds, stride_seconds)


def _refuse_unused(options: LiveOptions, used: Collection[str], where: str) -> None:
    given = [f.name for f in fields(options) if getattr(options, f.name) != f.default]
    unused = ", ".join(name for name in given if name not in used)
    if unused:
        raise ConfigError(f"LiveOptions: {unused}: without effect {where}; leave it out")


def _counted(
    network: Network,
    source: Source,
    window_seconds: float,
    stride_seconds: float,
    fps: float | None,
) -> Iterator[Window]:
    """The windows of a video or an iterable, as `timeline` counts them: no frame is dropped."""
    with streamed(source, fps, network.usual_fps) as stream:
        windows = VideoWindows(*stream, window_seconds, stride_seconds)
        for firsts, views in windows.batches(network.num_frames, network.center_crop, 1):
            scores = network.outputs(views, scores=True, features=False)[0]
            _, _, starts, ends = windows.ranges(firsts)
            begins = firsts[0] == 0
            yield Window(float(starts[0]), float(ends[0]), scores, network.class_names, begins)


def _live(
    network: Network,
    address: str,
    window_seconds: float,
    stride_seconds: float,
    options: LiveOptions,
) -> Iterator[Window]:
    source = LiveFrames(
        address,
        prepare=network.center_crop,  # its size does not depend on that of the frame
        max_waiting=options.max_waiting,
        timeout_seconds=options.timeout_seconds,
        give_up_seconds=options.give_up_seconds,
    )
    with source:
        yield from _timed(network, source, source, window_seconds, stride_seconds)


def _timed(
    network: Network,
    frames: Iterable[LiveFrame],
    source: LiveFrames | None,
    window_seconds: float,
    stride_seconds: float,
) -> Iterator[Window]:
    for clip in timed_clips(frames, window_seconds, stride_seconds, network.num_frames):
        views = torch.from_numpy(np.stack(clip.images))[None].movedim(-1, 1)
        scores = network.outputs(views, scores=True, features=False)[0]
        lost = (source.dropped, source.reconnects) if source else (0, 0)
        yield Window(clip.start, clip.end, scores, network.class_names, clip.begins, *lost)


@dataclass(frozen=True, slots=True, eq=False)
class TimedClip:
    """The frames of a window from `start` to `end` seconds."""

    start: float
    end: float
    images: list[Any]
    begins: bool


def timed_clips(
    frames: Iterable[LiveFrame], window: float, stride: float, num_frames: int
) -> Iterator[TimedClip]:
    """Windows of `window` seconds, one every `stride`, of frames that arrive at any rate and may be
    missing.

    num_frames of a window are those on screen at times spread evenly from its first to its last
    frame. A window is yielded with the first frame after it. A break begins the windows anew; a
    window that a break or the end of the source cuts short is left out, and so is one without a
    frame.
    """
    held: deque[LiveFrame] = deque()
    start, begins = 0.0, True
    spacing = window / (_HELD_PER_FRAME * num_frames - 1)
    for frame in frames:
        if frame.begins:
            held.clear()
            start, begins = frame.seconds, True
        while frame.seconds >= start + window - _SLACK:
            inside = [f for f in held if f.seconds < start + window - _SLACK]
            if inside:
                yield TimedClip(start, start + window, _spread(inside, num_frames), begins)
                begins = False
            start += stride
            while held and held[0].seconds < start - _SLACK:
                held.popleft()
            if not held and frame.seconds >= start + window:
                # Nothing is held of the windows up to this frame. The difference may round below 0.
                start += stride * max((frame.seconds - start - window) // stride, 0)
        if frame.seconds >= start - _SLACK:
            # The newest is held, however near to the one before: a window may have no other.
            if len(held) > 1 and frame.seconds - held[-2].seconds < spacing:
                held.pop()
            held.append(frame)


def _spread(frames: list[LiveFrame], count: int) -> list[Any]:
    first, last = frames[0].seconds, frames[-1].seconds
    times = np.array([frame.seconds for frame in frames])
    wanted = np.linspace(first, last, count) + _SLACK
    return [frames[i].image for i in np.searchsorted(times, wanted, side="right") - 1]
