"""Frames of live sources: a camera, a network address, a file that grows. Only this module opens
addresses.

A thread reads and reconnects. Frames for which the consumer has no time are dropped, oldest first,
and counted: latency and memory stay bounded, whatever the network does.
"""

import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from octvideo.data.reading import DecodeError, cause_of
from octvideo.data.video.container import (
    LIVE_PROTOCOLS,
    SLOWER,
    ffmpeg_errors,
    has_timestamps,
    opened_live,
    video_stream,
)
from octvideo.data.video.orientation import orientation_of
from octvideo.data.video.video import Frames, Prepare
from octvideo.errors import logger
from octvideo.files import is_local

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
_LEAP_SECONDS = 10.0  # between two frames, and over the time-out: the source's clock was set
_STEP_BACK_SECONDS = 1.0  # at most: a frame out of order; more: the timestamps start again
_LEAST_STEP = 1e-3
_POLL_SECONDS, _PATIENCE = 0.1, 0.5
_STUCK = 3  # time-outs in FFmpeg, which takes up to two for opening
_KNOWN = ", ".join(f"{name}://" for name in LIVE_PROTOCOLS)
_WHAT_IS_LIVE = f"live are {_KNOWN}, and cameras as /dev/video0 or 0"


@dataclass(frozen=True, slots=True, eq=False)
class LiveFrame:
    """A frame and its time: seconds from the first frame of the source, by the source's clock.

    begins: the first frame, or the first one after a break: a lost connection, timestamps that
    start again, or a leap of over ten seconds and the time-out. Over a break of an address, and
    where it gives no timestamps, this machine's clock is used; over that of a file, its own.
    """

    image: Frames
    seconds: float
    begins: bool


class LiveFrames:
    """The frames of an address, as they arrive. Entering the context starts the reading thread,
    leaving it ends it.

    address: rtsp://, http://, https://, udp://, or a camera: /dev/video0, "0".
    prepare: is applied to each frame in the reading thread. max_waiting: frames that may wait for
    the consumer.
    timeout_seconds: after so long without a frame, the connection counts as lost. Then it is opened
    again, at once, then after 0.5, 1, 2, ... 30 seconds; after give_up_seconds without a frame
    (None: never) DecodeError says why.
    dropped, reconnects: so far.
    """

    def __init__(
        self,
        address: str,
        *,
        prepare: Prepare,
        max_waiting: int,
        timeout_seconds: float = 10.0,
        give_up_seconds: float | None = None,
        say: Callable[[str], None] = logger.warning,
    ) -> None:
        self.dropped = self.reconnects = 0
        self._address, self._name, self._scheme = address, *_opened_as(address)
        self._prepare, self._say = prepare, say
        self._timeout, self._give_up = timeout_seconds, give_up_seconds
        self._waiting: deque[LiveFrame] = deque()
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._clock, self._last = _Clock(timeout_seconds), time.monotonic()
        self._thread, self._stopped = threading.Thread(), threading.Event()
        self._stuck: list[threading.Thread] = []
        self._inside = math.inf  # since when the thread is in FFmpeg

    def __enter__(self) -> "LiveFrames":
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        # FFmpeg is asked once a time-out; a thread that hangs longer ends with the process, for
        # whose end nobody waits at Ctrl-C.
        self._thread.join(_PATIENCE if kind is KeyboardInterrupt else self._timeout + 1)

    def __iter__(self) -> Iterator[LiveFrame]:
        """Raises DecodeError when the source is given up."""
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda: self._waiting or self._error, self._timeout)
                if came and not self._waiting:
                    assert self._error
                    raise self._error
                frame = self._waiting.popleft() if came else None
            if frame:
                yield frame
            elif time.monotonic() - self._inside > _STUCK * self._timeout:
                self._replace_reader()

    def _start(self) -> None:
        self._stopped, self._inside = threading.Event(), math.inf
        self._thread = threading.Thread(target=self._read, args=(self._stopped,), daemon=True)
        self._thread.start()

    def _replace_reader(self) -> None:
        """PyAV passes over the packets of streams that appear midway, such as those of a sender
        that starts again with other PIDs, and comes back with none: nothing can interrupt it."""
        self._stopped.set()
        self._stuck.append(self._thread)
        self._clock.lost()
        self.reconnects += 1
        self._say(f"{self._address}: its streams are not those that it had; connecting again")
        self._start()

    def _put(self, frame: LiveFrame) -> None:
        with self._changed:
            self._waiting.append(frame)
            if len(self._waiting) > self._max_waiting:
                gone = self._waiting.popleft()
                self.dropped += 1
                if gone.begins:  # The next one begins instead.
                    following = self._waiting[0]
                    self._waiting[0] = LiveFrame(following.image, following.seconds, True)
            self._changed.notify()

    def _read(self, stopped: threading.Event) -> None:
        try:
            self._read_and_reconnect(stopped)
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify()

    def _read_and_reconnect(self, stopped: threading.Event) -> None:
        wait = 0.0

        def is_over() -> bool:
            if not stopped.is_set():
                self._inside = time.monotonic()
            return stopped.is_set()

        while not is_over():
            cause = "it ended"
            try:
                if self._scheme == "udp" and not any(thread.is_alive() for thread in self._stuck):
                    _refuse_taken(self._name)
                with opened_live(self._name, self._scheme, self._timeout) as container:
                    is_timed = has_timestamps(container)
                    for image, stamp in _pictures(container, self._timeout, is_over):
                        if stopped.is_set():
                            return
                        at = self._clock.seconds(stamp if is_timed else None)
                        self._put(LiveFrame(self._prepare(image), *at))
                        wait, self._last = 0.0, time.monotonic()
            except DecodeError as error:
                cause = error.cause
            except ffmpeg_errors() as error:
                cause = cause_of(error)
            if stopped.is_set():
                return
            self._inside = math.inf
            self._clock.lost()
            silent = time.monotonic() - self._last
            if self._give_up is not None and silent >= self._give_up:
                raise DecodeError(
                    self._address, f"no frame for {silent:.0f} seconds, the last reason: {cause}"
                )
            self.reconnects += 1
            self._say(f"{self._address}: {cause}; connecting again in {wait:g} s")
            stopped.wait(wait)
            wait = min(max(2 * wait, FIRST_WAIT), LONGEST_WAIT)


def grown_frames(path: str | Path, prepare: Prepare, timeout_seconds: float) -> Iterator[LiveFrame]:
    """The frames of a file that another process still writes; ends when it has not grown for
    timeout_seconds.

    Of formats that can be read from their beginning without their end: MPEG-TS, Matroska, FLV,
    fragmented MP4, ... Raises DecodeError for others. Nothing is dropped: the file keeps what is
    not read yet.
    """
    clock = _FileClock(timeout_seconds)
    if not is_local(str(path)) and not Path(path).exists():
        raise DecodeError(str(path), _WHAT_IS_LIVE)
    try:
        with (
            Path(path).open("rb", buffering=0) as file,
            opened_live(_Growing(file, timeout_seconds), "file", 2 * timeout_seconds) as container,
        ):
            for image, stamp in _pictures(container):
                yield LiveFrame(prepare(image), *clock.seconds(stamp))
    except DecodeError as error:
        raise DecodeError(str(path), error.cause) from None
    except ffmpeg_errors() as error:
        hint = "only a format that needs no end of the file can be followed, as MPEG-TS or Matroska"
        raise DecodeError(str(path), f"{cause_of(error)}; {hint}") from error


def is_live(source: object) -> bool:
    """Whether it is the name of a camera or a network address."""
    if isinstance(source, int):
        return True
    return isinstance(source, str) and (
        source.isdecimal()
        or source.startswith("/dev/video")
        or source.partition("://")[0].lower() in LIVE_PROTOCOLS
    )


def _opened_as(address: str) -> tuple[str, str]:
    """The name for FFmpeg, and the scheme. Raises DecodeError for others."""
    if address.isdecimal():
        return f"/dev/video{int(address)}", "camera"
    if address.startswith("/dev/video"):
        return address, "camera"
    scheme = address.partition("://")[0].lower()
    if scheme not in LIVE_PROTOCOLS:
        raise DecodeError(address, _WHAT_IS_LIVE)
    return scheme + address[len(scheme) :], scheme  # FFmpeg knows schemes in small letters only


def _refuse_taken(address: str) -> None:
    """Raise OSError if another program reads this port: one socket alone gets its datagrams, but
    those of a group."""
    parts = urlsplit(address)
    with suppress(ValueError):
        if ip_address(parts.hostname or "").is_multicast:
            return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", parts.port or 0))


def _pictures(
    container: Any,
    silence_seconds: float = math.inf,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Frames, float | None]]:
    """(uint8 (H, W, 3), seconds of its timestamp) until it `is_over`; damaged packets are skipped.

    All are turned as the first one, which is the rule of files, too. silence_seconds: the longest
    time of packets without a picture, those of sound among them. Raises DecodeError.
    """
    from av.video.reformatter import VideoReformatter

    stream, last = video_stream(container), time.monotonic()
    scaler: Any = VideoReformatter()
    orientation, damage = None, ""
    # Asked for the packets of one stream, PyAV waits for them however many others arrive.
    for packet in container.demux():
        frames: list[Any] = []
        if packet.stream is stream:
            try:
                frames, damage = packet.decode(), ""
            except ffmpeg_errors() as error:
                damage = cause_of(error)
        for frame in frames:
            last = time.monotonic()
            orientation = orientation or orientation_of(frame)
            pixels = scaler.reformat(frame, format="rgb24").to_ndarray()
            yield orientation.apply(pixels), frame.time
        if is_over():
            return
        if time.monotonic() - last > silence_seconds:
            why = damage or SLOWER
            raise DecodeError("", f"data arrives, but no picture for {silence_seconds:g} s ({why})")


class _Clock:
    """Converts the timestamps of a source that may restart to seconds since its first frame."""

    def __init__(self, timeout_seconds: float) -> None:
        self._start: float | None = None
        self._offset: float | None = None
        self._last, self._leap = 0.0, max(_LEAP_SECONDS, timeout_seconds)

    def lost(self) -> None:
        self._offset = None

    def seconds(self, stamp: float | None) -> tuple[float, bool]:
        """(seconds, whether a break precedes them). stamp None: this machine's clock."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        stamp = now if stamp is None else stamp
        begins = self._offset is None
        if self._offset is None or not 0 < stamp + self._offset - self._last < self._leap:
            here = now - self._start
            begins = begins or abs(here - self._last) > self._leap
            self._offset = max(here, self._last + _LEAST_STEP if here else 0.0) - stamp
        self._last = stamp + self._offset
        return self._last, begins


class _FileClock:
    """Seconds since the first frame of a file, by its timestamps alone: it may be read faster than
    it was recorded, so this machine's clock says nothing about it."""

    def __init__(self, timeout_seconds: float) -> None:
        self._leap = max(_LEAP_SECONDS, timeout_seconds)
        self._offset: float | None = None
        self._last, self._read = 0.0, time.monotonic()

    def seconds(self, stamp: float | None) -> tuple[float, bool]:
        """(seconds, whether a break precedes them). stamp None: as long after the last frame as it
        was read after it."""
        before, self._read = self._read, time.monotonic()
        if self._offset is None:
            self._offset = -(stamp or 0.0)
            return self._last, True
        soonest = self._last + _LEAST_STEP
        reached = self._last + self._read - before if stamp is None else stamp + self._offset
        starts_again = reached < self._last - _STEP_BACK_SECONDS
        if starts_again:
            self._offset += soonest - reached
        begins = starts_again or reached - self._last > self._leap
        self._last = max(reached, soonest)
        return self._last, begins


class _Growing:
    """A file object for FFmpeg: its end comes when the file has not grown for a while."""

    def __init__(self, file: Any, idle_seconds: float) -> None:
        self._file, self._idle = file, idle_seconds

    def read(self, size: int) -> bytes:
        give_up = time.monotonic() + self._idle
        while not (data := self._file.read(size)) and time.monotonic() < give_up:
            time.sleep(_POLL_SECONDS)
        self._idle = self._idle if data else 0.0  # FFmpeg asks several times for what has ended
        return data
