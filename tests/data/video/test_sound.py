"""The sound of a file reaches what is written of its pictures, at its time, whatever it is like."""

import errno
import math
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from coded_videos import write_clip

import octvideo.download
from octvideo.data import open_video
from octvideo.data.video import sound
from octvideo.data.video.decode import iter_frames, look_at
from octvideo.data.video.encode import write_video

VARYING = [33 * k for k in range(40)] + [40 * 33 + 200 * k for k in range(40)]  # ms


def with_tone(path, target, *, start, seconds):
    """The video with a second stream of sound from `start` on."""
    with av.open(str(target), "w") as container, av.open(str(path)) as source:
        picture = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate=16000)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        tone = np.sin(np.arange(round(16000 * seconds)) * 0.2).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, round(16000 * start)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return target


def span(path, kind):
    """When a stream begins and ends, in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(**{kind: 0}))
        last = frames[-1]
        end = last.time + (last.samples / last.rate if kind == "audio" else 0)
        return frames[0].time, end


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_picture_and_sound_end_together(tmp_path, start):
    quiet = write_clip(tmp_path / "vfr.mp4", 80, pts=VARYING)
    source = with_tone(quiet, tmp_path / "sound.mp4", start=start, seconds=9.3 - start)
    with open_video(source) as video:
        times = video.timing(exact_times=True).times

    frames = np.zeros((80, 32, 32, 3), np.uint8)
    write_video(tmp_path / "out.mp4", frames, 8, times=times, sound_of=source)

    for kind in ("video", "audio"):
        assert span(tmp_path / "out.mp4", kind) == pytest.approx(span(source, kind), abs=0.1)


def test_a_disk_that_is_full_is_no_fault_of_the_file_that_the_sound_is_from(tmp_path):
    quiet = write_clip(tmp_path / "quiet.mp4", 8)
    source = with_tone(quiet, tmp_path / "sound.mp4", start=0, seconds=1)

    def frames():
        yield np.zeros((32, 32, 3), np.uint8)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        write_video(tmp_path / "out.mp4", frames(), 8, sound_of=source)
    assert not list(tmp_path.glob("out*"))


def with_beeps(path, target, starts, form="s16"):
    """The video with a second of tone at each start."""
    with av.open(str(target), "w") as container, av.open(str(path)) as source:
        picture = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream({"s16": "pcm_s16le", "u8": "pcm_u8"}[form], rate=16000)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        wave = np.sin(np.arange(16000) * 0.2)[None]
        tone = {"s16": (9000 * wave).astype(np.int16), "u8": (128 + 70 * wave).astype(np.uint8)}
        for start in starts:
            frame = av.AudioFrame.from_ndarray(tone[form], format=form, layout="mono")
            frame.rate, frame.pts = 16000, round(16000 * start)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return target


def loud_seconds(path):
    with av.open(str(path)) as container:
        sound = container.decode(audio=0) if container.streams.audio else ()
        frames = [(frame.time, np.abs(frame.to_ndarray()).max()) for frame in sound]
    inside = [(time, loudness) for time, loudness in frames if 0.1 < time % 1 < 0.85]
    return sorted({int(time) for time, loudness in inside if loudness > 0.05})


@pytest.mark.parametrize("form", ["s16", "u8"])
def test_gaps_in_the_sound_are_silent_and_what_follows_keeps_its_time(tmp_path, form):
    quiet = write_clip(tmp_path / "clip.mp4", 80)
    source = with_beeps(quiet, tmp_path / "beeps.mkv", (1, 4, 5, 8), form)

    write_video(tmp_path / "out.mp4", np.zeros((80, 32, 32, 3), np.uint8), 8, sound_of=source)

    assert loud_seconds(tmp_path / "out.mp4") == [1, 4, 5, 8]


@pytest.mark.parametrize(
    ("starts", "gaps"),
    [
        ((0, 1.08, 2), []),
        ((0, 1.12), [0.12]),
        ((0, 1.06, 2.12), [0.12]),  # what does not come again adds up
        ((0, 0.5, 2), []),  # of sound that overlaps nothing is lost
    ],
)
def test_jitter_of_a_tenth_of_a_second_is_no_gap(tmp_path, monkeypatch, starts, gaps):
    source = with_beeps(write_clip(tmp_path / "clip.mp4", 80), tmp_path / "beeps.mkv", starts)
    filled, silence = [], sound._silence_like

    def like(frame, samples):
        filled.append(samples / frame.sample_rate)
        return silence(frame, samples)

    monkeypatch.setattr(sound, "_silence_like", like)
    written(tmp_path, source, 8)

    assert filled == pytest.approx(gaps, abs=0.001)


@pytest.mark.parametrize(
    ("first_picture", "times", "heard"),
    [
        (1.0, (0.9, 1.9), [0, 16000]),  # begins before the pictures
        (1.0, (0.0, 0.9, 1.9), [0, 16000]),  # and is over before them
        (1.0, (1.5, 2.5), [8000, 24000]),
        (0.0, (None, None), [0, 16000]),  # has no times
        (0.0, (0.25, None, 2.25), [4000, 20000, 36000]),
    ],
)
def test_sound_begins_where_it_is_heard_with_the_pictures(first_picture, times, heard):
    encoded = []
    frames = [SimpleNamespace(time=time, samples=16000, sample_rate=16000) for time in times]
    stream, container = SimpleNamespace(encode=lambda f: f), SimpleNamespace(mux=encoded.append)
    of_file = sound.Sound(container, None, "clip.mkv")
    vars(of_file).update(_frames=iter(frames), _stream=stream, _first_picture=first_picture)

    of_file.mux_until(math.inf)

    assert [frame.pts for frame in encoded if frame is not None] == heard


def test_sound_behind_a_gap_that_outlasts_the_pictures_is_left_out(tmp_path):
    quiet = write_clip(tmp_path / "clip.mp4", 80)
    source = with_beeps(quiet, tmp_path / "beeps.mkv", (1, 100_000))

    write_video(tmp_path / "out.mp4", np.zeros((80, 32, 32, 3), np.uint8), 8, sound_of=source)

    assert loud_seconds(tmp_path / "out.mp4") == [1]
    assert span(tmp_path / "out.mp4", "audio")[1] == pytest.approx(10, abs=1.1)


@pytest.mark.parametrize("start", [2.05, 3.08, 4.5])
def test_a_gap_of_any_length_is_filled_whole(tmp_path, start):
    quiet = write_clip(tmp_path / "clip.mp4", 80)
    source = with_beeps(quiet, tmp_path / "beeps.mkv", (0, start))

    write_video(tmp_path / "out.mp4", np.zeros((80, 32, 32, 3), np.uint8), 8, sound_of=source)

    assert span(tmp_path / "out.mp4", "audio")[1] == pytest.approx(start + 1, abs=0.065)


def test_sound_behind_a_gap_is_heard_while_the_last_picture_is_shown(tmp_path):
    quiet = write_clip(tmp_path / "clip.mp4", 80)
    source = with_beeps(quiet, tmp_path / "beeps.mkv", (1, 8))
    frames, times = np.zeros((3, 32, 32, 3), np.uint8), (0, 1, 2, 10)

    write_video(tmp_path / "out.mp4", frames, 8, times=times, sound_of=source)

    assert loud_seconds(tmp_path / "out.mp4") == [1, 8]


@pytest.mark.parametrize("start", ["whole", "cut in a GOP"])
def test_sound_keeps_its_time_where_the_first_pictures_do_not_decode(tmp_path, start):
    source = tmp_path / "clip.ts"
    with av.open(str(source), "w") as container:
        picture = container.add_stream("mpeg2video", rate=25, options={"g": "40"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("mp2", rate=32000, layout="mono")
        noise = np.random.default_rng(0).integers(0, 40, (48, 64, 3), np.uint8)
        for k in range(80):
            event = 60 <= k < 70  # a flash and a tone
            frame = av.VideoFrame.from_ndarray(noise + np.uint8(200 * event), format="rgb24")
            container.mux(picture.encode(frame))
            wave = (9000 * event * np.sin(np.arange(1280) * 0.2)).astype(np.int16)[None]
            heard = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            heard.rate, heard.pts, heard.time_base = 32000, 1280 * k, Fraction(1, 32000)
            container.mux(sound.encode(heard))
        container.mux(picture.encode())
        container.mux(sound.encode())
    if start != "whole":
        content = source.read_bytes()
        source.write_bytes(content[len(content) // 4 // 188 * 188 :])
    info, times = look_at(source)

    write_video(tmp_path / "out.mp4", iter_frames(source), info.fps, times=times, sound_of=source)

    assert info.num_frames == (80 if start == "whole" else 40)
    with av.open(str(tmp_path / "out.mp4")) as container:
        shown = next(f.time for f in container.decode(video=0) if f.to_ndarray()[:48].mean() > 130)
    with av.open(str(tmp_path / "out.mp4")) as container:
        loud = next(f.time for f in container.decode(audio=0) if abs(f.to_ndarray()).max() > 0.1)
    assert loud == pytest.approx(shown, abs=0.1)


def with_noise(target, rate, layout, codec="pcm_s16le"):
    """A second of pictures and of noise."""
    with av.open(str(target), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout=layout)
        for _ in range(10):
            container.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        count = sound.codec_context.channels * rate
        noise = np.random.default_rng(0).integers(-9000, 9000, (1, count), np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout=layout)
        frame.rate, frame.pts = rate, 0
        container.mux(sound.encode(frame))
        container.mux(picture.encode())
        container.mux(sound.encode())
    return target


def written(folder, source, seconds=1):
    """A file of gray pictures, ten a second, with the sound of another."""
    frames = np.zeros((10 * seconds, 32, 32, 3), np.uint8)
    assert write_video(folder / "out.mp4", frames, 10, sound_of=source) == 10 * seconds
    return folder / "out.mp4"


def loudness(path):
    """The greatest amplitude of each frame of sound; none without sound."""
    with av.open(str(path)) as container:
        sound = container.decode(audio=0) if container.streams.audio else ()
        return [float(np.abs(frame.to_ndarray()).max()) for frame in sound]


@pytest.mark.parametrize(
    ("rate", "layout", "taken"),
    [
        (192_000, "stereo", 96_000),
        (37_800, "mono", 32_000),
        (4_000, "mono", 7_350),
        (44_100, "5.1", 44_100),
        (48_000, "22.2", 48_000),
    ],
)
def test_sound_of_any_rate_and_channels_takes_the_nearest_form(tmp_path, rate, layout, taken):
    out = written(tmp_path, with_noise(tmp_path / "clip.mkv", rate, layout))

    assert span(out, "audio") == pytest.approx((0, 1), abs=0.3)
    assert min(loudness(out)[1:4]) > 0.05
    with av.open(str(out)) as container:
        assert container.streams.audio[0].rate == taken


def test_sound_may_change_its_form(tmp_path):
    source, second = tmp_path / "a.ts", tmp_path / "b.ts"
    with_noise(source, 48_000, "stereo", "mp2")
    with_noise(second, 32_000, "mono", "mp2")
    source.write_bytes(source.read_bytes() + second.read_bytes())

    out = written(tmp_path, source, 2)

    assert span(out, "audio") == pytest.approx((0, 2), abs=0.1)
    assert min(loudness(out)[1:-2]) > 0.05


def test_sound_of_an_unknown_codec_is_left_out_in_a_line(tmp_path, caplog):
    source = with_noise(tmp_path / "clip.mkv", 16_000, "mono", "aac")
    source.write_bytes(source.read_bytes().replace(b"A_AAC", b"A_QQQ"))

    assert loudness(written(tmp_path, source)) == []
    assert caplog.messages == [f"{source}: its sound is left out: FFmpeg does not know its codec"]


@pytest.mark.parametrize("damaged", ["the middle", "all"])
def test_damaged_sound_is_silent_in_a_line_and_what_follows_keeps_its_time(
    tmp_path, caplog, damaged
):
    source = with_tone(write_clip(tmp_path / "a.mp4", 80), tmp_path / "b.mp4", start=0, seconds=8)
    with av.open(str(source)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    content, garbage = bytearray(source.read_bytes()), np.random.default_rng(1)
    for place, size in packets[32:64] if damaged == "the middle" else packets:  # 2 to 4 s
        content[place : place + size] = garbage.bytes(size)
    source.write_bytes(content)

    heard = loud_seconds(written(tmp_path, source, 8))

    assert heard == ([0, 1, 4, 5, 6, 7] if damaged == "the middle" else [])
    [line] = caplog.messages
    assert line.startswith(f"{source}: what is damaged of its sound is silent: ")


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Where a clip with sound can be downloaded."""
    source = with_noise(tmp_path / "clip.mkv", 16_000, "mono")
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        octvideo.download, "_append", lambda url, part: part.write_bytes(source.read_bytes())
    )
    return "https://host/clip.mkv"


def test_sound_comes_from_an_address_too(tmp_path, address):
    assert min(loudness(written(tmp_path, address))[1:10]) > 0.05
