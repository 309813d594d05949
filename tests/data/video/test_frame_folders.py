"""Folders of frames: their order, what belongs to them, and pictures that are not what they
seem."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from octvideo.data import DecodeError
from octvideo.data.lists.video_list import read_list
from octvideo.data.video.frame_folders import fits_template, open_frames
from octvideo.data.video.frame_source import open_entry


def write_pictures(folder, levels):
    """levels: file name -> gray level; None: what macOS leaves beside a file."""
    for name, level in levels.items():
        if level is None:
            (folder / name).write_bytes(b"\0\5\26\7")
        else:
            image = Image.fromarray(np.full((32, 40, 3), level, np.uint8))
            image.save(folder / name, quality=100)


def levels_read(folder, count, **options):
    with open_frames(folder, count, **options) as frames:
        return frames.read(range(count))[:, 0, 0, 0].round(-1).tolist()


@pytest.mark.parametrize(
    "names",
    [
        [f"{k}.jpg" for k in range(1, 13)],
        [f"frame{k}.png" for k in range(3, 15)],
        [f"img_{k:05d}.jpg" for k in range(95, 107)],
        [f"img_{k:03d}.jpg" for k in range(995, 1007)],
        [f"v1_s02_{k}.PNG" for k in range(12)],
        [f"{k // 4}.{k % 4:03d}.jpg" for k in range(12)],
    ],
)
def test_numbers_in_names_are_compared_as_numbers(tmp_path, names):
    levels = [20 * k for k in range(12)]
    write_pictures(tmp_path, dict(zip(names, levels, strict=True)))

    assert levels_read(tmp_path, 12) == levels


def test_names_without_numbers_are_taken_in_the_order_of_the_alphabet(tmp_path):
    write_pictures(tmp_path, {"c.png": 60, "a.png": 20, "b.png": 40})

    assert levels_read(tmp_path, 3) == [20, 40, 60]


def test_hidden_files_are_no_frames(tmp_path):
    frames = {f"img_{k:05d}.png": 20 * k for k in range(1, 6)}
    write_pictures(tmp_path, {**frames, "._img_00001.png": None, ".thumb_1.png": 200})

    assert levels_read(tmp_path, 5) == [20, 40, 60, 80, 100]


@pytest.mark.parametrize("other", ["flow_x_{}.png", "cam2_{}.png", "img_{}.jpg", "img_{}_mask.png"])
def test_several_series_are_refused_until_one_is_chosen(tmp_path, other):
    write_pictures(tmp_path, {f"img_{k:05d}.png": 20 * k for k in range(1, 6)})
    write_pictures(tmp_path, {other.format(f"{k:05d}"): 200 for k in range(1, 6)})

    with pytest.raises(DecodeError, match=r"2 series of pictures, as .*DATA\.FRAME_TEMPLATE"):
        levels_read(tmp_path, 5)

    for template in ("img_{:05d}.png", "img_{}.png", "img_?????.png"):
        assert levels_read(tmp_path, 5, template=template) == [20, 40, 60, 80, 100]
    with pytest.raises(DecodeError, match=r"none of 10 pictures, .* is called rgb_\*\.png"):
        levels_read(tmp_path, 5, template="rgb_*.png")


@pytest.mark.parametrize(
    ("name", "template", "fits"),
    [
        ("img_00012.jpg", "img_{:05d}.jpg", True),
        ("img_123456.jpg", "img_{:05d}.jpg", True),
        ("img_12.jpg", "img_{:05d}.jpg", False),
        ("img_   12.jpg", "img_{:05d}.jpg", False),
        ("img_   12.jpg", "img_{:5d}.jpg", True),
        ("img_12.jpg", "img_{:d}.jpg", True),
        ("img_12_mask.jpg", "img_{:d}.jpg", False),
        ("img_x.jpg", "img_{}.jpg", False),
    ],
)
def test_a_frame_is_called_what_the_template_makes_of_a_number(name, template, fits):
    assert fits_template(name, template) is fits


def test_a_list_takes_the_template_along(tmp_path):
    (tmp_path / "clip").mkdir()
    write_pictures(tmp_path / "clip", {f"{a}_{k}.png": 20 * k for a in "ab" for k in (1, 2)})
    (tmp_path / "train.csv").write_text("clip 2 0\n")

    videos = read_list(tmp_path / "train.csv", format="frames", frame_template="b_{:d}.png")

    with open_entry(videos[0]) as frames:
        assert frames.read([1])[0, 0, 0, 0] == 40


@pytest.mark.parametrize("top", [255, 1023, 5000, 65535])
def test_gray_pictures_of_16_bits_keep_their_range(tmp_path, top):
    ramp = np.linspace(0, top, 256)[:, None] * np.ones((1, 64))
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "0.png")

    with open_frames(tmp_path, 1) as frames:
        column = frames.read([0])[0, :, 0, 0].astype(int)

    assert column[0] == 0
    assert (np.diff(column) >= 0).all()
    assert len(np.unique(column)) > 128


def test_one_folder_has_one_range(tmp_path):
    """A frame that happens to be dark is not made brighter than its neighbors."""
    for k, level in enumerate((4000, 2000, 9000)):
        Image.fromarray(np.full((32, 32), level, np.uint16)).save(tmp_path / f"{k}.png")

    with open_frames(tmp_path, 3) as frames:
        levels = frames.read([2, 1, 0])[:, 0, 0, 0].tolist()

    assert levels == [255, round(2000 / 4095 * 255), round(4000 / 4095 * 255)]


def test_exif_turns_are_applied(tmp_path):
    image = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "0.jpg", exif=exif)

    with open_frames(tmp_path, 1) as frames:
        assert frames.read([0]).shape == (1, 64, 48, 3)


def postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n%%EOF\n")


def bomb(path):
    Image.new("1", (30000, 30000)).save(path, format="PNG")


def cut_off(path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    "make",
    [postscript, bomb, cut_off, os.mkfifo, os.mkdir, lambda path: path.write_bytes(b"")],
)
def test_what_is_no_picture_ends_in_a_decode_error(tmp_path, monkeypatch, make):
    (tmp_path / "bin").mkdir()
    gs = tmp_path / "bin" / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "frames").mkdir()
    make(tmp_path / "frames" / "00001.jpg")

    with (
        warnings.catch_warnings(),
        pytest.raises(DecodeError, match=r"frames: 00001\.jpg: \w+"),
        open_frames(tmp_path / "frames", 1) as frames,
    ):
        frames.read([0])

    assert not (tmp_path / "ran").exists()


def test_pictures_of_another_size_are_an_error(tmp_path):
    for k, size in enumerate((32, 32, 40)):
        Image.new("RGB", (size, 32)).save(tmp_path / f"{k}.png")

    with open_frames(tmp_path, 3) as frames:
        assert frames.read([0, 1]).shape == (2, 32, 32, 3)
        with pytest.raises(DecodeError, match="its images differ in size"):
            frames.read([0, 2])
        with pytest.raises(DecodeError, match="its images differ in size"):
            list(frames)


def test_the_frames_of_a_folder_come_one_after_another_as_listed(tmp_path):
    write_pictures(tmp_path, {f"{k}.png": 20 * k for k in range(12)})

    with open_frames(tmp_path, 11) as frames:
        assert [int(frame[0, 0, 0]) for frame in frames] == [20 * k for k in range(11)]


@pytest.mark.parametrize("path", ["no/such/folder", "a\0b"])
def test_a_folder_that_cannot_be_opened_is_named(path):
    with pytest.raises(DecodeError), open_frames(path, 3):
        pass
