"""Packets that are whole one by one, but missing, in the wrong place or wrong inside: a sequential
decode decides."""

import random
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

import av
import numpy as np
import pytest
from coded_videos import HEIGHT, WIDTH, copy_contents, numbers, write_clip

from octvideo.data import DecodeError, open_video, probe, read_frames
from octvideo.data.video.bitstream import inspector
from octvideo.data.video.container import opened
from octvideo.data.video.packets import look_through
from octvideo.data.video.pyav_engine import PyAVEngine

ENCODERS = {
    "plain.mp4": {"options": {"g": "10", "bf": "2"}},
    "no_b.mkv": {"options": {"g": "8", "bf": "0"}},
    "slices.mov": {"options": {"x264-params": "slices=2:keyint=10:bframes=2"}},
    "interlaced.mp4": {"options": {"x264-params": "tff=1:keyint=10:bframes=2"}},
    "part2.avi": {"codec": "mpeg4", "options": {"g": "10"}},
    "h265.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=10:bframes=2:open-gop=0:pools=none:log-level=none"},
    },
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """name -> path of a file of thirty frames, keyframes at 0, 10 and 20 (8, 16, 24 without B
    pictures)."""
    folder = tmp_path_factory.mktemp("sound")
    return lru_cache(lambda name: write_clip(folder / name, **ENCODERS[name]))


@pytest.mark.parametrize(
    ("codec", "parameters", "reason"),
    [
        ("libx264", "cqm=jvt:keyint=10", ""),
        ("libx264", "b-pyramid=normal:bframes=4:b-adapt=0:ref=4:keyint=12", ""),
        (
            "libx265",
            "temporal-layers=3:bframes=4:open-gop=0:repeat-headers=1:log-level=0",
            "codec hevc",
        ),
        ("libx265", "scaling-list=default:keyint=10:open-gop=0:log-level=0", "codec hevc"),
    ],
)
def test_sound_pictures_are_not_doubted(tmp_path, codec, parameters, reason):
    path = write_clip(
        tmp_path / "sound.mp4", codec=codec, options={f"{codec[3:]}-params": parameters}
    )

    assert probe(path).reason == reason
    assert_frames_of_a_sequential_decode(path)


@pytest.mark.parametrize(
    ("name", "num_bits"), [("plain.mp4", 8), ("no_b.mkv", 8), ("part2.avi", 0), ("h265.mp4", 16)]
)
def test_a_picture_whose_header_makes_decoders_pass_over_it_is_not_counted(
    tmp_path, sound, name, num_bits
):
    """Bits of the unit's header behind its length; of part 2 the marker bits around the time."""
    path = sound(name)
    places = [32 + bit for bit in range(num_bits)] or [35, 41]

    for place in places:

        def change(contents, place=place):
            data = bytearray(contents[5])
            data[place // 8] ^= 128 >> place % 8
            return [*contents[:5], bytes(data), *contents[6:]]

        damaged = copy_contents(path, tmp_path / f"{place}_{name}", change)
        with suppress(DecodeError), open_video(damaged) as video:
            assert video.info.num_frames == probe(damaged).num_frames, place


def without(k):
    return lambda contents: [*contents[:k], None, *contents[k + 1 :]]


def twice(k):
    return lambda contents: [*contents[: k + 1], contents[k], *contents[k + 2 :]]


def swapped(k):
    return lambda contents: [*contents[:k], contents[k + 1], contents[k], *contents[k + 2 :]]


def overwritten(k):
    """Zeros in the second half of a picture, behind what it begins with."""

    def change(contents):
        half = len(contents[k]) // 2
        return [
            *contents[:k],
            contents[k][:half] + bytes(min(40, half)) + contents[k][half + 40 :],
            *contents[k + 1 :],
        ]

    return change


def assert_frames_of_a_sequential_decode(path, **options):
    """Frames that it does not come to are an error."""
    frames = []
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        # With more threads FFmpeg shows something else for what it cannot decode.
        container.streams.video[0].codec_context.thread_count = 1
        frames.extend(frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    for index in random.Random(0).choices(range(30), k=12):
        with suppress(DecodeError):
            with open_video(path, **options) as video:
                found = video.read([index])[0]
            np.testing.assert_array_equal(found, frames[index], f"frame {index}")


@pytest.mark.parametrize(
    "change", [without(10), without(8), without(13), twice(9), swapped(10), swapped(7)]
)
@pytest.mark.parametrize("name", ENCODERS)
def test_pictures_that_are_missing_or_out_of_place_are_noticed(sound, tmp_path, name, change):
    path = copy_contents(sound(name), tmp_path / name, change)

    assert_frames_of_a_sequential_decode(path)


@pytest.mark.parametrize("k", [0, 10, 11, 14, 20, 25])
@pytest.mark.parametrize("name", ENCODERS)
def test_damage_inside_a_picture_is_noticed_by_pyav(sound, tmp_path, name, k):
    path = copy_contents(sound(name), tmp_path / name, overwritten(k))

    assert_frames_of_a_sequential_decode(path, backend="pyav")


def test_a_picture_that_says_it_is_not_coded_is_noticed(sound, tmp_path):
    """Part 2: one bit behind the picture's time; decoders show nothing for it, whatever follows."""

    def change(contents):
        at = contents[13].index(b"\0\0\1\xb6") + 5
        picture = bytearray(contents[13])
        picture[at] &= ~0x20
        return [*contents[:13], bytes(picture), *contents[14:]]

    path = copy_contents(sound("part2.avi"), tmp_path / "part2.avi", change)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 29

    with open_video(path) as video:
        assert (video.info.num_frames, video.info.backend) == (29, "pyav")
    assert_frames_of_a_sequential_decode(path)


@pytest.mark.parametrize("name", ["plain.mp4", "part2.avi"])
def test_a_whole_decode_finds_damage_inside_pictures_and_auto_remembers_it(sound, tmp_path, name):
    path = copy_contents(sound(name), tmp_path / name, overwritten(10))

    info = probe(path)

    assert (info.num_frames, info.backend, info.reason) == (30, "pyav", "damaged")
    assert "damage inside" in info.problems[0]
    assert_frames_of_a_sequential_decode(path, known=info)


def test_an_index_that_marks_other_keyframes_is_not_trusted(sound, tmp_path):
    data = bytearray(sound("part2.avi").read_bytes())
    entries = data.rindex(b"idx1") + 8
    for k in range(30):
        data[entries + 16 * k + 4] = 0x10 if k % 10 == 1 or k == 0 else 0
    path = tmp_path / "shifted.avi"
    path.write_bytes(data)

    assert_frames_of_a_sequential_decode(path)
    with open_video(path) as video:
        assert video.info.reason == "an index of other keyframes"


@pytest.mark.parametrize("kind", [36, 37])
@pytest.mark.parametrize("k", [14, 26])
def test_an_end_of_sequence_in_h265_is_noticed(tmp_path, kind, k):
    """Behind it decoders drop the pictures that lead to the next restart (15), and show those of a
    sequence that goes on (27) in another order."""
    settings = "keyint=8:min-keyint=8:bframes=2:open-gop=1:b-adapt=0:scenecut=0:pools=none"
    options = {"x265-params": f"{settings}:log-level=none"}
    whole = write_clip(tmp_path / "whole.mp4", codec="libx265", options=options)
    unit = bytes([0, 0, 0, 2, kind << 1, 1])

    path = copy_contents(
        whole,
        tmp_path / "ended.mp4",
        lambda contents: [*contents[:k], contents[k] + unit, *contents[k + 1 :]],
    )

    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert numbers(np.stack(shown)) != list(range(30))
    assert probe(path).num_frames == len(shown)
    for index in (13, 26):
        np.testing.assert_array_equal(read_frames(path, [index])[0], shown[index])


@pytest.mark.parametrize("name", ENCODERS)
def test_parameter_sets_tell_the_size_that_is_shown(sound, name):
    with opened(str(sound(name))) as container:
        codec = container.streams.video[0].codec_context
        inspect = inspector(codec.name, codec.extradata, container.format.name)
        look_through(container, inspect)

    assert inspect.parameters.sizes == [(WIDTH, HEIGHT)]
    assert inspect.parameters.is_interlaced == (name == "interlaced.mp4")


def test_parameters_that_are_not_understood_prove_nothing():
    assert inspector("h264", b"\x01" + bytes(3), "mov,mp4") is None
    assert (
        inspector("hevc", b"\x01" + bytes(30), "matroska")(b"\0\0\0\3\x26\x01\x80").num_pictures
        == -1
    )
    assert inspector("h264", b"\x01", "avi") is None
    assert inspector("vp9", b"", "matroska") is None


def test_a_video_that_is_known_to_be_damaged_is_decoded_from_its_beginning(sound, monkeypatch):
    path = sound("part2.avi")
    known = replace(probe(path), backend="pyav", reason="damaged")
    monkeypatch.setattr(PyAVEngine, "_jump", lambda *_: pytest.fail("it was jumped to"))

    with open_video(path, known=known) as video:
        assert len(video.read([25, 3])) == 2
