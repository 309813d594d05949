"""Reading with PyAV (FFmpeg): jumps where the packets prove that a jump is right, else a decode
from the beginning."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from octvideo.data.reading import DecodeError, still_reading
from octvideo.data.video.container import ffmpeg_errors, opened, video_stream
from octvideo.data.video.examine import STRICT, layout_of
from octvideo.data.video.frame_table import KnownFile
from octvideo.data.video.info import VideoInfo
from octvideo.data.video.packets import NO_TIME
from octvideo.data.video.video import Frames, Prepare


class PyAVEngine:
    """Decodes on from the last restart before a frame, or from the start where jumps cannot be
    trusted."""

    def __init__(self, file: KnownFile, short_side: int | None) -> None:
        self._path, self._info = file.path, file.info
        self._pixels = Pixels(file.info, file.info.stored_size(short_side))
        self._resources = ExitStack()
        self._container = self._resources.enter_context(opened(file.path))
        self._stream = video_stream(self._container)
        table = file.find_table()
        self._layout = table.layout if table else layout_of(self._container, file.info)
        # What a decoder conceals depends on the frames before: damage after a jump must be heard
        # of.
        self._stream.codec_context.options = STRICT

    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames:
        found = None
        if not self._layout.unclear:
            with suppress(*ffmpeg_errors()):
                found = self._jump(indices, prepare)
        found = found or self._walk(indices, prepare)
        return np.stack([found[index] for index in indices])

    def close(self) -> None:
        self._resources.close()

    def _jump(self, indices: Sequence[int], prepare: Prepare | None) -> dict[int, Frames] | None:
        """Frames known by their timestamps; None when one does not come by."""
        layout, found = self._layout, {}
        frames: Iterator[Any] = iter(())
        frame: Any = None
        place = None
        for index in sorted(set(indices)):
            wanted, restart = layout.pts[index], layout.restart_before(index)
            if place is None or layout.restarts[restart] > place:
                frames = self._frames_from(restart)
            for frame in frames:
                still_reading()
                place = frame.pts
                if place is None or place >= wanted or frame.is_corrupt:
                    break
            if place != wanted or frame.is_corrupt:
                return None
            found[index] = self._pixels.of(frame, prepare)
        return found

    def _frames_from(self, restart: int) -> Iterator[Any]:
        """Frames after a jump. Ends where a packet is not the one that follows in the file.

        An index may lead elsewhere than it says, and in AVI also decides which times the packets
        get from there on: both show when the packets are compared with those of reading the file
        from its beginning.
        """
        packets = self._layout.packets
        goal = int(self._layout.restart_places[restart])
        self._container.seek(int(self._layout.restarts[restart]), stream=self._stream)
        place = -1
        for packet in self._container.demux(self._stream):
            if packet.size:
                place = place + 1 if place >= 0 else _place_of(packet, packets, goal)
                if place < 0 or not _is_packet(packet, packets, place):
                    return
            yield from packet.decode()

    def _walk(self, indices: Sequence[int], prepare: Prepare | None) -> dict[int, Frames]:
        wanted, found, number = set(indices), {}, -1
        with opened(self._path) as container:
            for number, frame in enumerate(container.decode(video_stream(container))):
                still_reading()
                if number in wanted:
                    found[number] = self._pixels.of(frame, prepare)
                    if len(found) == len(wanted):
                        return found
        raise DecodeError(
            self._path, f"ends after {number + 1} frames; {self._info.num_frames} were announced"
        )


class Pixels:
    """Decoded frames as uint8 (H, W, 3), as displayed. One for many frames: a scaler of its own for
    each would start threads each time, which takes milliseconds on a busy machine."""

    def __init__(self, info: VideoInfo, size: tuple[int, int]) -> None:
        """size: (height, width) as stored, to which every frame is scaled."""
        from av.video.reformatter import VideoReformatter

        self._info, self._size = info, size
        self._scaler: Any = VideoReformatter()

    def of(self, frame: Any, prepare: Prepare | None = None) -> Frames:
        """The frame, `prepare`d."""
        height, width = self._size
        scaled = self._scaler.reformat(
            frame, width, height, format="rgb24", interpolation="BILINEAR"
        )
        pixels = self._info.orientation.apply(scaled.to_ndarray())
        return prepare(pixels) if prepare else pixels


def _facts(packet: Any) -> tuple[int, int, int, int]:
    pts, dts = (NO_TIME if time is None else time for time in (packet.pts, packet.dts))
    return pts, dts, -1 if packet.pos is None else packet.pos, packet.size


def _is_packet(packet: Any, packets: Any, place: int) -> bool:
    if place >= len(packets[0]):
        return False
    expected, found = [column[place] for column in packets], _facts(packet)
    # Matroska does not know the decoding time of the packets right after a jump.
    return all(expected[k] == found[k] for k in (0, 2, 3))


def _place_of(packet: Any, packets: Any, goal: int) -> int:
    """The index of a packet; -1 if no packet is at or before `goal`."""
    if _is_packet(packet, packets, goal):
        return goal
    same = np.ones(goal, np.bool_)
    for column, fact in zip(packets, _facts(packet), strict=True):
        same &= column[:goal] == fact
    places = np.flatnonzero(same)
    return int(places[-1]) if len(places) else -1
