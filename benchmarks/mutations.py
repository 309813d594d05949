"""Damage that knows what it damages: boxes of mp4, elements of Matroska, chunks of AVI, packets of
a transport stream, and coded pictures that are dropped, doubled, swapped or changed. Everything
follows from a seed."""

import random
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUM_FRAMES, WIDTH, HEIGHT = 24, 96, 64

GOOD = {  # name -> codec, options of the encoder, options of the container
    "plain.mp4": ("libx264", {"g": "8", "bf": "2"}, {}),
    "fragments.mp4": ("libx264", {"g": "8"}, {"movflags": "frag_keyframe+empty_moov"}),
    "open_gop.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=8:bframes=2"}, {}),
    "part2.mov": ("mpeg4", {"g": "8"}, {}),
    "h265.mp4": ("libx265", {"x265-params": "keyint=8:open-gop=0:log-level=none:pools=none"}, {}),
    "plain.mkv": ("libx264", {"g": "8", "bf": "2"}, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "8", "cpu-used": "8", "deadline": "realtime"}, {}),
    "part2.avi": ("mpeg4", {"g": "8"}, {}),
    "b_frames.avi": ("mpeg4", {"g": "8", "bf": "2"}, {}),
    "plain.ts": ("libx264", {"g": "8", "bf": "2"}, {}),
    "plain.flv": ("libx264", {"g": "8"}, {}),
}

Part = tuple[int, int]
"""Where something with a header begins, and its length."""
Damage = Callable[[bytearray, random.Random], None]


def write_good(folder: Path) -> dict[str, bytes]:
    """The files that are damaged, each with a texture that moves and a brightness that tells frames
    apart."""
    texture = np.random.default_rng(0).integers(40, 200, (8, 12, 3), np.uint8)
    texture = texture.repeat(8, 0).repeat(8, 1)
    good = {}
    for name, (codec, options, container_options) in GOOD.items():
        with av.open(str(folder / name), "w", options=container_options) as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(NUM_FRAMES):
                image = np.roll(texture, (2 * number, 3 * number), (0, 1)) + np.uint8(2 * number)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        good[name] = (folder / name).read_bytes()
    return good


def mutant(good: dict[str, bytes], number: int, folder: Path) -> tuple[str, str, bytes]:
    """(name of the good file, what was done to it, its bytes)."""
    draw = random.Random(number)
    name = draw.choice(list(good))
    data = bytearray(good[name])
    kind = draw.choice(["container", "container", "pictures", "bytes"])
    if kind == "pictures":
        what, changed = _change_pictures(bytes(data), name, draw, folder)
        return name, what, changed
    parts = list(_PARTS[name.rpartition(".")[2]](data)) if kind == "container" else []
    damages = [(name, damage) for name, damage in _OF_PARTS.items() if parts]
    damages = damages or list(_OF_BYTES.items())
    what, damage = draw.choice(damages)
    for _ in range(draw.choice([1, 1, 2, 5])):
        part = draw.choice(parts) if parts else (0, 0)
        if max(100, sum(part)) > len(data):
            break  # too much has been cut away
        damage(data, draw, part) if parts else damage(data, draw)
    return name, what, bytes(data)


_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"mfra"}


def _boxes(data: bytearray, start: int = 0, end: int | None = None) -> Iterator[Part]:
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        if size < 8 or start + size > end:
            return
        if name != b"mdat":
            yield start, size
        if name in _BOXES:
            yield from _boxes(data, start + 8, start + size)
        start += size


_MASTERS = {
    b"\x18\x53\x80\x67",
    b"\x1f\x43\xb6\x75",
    b"\x16\x54\xae\x6b",
    b"\xae",
    b"\x1c\x53\xbb\x6b",
}
_MASTERS |= {b"\xbb", b"\xb7", b"\x11\x4d\x9b\x74", b"\x4d\xbb", b"\x15\x49\xa9\x66", b"\xe0"}


def _elements(data: bytearray, start: int = 0, end: int | None = None) -> Iterator[Part]:
    """Of EBML: an id whose first byte tells its length, a size likewise, and the payload."""
    end = len(data) if end is None else end
    while start + 2 <= end and data[start]:
        id_length = 9 - data[start].bit_length()
        at = start + id_length
        if at >= end or not data[at]:
            return
        size_length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + size_length], "big") & ((1 << 7 * size_length) - 1)
        first = at + size_length
        last = min(first + size, end)
        # Of a block, the header matters: the number of its track, its time, its flags.
        yield start, min(last - start, 24)
        if bytes(data[start:at]) in _MASTERS:
            yield from _elements(data, first, last)
        start = first + size


def _chunks(data: bytearray, start: int = 0, end: int | None = None) -> Iterator[Part]:
    end = len(data) if end is None else end
    while start + 8 <= end:
        name, size = struct.unpack("<4sI", data[start : start + 8])
        is_list = name in (b"RIFF", b"LIST")
        yield start, min(8 + size, 12 if is_list else 24 if name == b"00dc" else 8 + size)
        if is_list:
            yield from _chunks(data, start + 12, min(start + 8 + size, end))
        start += 8 + size + size % 2


def _ts_packets(data: bytearray) -> Iterator[Part]:
    return ((start, 188) for start in range(0, len(data) - 187, 188))


def _flv_tags(data: bytearray) -> Iterator[Part]:
    start = 13
    while start + 11 <= len(data):
        size = int.from_bytes(data[start + 1 : start + 4], "big")
        yield start, 11 + min(size, 8)
        start += 11 + size + 4


_PARTS: dict[str, Callable[[bytearray], Iterator[Part]]] = {
    "mp4": _boxes,
    "mov": _boxes,
    "mkv": _elements,
    "webm": _elements,
    "avi": _chunks,
    "ts": _ts_packets,
    "flv": _flv_tags,
}


def _change_a_byte(data: bytearray, draw: random.Random, part: Part) -> None:
    data[part[0] + draw.randrange(part[1])] = draw.choice([0, 1, 255, draw.randrange(256)])


def _change_the_header(data: bytearray, draw: random.Random, part: Part) -> None:
    data[part[0] + draw.randrange(min(part[1], 8))] ^= 1 << draw.randrange(8)


def _change_a_number(data: bytearray, draw: random.Random, part: Part) -> None:
    at = part[0] + draw.randrange(max(part[1] - 4, 1))
    number = draw.choice([0, 1, 2, 0xFFFFFFFF, 0x7FFFFFFF, draw.randrange(1 << 16)])
    if at + 4 <= len(data):
        data[at : at + 4] = struct.pack(draw.choice([">I", "<I"]), number)


def _rename(data: bytearray, draw: random.Random, part: Part) -> None:
    data[part[0] + 4 : part[0] + 8] = draw.choice([b"free", b"JUNK", b"stts", b"\xec\x80\0\0"])


def _empty(data: bytearray, draw: random.Random, part: Part) -> None:
    data[part[0] + 8 : part[0] + part[1]] = bytes(max(part[1] - 8, 0))


def _drop(data: bytearray, draw: random.Random, part: Part) -> None:
    if part[1] < len(data) // 2:
        del data[part[0] : part[0] + part[1]]


def _double(data: bytearray, draw: random.Random, part: Part) -> None:
    data[part[0] : part[0]] = data[part[0] : part[0] + part[1]]


_OF_PARTS = {
    "a byte of a part": _change_a_byte,
    "a header of a part": _change_the_header,
    "a number in a part": _change_a_number,
    "a part renamed": _rename,
    "a part emptied": _empty,
    "a part dropped": _drop,
    "a part doubled": _double,
}


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 30)):
        data[draw.randrange(len(data))] = draw.randrange(256)


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def _overwrite(data: bytearray, draw: random.Random) -> None:
    start, length = draw.randrange(len(data)), draw.randrange(1, 2000)
    data[start : start + length] = draw.choice([bytes(length), draw.randbytes(length)])


def _leave_out(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.randrange(1, 500)]


_OF_BYTES = {
    "bytes changed": _flip,
    "cut off": _cut,
    "a stretch overwritten": _overwrite,
    "a stretch left out": _leave_out,
}


def _change_pictures(
    data: bytes, name: str, draw: random.Random, folder: Path
) -> tuple[str, bytes]:
    """The packets of the file changed one by one and muxed anew."""
    source, target = folder / f"source_{name}", folder / f"target_{name}"
    source.write_bytes(data)
    what = draw.choice(
        ["dropped", "doubled", "swapped", "header changed", "zeros inside", "keyframe mark moved"]
    )
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        theirs = reader.streams.video[0]
        ours = writer.add_stream_from_template(theirs)
        packets = [
            [bytes(packet), packet.pts, packet.dts, packet.is_keyframe]
            for packet in reader.demux(theirs)
            if packet.size and packet.dts is not None
        ]
        _change(packets, what, draw)
        for content, pts, dts, is_key in packets:
            packet = av.Packet(content)
            packet.stream, packet.time_base = ours, theirs.time_base
            packet.pts, packet.dts, packet.is_keyframe = pts, dts, is_key
            packet.duration = round(Fraction(1, 25) / theirs.time_base)
            try:
                writer.mux(packet)
            except (av.FFmpegError, ValueError):
                break
    return f"picture {what}", target.read_bytes()


def _change(packets: list[list[object]], what: str, draw: random.Random) -> None:
    for _ in range(draw.choice([1, 1, 3])):
        k = draw.randrange(len(packets) - 1)
        content = bytearray(packets[k][0])  # type: ignore[call-overload]
        if what == "dropped":
            del packets[k]
        elif what == "doubled":
            packets[k + 1][0] = packets[k][0]
        elif what == "swapped":
            packets[k][0], packets[k + 1][0] = packets[k + 1][0], packets[k][0]
        elif what == "keyframe mark moved":
            packets[k][3] = not packets[k][3]
        elif what == "header changed":
            content[draw.randrange(min(12, len(content)))] ^= 1 << draw.randrange(8)
            packets[k][0] = bytes(content)
        else:
            start = len(content) // 2
            content[start : start + 20] = bytes(len(content[start : start + 20]))
            packets[k][0] = bytes(content)
