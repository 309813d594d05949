"""Where the container marks keyframes that are none, or leads elsewhere: the file is PyAV's, and
its frames exact."""

import random
import struct
from contextlib import closing

import av
import numpy as np
import pytest
from coded_videos import numbers, write_clip

from octvideo.data import DecodeError, open_video, read_frames
from octvideo.data.video.decord_engine import DecordEngine
from octvideo.data.video.frame_table import KnownFile
from octvideo.data.video.packets import StreamMap

CODED = {"options": {"g": "12", "bf": "2"}}


def sequence(path):
    """The numbers that a sequential decode shows; nothing of octvideo takes part."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return numbers(np.stack(frames))


def without_sync_table(data):
    return data.replace(b"stss", b"free")


def marked_elsewhere(data):
    """The sync table names samples 2, 14, ... instead of 1, 13, ..."""
    data = bytearray(data)
    at = data.index(b"stss") + 8
    (count,) = struct.unpack(">I", data[at : at + 4])
    for k in range(1, count):
        place = at + 4 + 4 * k
        (sample,) = struct.unpack(">I", data[place : place + 4])
        data[place : place + 4] = struct.pack(">I", sample + 1)
    return bytes(data)


def every_fragment_sample_a_keyframe(data):
    """Flags of samples (trun, tfhd, trex): "depends on others" and "no sync sample" are cleared."""
    return data.replace(b"\x01\x01\x00\x00", b"\x02\x00\x00\x00")


def cue_moved(data):
    """The time of the second cue is that of another frame."""
    at = data.index(b"\x1c\x53\xbb\x6b")
    cues = [
        k for k in range(at, len(data) - 3) if data[k : k + 1] == b"\xb3" and data[k + 1] == 0x82
    ]
    data = bytearray(data)
    data[cues[1] + 2 : cues[1] + 4] = struct.pack(">H", 40 * 17)
    return bytes(data)


def cue_of_another_track(data):
    """The second cue says that it is not for track 1."""
    at = data.index(b"\x1c\x53\xbb\x6b")
    tracks = [k for k in range(at, len(data)) if data[k : k + 3] == b"\xf7\x81\x01"]
    data = bytearray(data)
    data[tracks[1] + 2] = 3
    return bytes(data)


def index_key_moved(data):
    """AVI: the entry behind a keyframe's is marked instead of it."""
    data = bytearray(data)
    entries = data.rindex(b"idx1") + 8
    data[entries + 16 * 12 + 4], data[entries + 16 * 13 + 4] = 0, 0x10
    return bytes(data)


def index_without_a_frame(data):
    """AVI: the entry of a frame behind the last keyframe is another stream's."""
    data = bytearray(data)
    entry = data.rindex(b"idx1") + 8 + 16 * 50
    data[entry : entry + 4] = b"ix00"
    return bytes(data)


DAMAGED = {
    "no_stss.mp4": (CODED, without_sync_table),
    "no_stss.mov": (CODED, without_sync_table),
    "false_stss.mp4": (CODED, marked_elsewhere),
    "fragments.mp4": (
        CODED | {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
        every_fragment_sample_a_keyframe,
    ),
    "cue.mkv": ({"options": {"g": "12"}}, cue_moved),
    "track.mkv": ({"options": {"g": "12"}}, cue_of_another_track),
    "index.avi": ({"codec": "mpeg4", "options": {"g": "12"}}, index_key_moved),
    "entry.avi": ({"codec": "mpeg4", "options": {"g": "12"}}, index_without_a_frame),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_frames_are_those_asked_for_whatever_the_index_says(tmp_path, name):
    options, change = DAMAGED[name]
    whole = write_clip(tmp_path / f"whole_{name}", 60, **options)
    path = tmp_path / name
    path.write_bytes(change(whole.read_bytes()))
    assert path.read_bytes() != whole.read_bytes()
    want = [41, 3, 28, 17, 50, 59, 0, 24]

    expected = sequence(path)

    with open_video(path) as video:
        reason = "fragmented" if "fragments" in name else "an index of other keyframes"
        assert video.info.reason == reason
        assert numbers(video.read(want)) == [expected[k] for k in want]
    for k in want:
        assert numbers(read_frames(path, [k])) == [expected[k]]
    with pytest.raises(DecodeError, match="decord would give wrong frames"):
        read_frames(path, want, backend="decord")


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_true_index_keeps_the_file_with_decord(tmp_path, name):
    path = write_clip(tmp_path / name, 60, **CODED)
    want = random.Random(0).choices(range(60), k=20)

    with open_video(path) as video:
        assert (video.info.backend, video.info.reason) == ("decord", "")

    with closing(DecordEngine(KnownFile(str(path), video.info), None)) as engine:
        assert numbers(engine.read(want)) == want


@pytest.mark.parametrize("name", ["a.ts", "a.flv", "a.h264"])
def test_containers_whose_index_cannot_be_compared_are_for_pyav(tmp_path, name):
    path = write_clip(tmp_path / name, 40, **CODED)

    with open_video(path) as video:
        assert video.info.backend == "pyav"
        assert numbers(video.read([39, 3, 17])) == [39, 3, 17]


CHANGES = (*((-8, 17), (0, 4), (0, 8), (-1, 17), (2, 17), (-40, 100), (0, 200), (8, 4), (8, 40)),)


@pytest.mark.parametrize("chunk", [3, 11, 12, 13, 25, 41, 58])
def test_a_damaged_avi_has_one_clock(tmp_path, chunk):
    """Zeros over a chunk: an index counts it, a sequential decode may not."""
    data = write_clip(tmp_path / "a.avi", 60, codec="mpeg4", options={"g": "12"}).read_bytes()
    places, at, end = [], data.index(b"movi"), data.index(b"idx1")
    while 0 <= (at := data.find(b"00dc", at + 1)) < end:
        places.append(at)
    for offset, length in CHANGES:
        damaged = bytearray(data)
        start = places[chunk] + offset
        damaged[start : start + length] = bytes(length)
        path = tmp_path / f"{offset}_{length}.avi"
        path.write_bytes(damaged)
        try:
            expected = sequence(path)
            with open_video(path) as video:
                count = video.info.num_frames
            found = [numbers(read_frames(path, [k]))[0] for k in range(0, count, 3)]
        except (DecodeError, av.FFmpegError):
            continue
        assert found == expected[::3], (offset, length)


def test_decoding_begins_at_the_last_restart_that_is_not_behind_the_frame():
    layout = StreamMap(pts=np.arange(10) * 3, restarts=np.array([0, 12, 24]))

    assert [layout.restart_before(k) for k in range(10)] == [0] * 4 + [1] * 4 + [2] * 2
