"""Pictures the right way up: all eight transforms that a display matrix can ask for, wherever
frames come out."""

import struct

import numpy as np
import pytest
from coded_videos import copy_contents, numbers, write_clip

from octvideo.data import iter_frames, open_video, probe, read_frames
from octvideo.data.prepare.resize import resize_video
from octvideo.data.video.index import read_index, write_index
from octvideo.data.video.orientation import Orientation

MATRICES = {
    "upright": (1, 0, 0, 1),
    "turned left": (0, -1, 1, 0),
    "turned right": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "mirrored": (-1, 0, 0, 1),
    "mirrored and upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}


def displayed(frames, matrix):
    """What players show, pixel by pixel: (x, y) goes to (a x + c y, b x + d y)."""
    a, b, c, d = matrix
    _, height, width, _ = frames.shape
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    result = np.empty((len(frames), to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    result[:, to_y, to_x] = frames
    return result


def with_matrix(path, target, matrix):
    """The file with this display matrix in its track header."""
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in matrix)
    packed = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data[:at] + packed + data[at + 36 :])
    return target


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 12, options={"g": "6"})


@pytest.mark.parametrize("name", MATRICES)
def test_every_reader_shows_what_players_show(clip, tmp_path, name):
    path = with_matrix(clip, tmp_path / "turned.mp4", MATRICES[name])
    expected = displayed(read_frames(clip, range(12)), MATRICES[name])

    info = probe(path)
    assert (info.height, info.width) == expected.shape[1:3]
    assert info.backend == ("decord" if name == "upright" else "pyav")
    np.testing.assert_array_equal(read_frames(path, [7, 2]), expected[[7, 2]])
    np.testing.assert_array_equal(np.stack([*iter_frames(path)]), expected)


@pytest.mark.parametrize("name", MATRICES)
def test_the_index_remembers_the_orientation(clip, tmp_path, name):
    path = with_matrix(clip, tmp_path / "turned.mp4", MATRICES[name])
    write_index(tmp_path / "list.index.csv", [(str(path), probe(path))])

    known = read_index(tmp_path / "list.index.csv").get(str(path))

    expected = displayed(read_frames(clip, [7]), MATRICES[name])
    with open_video(path, known=known) as video:
        np.testing.assert_array_equal(video.read([7]), expected)


@pytest.mark.parametrize("name", ["mirrored", "transposed", "turned left"])
def test_resized_videos_are_stored_the_right_way_up(clip, tmp_path, name):
    path = with_matrix(clip, tmp_path / "turned.mp4", MATRICES[name])

    assert resize_video(str(path), str(tmp_path / "small.mp4"), 48, 6, 5) == ""

    small = read_frames(tmp_path / "small.mp4", [7])
    back = np.linalg.inv(np.array(MATRICES[name]).reshape(2, 2)).astype(int).ravel().tolist()
    assert numbers(displayed(small, back)) == [7]


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_is_one_of_eight_transforms(name):
    frames = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(1, 4, 5, 3)
    a, b, c, d = (round(0.98 * (number << 16)) for number in MATRICES[name])

    orientation = Orientation.of_matrix(struct.pack("9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))

    np.testing.assert_array_equal(
        orientation.apply(frames[0]), displayed(frames, MATRICES[name])[0]
    )


@pytest.mark.parametrize("matrix", [None, b"", bytes(36)])
def test_a_matrix_that_says_nothing_changes_nothing(matrix):
    assert Orientation.of_matrix(matrix) == Orientation()


def test_a_turn_that_the_codec_asks_for_is_taken(clip, tmp_path):
    """A display orientation message of H.264: 90 degrees counterclockwise, in front of the first
    picture."""
    message = bytes([6, 47, 3, 0x08, 0x00, 0x14, 0x80])
    path = copy_contents(
        clip,
        tmp_path / "sei.mp4",
        lambda packets: [len(message).to_bytes(4, "big") + message + packets[0], *packets[1:]],
    )

    frames = read_frames(path, [7])

    assert frames.shape[1:3] == (128, 96)
    assert numbers(np.rot90(frames, -1, (1, 2))) == [7]
