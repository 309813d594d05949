"""Interlaced and cropped pictures, odd sizes: the right engine, and VideoInfo tells the true
size."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from coded_videos import numbers, picture, write_clip

from octvideo.data import iter_frames, open_video, probe, read_frames
from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.check import check_list
from octvideo.data.prepare.resize import resize_video
from octvideo.data.video.decord_engine import DecordEngine
from octvideo.data.video.frame_table import KnownFile

CROPS = ["2,0,0,0", "10,6,2,2", "32,0,0,0", "0,4,6,2", "0,0,6,2", "64,2,0,0"]


def sequence(path):
    """(frames, H, W, 3) of a sequential decode that crops at the very column the file says, as
    ffmpeg does."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        container.streams.video[0].codec_context.flags |= 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("crop", CROPS)
def test_a_crop_in_the_stream_is_exact(tmp_path, crop):
    left, top, right, bottom = map(int, crop.split(","))
    path = write_clip(tmp_path / "crop.mp4", options={"x264-params": f"crop-rect={crop}:keyint=10"})
    whole = read_frames(
        write_clip(tmp_path / "whole.mp4", options={"x264-params": "keyint=10"}), [17, 4]
    )

    info = probe(path)
    frames = read_frames(path, [17, 4])

    assert (info.width, info.height) == (128 - left - right, 96 - top - bottom)
    assert info.backend == ("pyav" if left + top else "decord")
    np.testing.assert_array_equal(frames, sequence(path)[[17, 4]])
    part = whole[:, top : 96 - bottom, left : 128 - right]
    assert np.abs(frames.astype(int) - part).mean() < 3
    assert [frame.shape for frame in iter_frames(path)] == [frames.shape[1:]] * 30


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_interlaced_part_2_is_for_pyav(tmp_path, name):
    path = write_clip(
        tmp_path / name, codec="mpeg4", options={"g": "10", "flags": "+ildct+ilme", "top": "1"}
    )

    with open_video(path) as video:
        assert video.info.reason == "interlaced"
        np.testing.assert_array_equal(video.read([17, 4]), sequence(path)[[17, 4]])


@pytest.mark.parametrize("width", [100, 101, 103])
@pytest.mark.parametrize("height", [76, 77])
def test_both_engines_agree_on_odd_sizes(tmp_path, width, height):
    path = tmp_path / "odd.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "5", "qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(12):
            image = np.ascontiguousarray(picture(number)[:height, :width])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())

    with open_video(path) as video:
        info, frames = video.info, video.read([7, 2])
        assert (info.width, info.height) == (width, height)
        assert frames.shape == (2, height, width, 3)
    if info.backend == "decord":
        with closing(DecordEngine(KnownFile(str(path), info), None)) as engine:
            np.testing.assert_array_equal(engine.read([7, 2]), frames)
    np.testing.assert_array_equal(frames, sequence(path)[[7, 2]])


def two_sizes(path, codec="libx264"):
    """Frames 0 to 9 of 128 x 96, then 0 to 9 of 96 x 128 (squeezed), each with parameter sets of
    its own."""
    parts = []
    for part, (width, height) in enumerate(((128, 96), (96, 128))):
        piece = path.with_name(f"{part}.ts")
        with av.open(str(piece), "w") as container:
            stream = container.add_stream(codec, rate=25, options={"g": "5"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(10):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                container.mux(stream.encode(frame.reformat(width, height)))
            container.mux(stream.encode())
        parts.append(piece)
    if path.suffix == ".ts":
        path.write_bytes(b"".join(part.read_bytes() for part in parts))
    else:
        _remux(parts, path)
    return path


def _remux(parts, path):
    """The packets one after another, headed by the first part's parameters."""
    with av.open(str(path), "w") as writer:
        offset = 0
        for part in parts:
            with av.open(str(part)) as reader:
                theirs = reader.streams.video[0]
                if part is parts[0]:
                    ours = writer.add_stream_from_template(theirs)
                packets = [packet for packet in reader.demux(theirs) if packet.size]
                first = packets[0].dts
                for packet in packets:
                    packet.pts += offset - first
                    packet.dts += offset - first
                    packet.stream = ours
                    writer.mux(packet)
                offset += 10 * 3600


@pytest.mark.parametrize(
    ("name", "codec"),
    [("joined.ts", "libx264"), ("joined.mkv", "libx264"), ("joined.avi", "mpeg4")],
)
def test_a_size_that_changes_is_told_and_scaled_to_the_first(tmp_path, name, codec):
    path = two_sizes(tmp_path / name, codec)
    with av.open(str(path)) as container:
        assert {frame.width for frame in container.decode(video=0)} == {128, 96}

    info = probe(path)

    assert (info.num_frames, info.width, info.height, info.backend) == (20, 128, 96, "pyav")
    assert "the picture size changes in mid-stream (128 x 96, 96 x 128)" in info.problems[0]
    with open_video(path) as video:
        assert video.info.problems == info.problems
        assert numbers(video.read([15, 3, 10, 9])) == [5, 3, 0, 9]
    assert numbers(np.stack([*iter_frames(path)])) == [*range(10), *range(10)]
    assert resize_video(str(path), str(tmp_path / "small.mp4"), 48, 5, 10) == ""
    assert numbers(read_frames(tmp_path / "small.mp4", [15, 3])) == [5, 3]


def test_a_size_that_changes_is_counted_by_check_videos(tmp_path):
    two_sizes(tmp_path / "joined.mkv")
    (tmp_path / "list.csv").write_text("joined.mkv 0\n")

    result = check_list(read_list(tmp_path / "list.csv"), num_workers=1)

    assert (result.good, result.damaged) == (1, 1)
    assert "the picture size changes" in Path(result.index).read_text()


@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_that_are_not_square_are_reported_and_left_alone(tmp_path, rotation):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
        container.mux(stream.encode())

    info = probe(path)

    assert info.pixel_aspect == pytest.approx(3 / 4 if rotation else 4 / 3)
    assert (info.width, info.height) == ((96, 128) if rotation else (128, 96))
