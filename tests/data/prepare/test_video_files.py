"""Every file below a folder is found, counted or named, and every folder is visited once."""

import os

import av
import numpy as np
import pytest

from octvideo.data import read_frames
from octvideo.data.prepare.splits import folder_lists
from octvideo.data.prepare.video_files import VIDEO_SUFFIXES, find_videos, look_below
from octvideo.errors import DataError

# suffix -> muxer, where FFmpeg does not know it by the suffix; encoder where H.264 does not fit
MUXERS = {
    ".qt": ("mov", "libx264"),
    ".divx": ("avi", "mpeg4"),
    ".m2t": ("mpegts", "libx264"),
    ".mpe": ("mpeg", "mpeg1video"),
    ".mpg": ("mpeg", "mpeg1video"),
    ".mpeg": ("mpeg", "mpeg1video"),
    ".vob": ("vob", "mpeg2video"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".m1v": ("mpeg1video", "mpeg1video"),
    ".wmv": ("asf", "wmv2"),
    ".asf": ("asf", "wmv2"),
    ".ogv": ("ogg", "libvpx"),
    ".rm": ("rm", "rv10"),
    ".gif": ("gif", "gif"),
    ".mxf": ("mxf", "mpeg2video"),
    ".nut": ("nut", "libx264"),
    ".webm": ("webm", "libvpx"),
    ".ivf": ("ivf", "libvpx"),
    ".avc": ("h264", "libx264"),
    ".264": ("h264", "libx264"),
    ".h264": ("h264", "libx264"),
    ".265": ("hevc", "libx265"),
    ".hevc": ("hevc", "libx265"),
    ".mjpeg": ("mjpeg", "mjpeg"),
    ".mts": ("mpegts", "libx264"),
    ".m2ts": ("mpegts", "libx264"),
    ".3gp": ("3gp", "libx264"),
    ".avi": ("avi", "mpeg4"),
}


@pytest.mark.parametrize("suffix", MUXERS)
def test_the_reader_opens_what_is_found_by_its_suffix(tmp_path, suffix):
    assert suffix in VIDEO_SUFFIXES
    muxer, codec = MUXERS[suffix]
    path = tmp_path / f"clip{suffix}"
    pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none:pools=none"}
        for level in range(0, 200, 20):
            image = np.full((64, 96, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())

    assert find_videos(tmp_path) == [path]
    levels = read_frames(path, [0, 9])[:, 32, 48].mean(1)
    assert levels == pytest.approx([0, 180], abs=12)


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
    make(tmp_path, "a/1.mp4", "a/1.txt", "b/2.TXT", "b/README", "b/3.jpg", ".hidden/4.mp4")
    (tmp_path / "b" / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(tmp_path / "b" / "pipe.mp4")

    found = look_below(tmp_path)

    assert found.videos == [tmp_path / "a" / "1.mp4"]
    assert found.left_out == {
        ".txt": 2,
        "without suffix": 1,
        ".jpg": 1,
        "links that lead nowhere": 1,
        "pipes, sockets or devices": 1,
    }
    assert "2 .txt" in folder_lists(tmp_path).notes[0]


def test_each_folder_is_visited_once_and_by_its_own_name(tmp_path):
    make(tmp_path, "walk/1.mp4", "walk/deep/2.mp4", "run/3.mp4")
    make(tmp_path / "elsewhere", "4.mp4")
    (tmp_path / "walk" / "up").symlink_to("..")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "a_link").symlink_to("walk")
    (tmp_path / "run" / "more").symlink_to("../../outside")
    make(tmp_path.parent / "outside", "5.mp4")

    names = [str(path.relative_to(tmp_path)) for path in find_videos(tmp_path)]

    assert names == [
        "elsewhere/4.mp4",
        "run/3.mp4",
        "run/more/5.mp4",
        "walk/1.mp4",
        "walk/deep/2.mp4",
    ]


def test_classes_without_a_video_are_named(tmp_path):
    make(tmp_path, *(f"{name}/{k}.mp4" for name in ("run", "walk") for k in range(4)))
    make(tmp_path, "clap/1.xyz", "clap/2.xyz")

    lists = folder_lists(tmp_path)

    assert lists.class_names == ["run", "walk"]
    assert "class folder 'clap' holds no video and is no class" in lists.notes
    assert any("2 .xyz" in note for note in lists.notes)


@pytest.mark.parametrize("splits", [("",), ("train/", "val/")])
def test_names_that_differ_by_a_space_are_one_class(tmp_path, splits):
    for split in splits:
        make(tmp_path, *(f"{split}{name}/{k}.mp4" for name in ("jump", "jump ") for k in range(3)))
        make(tmp_path, *(f"{split}run/{k}.mp4" for k in range(3)))

    lists = folder_lists(tmp_path)

    assert lists.class_names == ["jump", "run"]
    assert "'jump' and 'jump ' are one class, 'jump'" in lists.notes


def test_a_folder_without_videos_says_what_it_holds(tmp_path):
    make(tmp_path, "a/1.txt")

    with pytest.raises(DataError, match=r"no video in it .*; .*1 \.txt"):
        find_videos(tmp_path)
