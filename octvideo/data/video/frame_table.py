"""The positions of a file's frames according to its packets, cached beside the file."""

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from octvideo.data.video.info import VideoInfo
from octvideo.data.video.packets import StreamMap

# Whether frames follow from packets, open_gop; stream, time base, last_duration, num_hidden; how
# long the arrays behind are: pts, restarts, packets, seconds.
_HEAD = struct.Struct("<??6x5q4q")
MAX_TABLE_BYTES = 128
"""Times the bytes of a file and one: a table has 48 for each packet, which has one at least."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """layout: what the packets prove. times: seconds of every frame from the first.

    stream_index, time_base: of the video stream, whose ticks the layout counts.
    """

    layout: StreamMap
    times: "array[float]"
    stream_index: int
    time_base: Fraction

    def keyframes(self) -> list[int]:
        """Numbers of the frames at which decoding may begin; none where the packets do not tell."""
        return np.searchsorted(self.layout.pts, self.layout.restarts).tolist()

    def encode(self) -> bytes:
        layout = self.layout
        packets = np.stack(layout.packets) if layout.packets else np.empty((4, 0), np.int64)
        # The seconds of frames that follow from packets follow from their ticks.
        times = np.array(self.times if layout.unclear else (), "<f8")
        head = _HEAD.pack(
            not layout.unclear,
            layout.open_gop,
            self.stream_index,
            *self.time_base.as_integer_ratio(),
            layout.last_duration,
            layout.num_hidden,
            *(len(layout.pts), len(layout.restart_places), packets.shape[1], len(times)),
        )
        numbers = np.concatenate([layout.pts, layout.restart_places, packets.ravel()])
        return head + numbers.astype("<i8").tobytes() + times.tobytes()


FindTable = Callable[[], FrameTable | None]


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file, and what is known of it before it is opened.

    content: its bytes, where they are in memory. find_table: reads what was kept of its packets;
    None where nothing was.
    """

    path: str
    info: VideoInfo
    content: bytes | None = None
    find_table: FindTable = lambda: None


def decode_table(data: bytes, info: VideoInfo) -> FrameTable:
    """Raises ValueError for bytes that `encode` has not written for a file with these frames."""
    if len(data) < _HEAD.size:
        raise ValueError("its frame table is cut short")
    is_clear, open_gop, stream, numerator, denominator, last, hidden, *lengths = _HEAD.unpack_from(
        data
    )
    num_frames, num_restarts, num_packets, num_times = lengths
    is_whole = len(data) == _HEAD.size + 8 * (
        num_frames + num_restarts + 4 * num_packets + num_times
    )
    counted = num_frames if is_clear else num_times
    if (
        min(lengths) < 0
        or not is_whole
        or counted != info.num_frames
        or numerator * denominator < 1
    ):
        raise ValueError("its frame table is of another file")
    time_base = Fraction(numerator, denominator)
    numbers = np.frombuffer(data, "<i8", offset=_HEAD.size).astype(np.int64)
    pts, places, packets, _ = np.split(
        numbers, np.cumsum([num_frames, num_restarts, 4 * num_packets])
    )
    if not is_clear:
        times = array("d", data[len(data) - 8 * num_times :])
        return FrameTable(StreamMap(unclear="says the index"), times, stream, time_base)
    if not num_restarts or places.min() < 0 or places.max() >= num_packets:
        raise ValueError("its frame table is of another file")
    columns = packets.reshape(4, num_packets)
    layout = StreamMap(
        pts=pts,
        restarts=columns[0][places],
        restart_places=places,
        packets=tuple(columns),
        open_gop=open_gop,
        num_hidden=hidden,
        last_duration=last,
    )
    times = array("d", layout.seconds(time_base).tobytes())
    return FrameTable(layout, times, stream, time_base)
