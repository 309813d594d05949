"""Little videos whose frame k says k: bright blocks in its top row are the bits of k."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, BITS = 128, 96, 7


def picture(number: int) -> np.ndarray:
    """uint8 (96, 128, 3)."""
    texture = (
        np.random.default_rng(0).integers(60, 190, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    image = np.roll(texture, (2 * number, 3 * number), (0, 1))
    for bit in range(BITS):
        image[:16, bit * 16 : bit * 16 + 16] = 255 if number >> bit & 1 else 0
    return image


def numbers(frames: np.ndarray) -> list[int]:
    """(T, H, W, 3) -> the k that each frame says, at any size in which it is the right way up."""
    height, width = frames.shape[1] / HEIGHT, frames.shape[2] / WIDTH
    rows = slice(int(5 * height), int(11 * height))
    columns = [
        slice(int((bit * 16 + 5) * width), int((bit * 16 + 11) * width)) for bit in range(BITS)
    ]
    return [
        sum(1 << bit for bit in range(BITS) if frame[rows, columns[bit]].mean() > 128)
        for frame in frames
    ]


def write_clip(
    path: Path, num_frames: int = 30, *, codec: str = "libx264", rotation: int = 0, **options
) -> Path:
    """options: `options` and `container_options` for FFmpeg's encoder and muxer; `pts`: when frames
    are shown (ms)."""
    pts = options.get("pts", [40 * k for k in range(num_frames)])
    with av.open(str(path), "w", options=options.get("container_options", {})) as container:
        stream = container.add_stream(codec, rate=25, options=options.get("options", {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        if "pts" in options:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            if "pts" in options:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    # SVT-AV1 makes the thread of root that opens it, and all that it starts later, a real-time one.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path


def copy_packets(source: Path, target: Path, start: int = 0) -> Path:
    """Stream copy from packet `start` on, keeping its timestamps from 0: what cutting without
    re-encoding does."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        theirs = reader.streams.video[0]
        ours = writer.add_stream_from_template(theirs)
        packets = [packet for packet in reader.demux(theirs) if packet.dts is not None][start:]
        first = packets[0].dts
        for packet in packets:
            packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, ours
            writer.mux(packet)
    return target


def copy_contents(
    source: Path, target: Path, change: Callable[[list[bytes]], list[bytes | None]]
) -> Path:
    """The packets with changed contents at unchanged times; None leaves a packet out."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        theirs = reader.streams.video[0]
        ours = writer.add_stream_from_template(theirs)
        packets = [packet for packet in reader.demux(theirs) if packet.dts is not None]
        for old, content in zip(
            packets, change([bytes(packet) for packet in packets]), strict=True
        ):
            if content is not None:
                new = av.Packet(content)
                new.pts, new.dts, new.time_base, new.stream = old.pts, old.dts, old.time_base, ours
                new.is_keyframe, new.duration = old.is_keyframe, old.duration
                writer.mux(new)
    return target
