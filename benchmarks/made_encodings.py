"""Some 140 encodings of one scene: every codec, container and habit of cameras and editors that may
mislead a decoder.

Each is a clip of 36 frames, all of which differ. Encoders that this FFmpeg lacks are left out and
named on stderr.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np

NUM_FRAMES = 36


@dataclass(frozen=True)
class Encoding:
    """codec: FFmpeg's encoder. options, muxer: of encoder and container. stamps: when frame k is
    shown, in ticks."""

    name: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)
    rate: Fraction = Fraction(25)
    size: tuple[int, int] = (96, 64)
    pix_fmt: str = "yuv420p"
    stamps: str = "even"
    rotation: int = 0
    sound: bool = False
    aspect: Fraction | None = None


H265 = "log-level=none:pools=none"
CODECS = {  # of every pair with a container that holds it
    "h264": ("libx264", "bf=2:g=12"),
    "h264_no_b": ("libx264", "bf=0:g=12"),
    "h264_intra": ("libx264", "g=1"),
    "h264_open_gop": ("libx264", "x264-params=open-gop=1&keyint=12&bframes=3&b-adapt=0"),
    "hevc": ("libx265", f"x265-params=keyint=12&open-gop=0&bframes=3&{H265.replace(':', '&')}"),
    "hevc_open_gop": (
        "libx265",
        f"x265-params=keyint=12&open-gop=1&bframes=3&{H265.replace(':', '&')}",
    ),
    "mpeg4_g12": ("mpeg4", "g=12"),
    "mpeg4_b": ("mpeg4", "g=12:bf=2"),
    "mpeg2": ("mpeg2video", "g=12:bf=2"),
    "mpeg1": ("mpeg1video", "g=12:bf=2"),
    "mjpeg": ("mjpeg", ""),
    "vp8": ("libvpx", "g=12:deadline=realtime:cpu-used=8"),
    "vp9_fast": ("libvpx-vp9", "g=12:deadline=realtime:cpu-used=8"),
    "vp9_alt_ref": ("libvpx-vp9", "g=12:auto-alt-ref=1:lag-in-frames=8:cpu-used=8"),
    "av1": ("libsvtav1", "g=12:preset=12"),
}
H264 = ("h264", "h264_no_b", "h264_intra", "h264_open_gop")
HEVC = ("hevc", "hevc_open_gop")
MPEG4 = ("mpeg4_g12", "mpeg4_b")
CONTAINERS = {
    "mp4": (*H264, *HEVC, *MPEG4, "mpeg2", "mpeg1", "mjpeg", "vp9_fast", "vp9_alt_ref", "av1"),
    "mov": ("h264", "h264_open_gop", "hevc", *MPEG4, "mpeg2", "mjpeg"),
    "mkv": (*H264, *HEVC, *MPEG4, "mpeg2", "mjpeg", "vp8", "vp9_fast", "av1"),
    "avi": (*H264[:3], *MPEG4, "mpeg2", "mjpeg"),
    "ts": (*H264, *HEVC, "mpeg2", "mpeg1"),
    "flv": H264[:3],
    "webm": ("vp8", "vp9_fast", "vp9_alt_ref", "av1"),
    "mpg": ("mpeg1", "mpeg2"),
    "3gp": ("h264", "mpeg4_g12"),
}


def encodings() -> Iterator[Encoding]:
    for suffix, codecs in CONTAINERS.items():
        for codec in codecs:
            yield _encoding(f"{codec}.{suffix}", codec)
    for gop, b_frames in product((2, 5, 36, 250), (0, 1, 3)):
        yield Encoding(f"gop{gop}_b{b_frames}.mp4", "libx264", {"g": str(gop), "bf": str(b_frames)})
    for rate in ("24000/1001", "30000/1001", "30", "50", "60", "12", "5", "120", "1"):
        name = f"rate_{rate.replace('/', '_')}.mp4"
        yield Encoding(name, "libx264", {"g": "12"}, rate=Fraction(rate))
    for width, height in (
        (64, 96),
        (66, 50),
        (128, 72),
        (322, 242),
        (16, 16),
        (34, 18),
        (176, 144),
    ):
        yield Encoding(f"size_{width}x{height}.mp4", "libx264", {"g": "12"}, size=(width, height))
    for suffix, size in product(("mkv", "avi"), ((65, 49), (97, 64), (96, 63))):
        yield Encoding(f"odd_{size[0]}x{size[1]}.{suffix}", "mpeg4", {"g": "12"}, size=size)
    for pix_fmt in ("yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray"):
        yield Encoding(f"{pix_fmt}.mp4", "libx264", {"g": "12"}, pix_fmt=pix_fmt)
    for stamps, suffix in product(("late", "pause", "ramp", "jitter"), ("mp4", "mkv", "mov")):
        yield Encoding(f"times_{stamps}.{suffix}", "libx264", {"g": "12"}, stamps=stamps)
    for rotation, suffix in product((90, 180, 270), ("mp4", "mov")):
        yield Encoding(f"turned_{rotation}.{suffix}", "libx264", {"g": "12"}, rotation=rotation)
    for codec, suffix in product(("h264", "mpeg4_b", "hevc"), ("mp4", "mkv")):
        yield _encoding(f"sound_{codec}.{suffix}", codec, sound=True)
    for flags in ("frag_keyframe+empty_moov", "faststart", "frag_every_frame+empty_moov"):
        yield Encoding(
            f"{flags.partition('+')[0]}.mp4", "libx264", {"g": "12"}, {"movflags": flags}
        )
    for name, params in SETTINGS.items():
        yield Encoding(f"{name}.mp4", "libx264", {"x264-params": params})
    yield Encoding("aspect_4_3.mp4", "libx264", {"g": "12"}, aspect=Fraction(4, 3))
    yield Encoding("ffv1.mkv", "ffv1", {"g": "12"})
    yield Encoding("huffyuv.avi", "huffyuv", pix_fmt="yuv422p")
    yield Encoding("plain.gif", "gif", pix_fmt="rgb8", rate=Fraction(10))


SETTINGS = {  # of x264
    "slices": "slices=4:keyint=12",
    "intra_refresh": "intra-refresh=1:keyint=12",
    "interlaced": "tff=1:keyint=12",
    "b_pyramid": "b-pyramid=normal:bframes=4:b-adapt=0:keyint=12",
    "long_references": "ref=8:bframes=2:keyint=36",
    "scenecuts": "keyint=250:min-keyint=1:scenecut=100",
    "lossless": "qp=0:keyint=12",
}


def _encoding(name: str, codec: str, **others: Any) -> Encoding:
    encoder, text = CODECS[codec]
    options = dict(part.split("=", 1) for part in text.split(":") if part)
    options = {key: value.replace("&", ":") for key, value in options.items()}
    pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
    return Encoding(name, encoder, options, pix_fmt=pix_fmt, **others)


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A texture that moves, and a brightness that tells frames apart."""
    texture = np.random.default_rng(0).integers(30, 180, (9, 13, 3), np.uint8)
    scale = max(height // 8, width // 12) + 1
    texture = texture.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    return np.roll(texture, (2 * number, 3 * number), (0, 1)) + np.uint8(2 * number)


def _ticks(stamps: str, number: int) -> int:
    """In milliseconds, at 25 frames a second."""
    late = {
        "even": 0,
        "late": 1400,
        "pause": 900 * (number > 15),
        "ramp": number * number,
        "jitter": (7 * number) % 13,
    }
    return 40 * number + late[stamps]


def write_encoding(folder: Path, one: Encoding) -> Path:
    """Raises what PyAV raises for an encoder that is not there."""
    width, height = one.size
    path = folder / one.name
    with av.open(str(path), "w", options=one.muxer) as container:
        rate = one.rate if one.stamps == "even" else 25
        stream: Any = container.add_stream(one.codec, rate=rate, options=one.options)
        stream.width, stream.height, stream.pix_fmt = width, height, one.pix_fmt
        stream.codec_context.thread_count = 1
        if one.rotation:
            stream.set_display_rotation(one.rotation)
        if one.aspect:
            stream.sample_aspect_ratio = one.aspect
        if one.stamps != "even":
            stream.codec_context.time_base = Fraction(1, 1000)
        sound: Any = container.add_stream("aac", rate=16000) if one.sound else None
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            if one.stamps != "even":
                frame.pts, frame.time_base = _ticks(one.stamps, number), Fraction(1, 1000)
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(_silence(number)))
        container.mux(stream.encode())
        if sound is not None:
            container.mux(sound.encode())
    return path


def _silence(number: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
    frame.rate, frame.pts = 16000, 640 * number
    return frame


def write_encodings(folder: Path) -> list[Path]:
    """All that this FFmpeg can write."""
    written = []
    for one in encodings():
        try:
            written.append(write_encoding(folder, one))
        except (av.FFmpegError, ValueError, OSError) as error:
            (folder / one.name).unlink(missing_ok=True)
            print(f"  {one.name}: not written ({error})"[:120], file=sys.stderr)
        finally:
            # SVT-AV1 makes the thread of root that opens it, and all that it starts, real-time.
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return written
