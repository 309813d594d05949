"""Interlaced and cropped pictures, odd sizes: the right engine, and VideoInfo tells the true size."""

import av
import numpy as np
import pytest
from coded_videos import picture, write_clip

from octvideo.data import iter_frames, open_video, probe, read_frames
from octvideo.data.video.decord_engine import DecordEngine

CROPS = ["2,0,0,0", "10,6,2,2", "32,0,0,0", "0,4,6,2", "0,0,6,2", "64,2,0,0"]


def sequence(path):
    """(frames, H, W, 3) of a sequential decode that crops at the very column the file says, as ffmpeg does."""
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
        np.testing.assert_array_equal(DecordEngine(str(path), info, None).read([7, 2]), frames)
    np.testing.assert_array_equal(frames, sequence(path)[[7, 2]])
