"""Find the frames of a video stream from its packets, without decoding.

Frame k is the k-th frame of a sequential decode. A jump to it is right only if the packets prove
that every packet is one picture, that the picture is shown, and that nothing after a restart refers
to anything before it. Decoders do not check that; `map_stream` does, for H.264, H.265 and MPEG-4,
in 2 or 3 milliseconds for a 10 s video.
"""

from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octvideo.data.reading import still_reading
from octvideo.data.video.bits import Content
from octvideo.data.video.bitstream import Inspector
from octvideo.data.video.container import ffmpeg_errors, opened, video_stream

NO_TIME = -(1 << 63)
"""In a column: the packet has no such timestamp."""

Numbers = NDArray[np.int64]

_KEY, _HIDDEN, _DAMAGED = 1, 2, 4  # what the container says of a packet
_RESTART, _REORDERED, _GAP, _PLACED, _COUNTED = 8, 16, 32, 64, 128  # what is found in it


class PacketTable:
    """The packets of one stream in file order, a few numbers of each: 38 bytes a packet, whatever
    their size.

    last_duration: of the packet that is shown last, in ticks; 0 where it does not say. is_broken:
    reading packets ended with an error.
    """

    def __init__(self) -> None:
        self._columns = {name: array("q") for name in ("pts", "dts", "pos", "order")}
        self._columns["size"] = array("i")
        self._flags, self._pictures = bytearray(), array("b")
        self._last_shown, self.last_duration = NO_TIME, 0
        self.is_broken = False

    def __len__(self) -> int:
        return len(self._flags)

    def add(self, packet: Any, content: Content) -> None:
        """packet: of PyAV. content: what its bytes say."""
        numbers = (
            NO_TIME if packet.pts is None else packet.pts,
            NO_TIME if packet.dts is None else packet.dts,
            -1 if packet.pos is None else packet.pos,
            content.order or 0,
            packet.size,
        )
        for column, number in zip(self._columns.values(), numbers, strict=True):
            column.append(number)
        if numbers[0] >= self._last_shown:
            self._last_shown, self.last_duration = numbers[0], packet.duration or 0
        self._pictures.append(min(content.num_pictures, 100))
        self._flags.append(
            _KEY * packet.is_keyframe
            | _HIDDEN * packet.is_discard
            | _DAMAGED * packet.is_corrupt
            | _RESTART * content.is_restart
            | _REORDERED * content.is_reordered
            | _GAP * (not content.follows)
            | _PLACED * (content.order is not None)
            | _COUNTED * content.counts
        )

    def column(self, name: str) -> Numbers:
        """pts, dts, pos or order, int64 (packets,), or size, int32: a view. No packet can be added
        while there is one."""
        column = self._columns[name]
        return np.frombuffer(column, column.typecode)

    def has(self, flag: int) -> NDArray[np.bool_]:
        return np.frombuffer(self._flags, np.uint8) & flag > 0

    @property
    def pictures(self) -> NDArray[np.int8]:
        return np.frombuffer(self._pictures, np.int8)


def _none() -> Numbers:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class StreamMap:
    """pts: of the frames shown, in display order. restarts: pts at which decoding may begin,
    ascending.

    unclear: why frame numbers do not follow from the packets, "" when they do; then the rest is
    complete.
    packets: pts, dts, position and size of every packet in file order: by them a jump is checked.
    restart_places: which packets the restarts are. open_gop: keyframes that are no restart are
    present: some decoders jump to them all the same. num_hidden: packets that an edit list hides.
    last_duration: of the last frame, in ticks.
    """

    pts: Numbers = field(default_factory=_none)
    restarts: Numbers = field(default_factory=_none)
    restart_places: Numbers = field(default_factory=_none)
    packets: tuple[Numbers, ...] = ()
    unclear: str = ""
    open_gop: bool = False
    num_hidden: int = 0
    last_duration: int = 0

    def seconds(self, time_base: Fraction) -> NDArray[np.float64]:
        """When each frame is shown, from the first."""
        return (self.pts - self.pts[0]) * float(time_base)

    def restart_before(self, index: int) -> int:
        """The index of the last restart at or before a frame."""
        return int(np.searchsorted(self.restarts, self.pts[index], side="right")) - 1


def map_stream(table: PacketTable) -> StreamMap:
    """The map that the packets prove. An inspector of their codec must have read their contents."""
    if doubt := _doubt(table) or _doubt_of_numbers(table):
        return StreamMap(unclear=doubt)
    return _map(table, table.has(_RESTART))


def map_of_known(table: PacketTable) -> StreamMap:
    """The map of a file that was found clear before: every keyframe is a restart."""
    return _map(table, table.has(_KEY))


def _map(table: PacketTable, is_restart: NDArray[np.bool_]) -> StreamMap:
    pts, is_key, is_hidden = table.column("pts"), table.has(_KEY), table.has(_HIDDEN)
    places = np.flatnonzero(is_key & is_restart)
    places = places[np.argsort(pts[places], kind="stable")]
    return StreamMap(
        pts=np.sort(pts[~is_hidden]),
        restarts=pts[places],
        restart_places=places,
        packets=tuple(table.column(name) for name in ("pts", "dts", "pos", "size")),
        open_gop=bool((is_key & ~is_restart).any()),
        num_hidden=int(is_hidden.sum()),
        last_duration=table.last_duration,
    )


def _doubt(table: PacketTable) -> str:
    """Why packets and frames may not be the same in number and order, "" where they are."""
    pts, pictures = table.column("pts"), table.pictures
    shown = np.sort(pts[~table.has(_HIDDEN)])
    if table.is_broken or table.has(_DAMAGED).any() or (pictures < 0).any():
        return "damaged packets"
    if (pts == NO_TIME).any() or (shown[1:] == shown[:-1]).any():
        return "missing or repeated timestamps"
    if (pictures != 1).any():
        return "packets that are not one picture each"
    if table.has(_REORDERED).any():
        return "B pictures whose display order is not recorded"
    if not len(shown) or not table.has(_KEY)[0] or not table.has(_RESTART)[0]:
        return "no clean start"
    if pts.min() < pts[0]:
        return "frames before the first keyframe"
    return ""


def _doubt_of_numbers(table: PacketTable) -> str:
    """Why the numbers of the pictures contradict their order, "" if they do not."""
    if table.has(_GAP).any():
        return "missing pictures"
    # Few copies at a time: a video of hours has a million packets.
    shown = np.argsort(table.column("pts"), kind="stable")
    shown = shown[table.has(_PLACED)[shown]]
    restart = np.cumsum(table.has(_RESTART), dtype=np.int32)[shown]
    order = table.column("order")[shown]
    del shown
    is_next = (restart[1:] == restart[:-1]) & (order[1:] > order[:-1]) | (
        restart[1:] > restart[:-1]
    )
    if not is_next.all():
        return "timestamps of another order than the pictures"
    counts = len(table) and table.has(_COUNTED)[0]
    if counts and ((order[1:] != 0) & (order[1:] != order[:-1] + 1)).any():
        return "missing pictures"
    return ""


def index_differs(path: str, container: Any, layout: StreamMap) -> bool:
    """Whether the container's index would lead a decoder elsewhere than to the restarts.

    FFmpeg reads Matroska's cues when it first seeks, and adds the keyframes that it reads: both
    must be the restarts. An AVI has an entry for every packet, by which its packets are counted
    after a jump.
    """
    stream = video_stream(container)
    pts, dts, positions, _ = layout.packets
    clock = pts if "matroska" in container.format.name else dts
    before = _marked(stream)
    if container.format.name == "avi":
        entries = array("q", (entry.pos + 8 for entry in stream.index_entries))  # name and size
        if not np.array_equal(entries, positions):
            return True
    container.seek(int(layout.restarts[-1]), stream=stream)
    after = _marked(stream)
    restarts = np.unique(clock[layout.restart_places])
    is_true = np.array_equal(after, before) and np.array_equal(np.unique(after[0]), restarts)
    return not (is_true and _are_cues_true(path, container, after))


def _are_cues_true(path: str, container: Any, met: Numbers) -> bool:
    """Whether Matroska's cues name every keyframe met, and where; others have none."""
    if "matroska" not in container.format.name:
        return True
    with opened(path, probes=False) as fresh:
        stream = video_stream(fresh)
        fresh.seek(int(met[0].min()), stream=stream)
        return np.array_equal(_marked(stream), met)


def _marked(stream: Any) -> Numbers:
    """Timestamps and positions of the keyframes in the index: int64 (2, keyframes)."""
    found = array("q")
    for entry in stream.index_entries:
        if entry.is_keyframe:
            found.extend((entry.timestamp, entry.pos))
    return np.frombuffer(found, np.int64).reshape(-1, 2).T


def look_through(
    container: Any, inspect: Inspector | None, *, first_frame: bool = False
) -> tuple[PacketTable, Any]:
    """All packets of the first video stream, and if asked its first frame, where alone PyAV tells
    the orientation.

    inspect None: the contents are not looked at.
    """
    errors = ffmpeg_errors()
    nothing = Content(0)
    table, first = PacketTable(), None
    try:
        for packet in container.demux(video_stream(container)):
            still_reading()
            if first_frame and first is None:
                with suppress(*errors):
                    first = next(iter(packet.decode()), None)
            if packet.size:
                table.add(packet, inspect(bytes(packet)) if inspect else nothing)
    except errors:
        table.is_broken = True
    return table, first
