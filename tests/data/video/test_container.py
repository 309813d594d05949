"""What is opened: files in listed containers, by any name that a file can have, and nothing that
they point to."""

import os
import socket
import zipfile
from contextlib import closing
from itertools import count
from pathlib import Path

import av
import numpy as np
import pytest
from coded_videos import HEIGHT, WIDTH, numbers, picture, write_clip
from PIL import Image

from octvideo.data import DecodeError, iter_frames, open_video, probe, read_frames, reading
from octvideo.data.reading import stuck_here
from octvideo.data.video.decode import look_at
from octvideo.data.video.decord_engine import DecordEngine
from octvideo.data.video.encode import write_video
from octvideo.data.video.frame_folders import open_frames
from octvideo.data.video.frame_table import KnownFile
from octvideo.data.video.video import read_prepared


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 12, options={"g": "6"})


NAMES = [
    "2024-01-05T10:30:00.mp4",
    "clip:1.mp4",
    "http:x.mp4",
    "pipe:0",
    "concat:a.mp4|b.mp4",
    "-i.mp4",
    "frame_%03d.mp4",
    "file:a.mp4",
    "subfile,,start,0,end,0,,:a.mp4",
    "with space\nand line.mp4",
    "ümlaut 视频.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(clip.read_bytes())

    for path in (name, f"./{name}", tmp_path / name):
        assert numbers(read_frames(path, [7, 2])) == [7, 2]
        assert numbers(np.stack([*iter_frames(path)])) == list(range(12))
    assert probe(name).num_frames == 12
    with closing(DecordEngine(KnownFile(name, probe(name)), None)) as engine:
        assert numbers(engine.read([7])) == [7]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name_in_writing(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    write_video(name, np.zeros((3, 32, 32, 3), np.uint8), sound_of=clip)

    assert os.listdir(tmp_path) == [name]  # noqa: PTH208
    assert probe(name).num_frames == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile {clip}\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {clip}\n"),
        (
            "live.mp4",
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n",
        ),
        ("live.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"),
        (
            "call.sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ),
        ("feed.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'),
        ("meta.mp4", ";FFMETADATA1\ntitle=x\n"),
    ],
)
def test_files_that_point_to_others_are_not_followed(clip, tmp_path, name, content):
    (tmp_path / name).write_text(content.format(clip=clip))

    for read in (probe, lambda path: read_frames(path, [0]), lambda path: [*iter_frames(path)]):
        with pytest.raises(DecodeError, match=name):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["000.png", "img_%03d.png", "picture.mp4"])
def test_still_pictures_are_no_videos(tmp_path, name):
    from PIL import Image

    for k in range(3):
        Image.new("RGB", (64, 64)).save(tmp_path / f"img_{k:03d}.png")
    Image.new("RGB", (64, 64)).save(tmp_path / name, format="PNG")

    with pytest.raises(DecodeError):
        read_frames(tmp_path / name, [0])


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (os.mkfifo, "a pipe, a socket or a device"),
        (unix_socket, "a pipe, a socket or a device"),
        (os.mkdir, "this is a folder"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe, a socket or a device"),
        (lambda path: path.symlink_to("/proc/self/mem"), "the file is empty"),
        (lambda path: path.symlink_to(path), "Too many levels"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, make, cause):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    make(Path("it.mp4"))

    for read in (probe, lambda path: read_frames(path, [0]), lambda path: [*iter_frames(path)]):
        with pytest.raises(DecodeError, match=rf"it\.mp4: .*{cause}"):
            read("it.mp4")


def test_a_name_that_no_file_can_have_is_an_error():
    for read in (probe, lambda path: read_frames(path, [0]), lambda path: [*iter_frames(path)]):
        with pytest.raises(DecodeError, match="holds a NUL"):
            read("a\0b.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "suffix"),
    [
        ("dump.mp4", "libx264", "h264"),
        ("dump.h264", "libx264", "h264"),
        ("dump.265", "libx265", "hevc"),
        ("dump.mp4", "libsvtav1", "obu"),
        ("dump.mpg", "mpeg2video", "m2v"),
    ],
)
def test_raw_streams_are_read(tmp_path, name, codec, suffix):
    options = {"g": "8"} if codec != "libsvtav1" else {"preset": "12"}
    path = write_clip(tmp_path / f"raw.{suffix}", 40, codec=codec, options=options)
    path = path.rename(tmp_path / name)

    with open_video(path) as video:
        assert video.info.num_frames == 40
        assert numbers(video.read([39, 3, 17])) == [39, 3, 17]


def test_a_zip_that_says_it_is_a_video_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.mp4", "w") as file:
        file.writestr("x", "y" * 1000)

    with pytest.raises(DecodeError, match=r"a\.mp4: Invalid data"):
        read_frames(tmp_path / "a.mp4", [0])


def test_a_video_that_gives_frames_is_not_stuck(tmp_path, monkeypatch):
    path = tmp_path / "long.mp4"
    write_video(path, np.zeros((20, 32, 48, 3), np.uint8))
    clock = iter(range(10_000))
    monkeypatch.setattr("octvideo.data.reading.time.monotonic", lambda: float(next(clock)))

    stuck = [stuck_here(10) for _ in iter_frames(path)]

    assert stuck == [""] * 20


@pytest.fixture
def ticks(monkeypatch):
    """The number of times that the clock of the file in hand was started, roughly."""
    clock = count(1)
    monkeypatch.setattr("octvideo.data.reading.time.monotonic", lambda: float(next(clock)))
    return lambda: reading._note.since


@pytest.mark.parametrize("name", ["jump.mp4", "walk.webm"])
def test_a_long_way_to_a_frame_is_not_stuck(tmp_path, ticks, name):
    """VP9's packets prove nothing: every read walks from the first frame."""
    path, codec = tmp_path / name, "libx264" if name.endswith("mp4") else "libvpx-vp9"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "99", "deadline": "realtime"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(20):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    seen = []

    with open_video(path, backend="pyav") as video:
        seen.append(ticks())
        video.read([19], lambda frame: seen.append(ticks()) or frame)

    assert seen[0] >= 20
    assert seen[1] - seen[0] >= 20


def test_pictures_and_batches_of_frames_start_the_clock_anew(tmp_path, ticks):
    for k in range(20):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{k}.png")

    with open_frames(tmp_path, 20) as folder:
        folder.read(range(20))
        after_pictures = ticks()
        read_prepared(lambda chosen: np.zeros((len(chosen), 2, 2, 3)), range(80), lambda f: f)
        after_batches = ticks()

    assert after_pictures >= 20
    assert after_batches - after_pictures >= 10


def test_a_download_is_not_timed_as_reading(tmp_path, monkeypatch):
    path, address = tmp_path / "a.mp4", "https://nowhere/a.mp4"
    write_video(path, np.zeros((2, 32, 48, 3), np.uint8))
    clocks = []

    def fetch(_):
        clocks.append(reading._note.since)
        return str(path)

    monkeypatch.setattr("octvideo.data.video.decode.local_path", fetch)

    read_frames(address, [0])
    list(iter_frames(address))

    assert clocks == [0.0, 0.0]
    monkeypatch.setitem(reading.known_bad, address, "it hung")
    with pytest.raises(DecodeError, match="it hung"):
        read_frames(address, [0])
    assert len(clocks) == 2


def _covered(path: Path, num_frames: int) -> Path:
    """An mp4 whose cover FFmpeg lists as its first stream; without frames it has sound alone."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        (cover.height, cover.width), cover.pix_fmt = (80, 80), "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25) if num_frames else None
        if stream:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=16000)
        image = av.VideoFrame.from_ndarray(np.full((80, 80, 3), 99, np.uint8), "rgb24")
        container.mux([*cover.encode(image), *cover.encode()])
        if stream:
            for number in range(num_frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
            container.mux(stream.encode())
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), "fltp", "mono")
        heard.sample_rate, heard.pts = 16000, 0
        container.mux([*sound.encode(heard), *sound.encode()])
    content = path.read_bytes()
    at = content.index(b"moov") - 4
    end, boxes, place = at + int.from_bytes(content[at : at + 4], "big"), [], at + 8
    while place < end:
        size = int.from_bytes(content[place : place + 4], "big")
        boxes.append(content[place : place + size])
        place += size
    first = [box for box in boxes if box[4:8] in (b"mvhd", b"udta")]
    rest = [box for box in boxes if box not in first]
    path.write_bytes(content[: at + 8] + b"".join([*first, *rest]) + content[end:])
    return path


def test_a_cover_in_front_of_a_video_is_none_of_its_frames(tmp_path):
    path = _covered(tmp_path / "covered.mp4", 12)
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "video", "audio"]
        assert container.streams.video[0].codec_context.name == "mjpeg"

    info, times = look_at(path)

    assert (info.num_frames, info.width, info.height, len(times)) == (12, WIDTH, HEIGHT, 12)
    assert (info.codec, info.backend) == ("h264", "pyav")  # decord chooses its stream by itself
    assert probe(path) == info
    assert numbers(read_frames(path, [7, 0, 11])) == [7, 0, 11]
    assert numbers(np.stack(list(iter_frames(path)))) == list(range(12))


def test_sound_with_a_cover_is_no_video(tmp_path):
    with pytest.raises(DecodeError, match="no video stream in it, only a cover picture"):
        probe(_covered(tmp_path / "song.mp4", 0))
