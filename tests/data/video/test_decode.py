"""Frame k is the k-th frame of a sequential decode, in every engine, from every kind of file."""

import csv
import os
import random
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, product
from tempfile import NamedTemporaryFile
from unittest.mock import Mock

import av
import numpy as np
import pytest
from coded_videos import HEIGHT, WIDTH, copy_packets, numbers, write_clip

from octvideo.data import DecodeError, open_video, probe, read_frames
from octvideo.data.video import in_memory
from octvideo.data.video.decord_engine import DecordEngine

BACKENDS = ("auto", "decord", "pyav")  # test_torchcodec.py has the others
INDICES = [17, 3, 29, 3, 0, 28, 11, 12]
KINDS = {
    "plain.mp4": {},
    "short_gop.mkv": {"options": {"g": "6", "bf": "2"}},
    "slices.mov": {"options": {"x264-params": "slices=3:keyint=10"}},
    "open_gop.mp4": {
        "options": {"x264-params": "open-gop=1:keyint=8:min-keyint=4:bframes=3:b-adapt=0"}
    },
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "interlaced.mp4": {"options": {"x264-params": "tff=1:keyint=10"}},
    "transport.ts": {"options": {"g": "6", "bf": "2"}},
    "fragments.mp4": {
        "options": {"g": "6"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "no_reordering.avi": {"codec": "mpeg4", "options": {"g": "10"}},
    "reordering.avi": {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}},
    "reordering.mp4": {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}},
    "pictures.mkv": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}},
    "varying_rate.mp4": {
        "options": {"g": "9"},
        "pts": [40 * k + 300 * (k > 10) for k in range(30)],
    },
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Thirty frames of plain H.264 with a keyframe every ten."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", options={"g": "10", "bf": "2"})


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_frames_asked_for(tmp_path, name):
    path = write_clip(tmp_path / name, **KINDS[name])

    for backend in ("auto", "pyav"):
        for indices in (INDICES, sorted(INDICES), [29], [0]):
            assert numbers(read_frames(path, indices, backend=backend)) == indices
    assert probe(path).num_frames == 30


@pytest.mark.parametrize("start", [1, 7, 12])
def test_a_cut_file_counts_its_frames_from_the_first_that_decodes(tmp_path, start):
    """A copy that begins between keyframes: players and decoders disagree about its first
    frames."""
    whole = write_clip(tmp_path / "whole.mp4", options={"g": "10", "bf": "2"})
    cut = copy_packets(whole, tmp_path / "cut.mp4", start)

    with av.open(str(cut)) as container:
        sequence = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    indices = [len(sequence) - 1, 0, 5, 9]
    np.testing.assert_array_equal(
        read_frames(cut, indices), np.stack([sequence[index] for index in indices])
    )


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_frames_are_the_right_way_up(tmp_path, rotation):
    upright = write_clip(tmp_path / "upright.mp4")
    turned = write_clip(tmp_path / "turned.mp4", rotation=rotation)

    frames = read_frames(turned, INDICES)

    np.testing.assert_array_equal(
        frames, np.rot90(read_frames(upright, INDICES), rotation // 90, (1, 2))
    )
    info = probe(turned)
    assert (info.height, info.width, info.rotation % 360) == (*frames.shape[1:3], rotation % 360)
    small = read_frames(turned, [0], short_side=48)
    assert (small.shape[1], small.shape[2]) == ((64, 48) if rotation != 180 else (48, 64))


def test_both_engines_give_the_same_pixels(clip):
    by_decord, by_pyav = (
        read_frames(clip, INDICES, backend=backend) for backend in ("decord", "pyav")
    )

    assert by_decord.shape == (8, HEIGHT, WIDTH, 3)
    assert by_decord.dtype == np.uint8
    np.testing.assert_array_equal(by_decord, by_pyav)


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_the_short_side_can_be_resized_while_decoding(clip, backend):
    frames = read_frames(clip, INDICES, backend=backend, short_side=48)

    assert frames.shape == (8, 48, 64, 3)
    assert numbers(frames) == INDICES


def test_probe_tells_what_is_there(clip):
    info = probe(clip)

    assert (info.num_frames, info.fps, info.width, info.height) == (30, 25.0, WIDTH, HEIGHT)
    assert (info.codec, info.rotation, info.problems) == ("h264", 0, ())
    assert info.duration_seconds == pytest.approx(1.2)
    assert (info.backend, info.num_bytes) == ("decord", clip.stat().st_size)


def test_decord_is_refused_where_it_would_be_wrong(tmp_path):
    path = write_clip(tmp_path / "open.mp4", **KINDS["open_gop.mp4"])

    with pytest.raises(
        DecodeError, match=r"open\.mp4: decord would give wrong frames \(open GOP\); use backend"
    ):
        read_frames(path, [0], backend="decord")


def broken_off(folder):
    """Two thirds of a file whose header goes first, as downloads that were cut off leave it."""
    whole = write_clip(
        folder / "whole.mp4", options={"g": "10"}, container_options={"movflags": "faststart"}
    )
    data = whole.read_bytes()
    broken = folder / "broken.mp4"
    broken.write_bytes(data[: len(data) * 2 // 3])
    return broken


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_a_file_that_breaks_off_gives_its_good_frames_or_an_error(tmp_path, backend):
    broken = broken_off(tmp_path)

    info = probe(broken)

    assert 1 <= info.num_frames < 30
    assert "breaks off" in info.problems[0]
    assert numbers(read_frames(broken, range(info.num_frames), backend=backend)) == list(
        range(info.num_frames)
    )
    with pytest.raises(
        DecodeError, match=rf"broken.mp4: frame 29 was asked for; there are {info.num_frames}"
    ):
        read_frames(broken, [0, 29], backend=backend)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "empty"),
        (b"a text, whatever its name says\n" * 40, "Invalid data"),
        (None, "No such file"),
    ],
)
def test_what_is_no_video_is_named_with_the_cause(tmp_path, content, cause):
    path = tmp_path / "no video, really.mp4"
    if content is not None:
        path.write_bytes(content)

    for read in (probe, lambda path: read_frames(path, [0])):
        with pytest.raises(DecodeError, match=rf"no video, really\.mp4: .*{cause}") as caught:
            read(path)
        assert caught.value.path == str(path)


def test_one_frame_and_no_frames_can_be_read(tmp_path):
    path = write_clip(tmp_path / "one.mp4", num_frames=1)

    assert numbers(read_frames(path, [0, 0])) == [0, 0]
    assert read_frames(path, []).shape == (0, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("index", [-1, 30])
def test_a_frame_outside_the_video_is_an_error(clip, index):
    with pytest.raises(DecodeError, match=f"frame {index} was asked for; there are 30"):
        read_frames(clip, [0, index])


def test_what_goes_wrong_with_another_file_meanwhile_keeps_its_name(clip):
    with pytest.raises(DecodeError) as caught, open_video(clip, name="member.mp4"):
        raise DecodeError("other.mp4", "the file is empty")

    assert str(caught.value) == "other.mp4: the file is empty"


@pytest.mark.parametrize("has_files_in_memory", [True, False])
def test_bytes_lie_in_a_temporary_file_only_where_memory_has_no_files(
    clip, monkeypatch, has_files_in_memory
):
    made = Mock(wraps=NamedTemporaryFile)
    monkeypatch.setattr(in_memory, "NamedTemporaryFile", made)
    if not has_files_in_memory:
        monkeypatch.delattr(os, "memfd_create")

    with in_memory.open_bytes(clip.read_bytes(), "member.mp4") as video:
        assert numbers(video.read(INDICES)) == INDICES

    assert made.called != has_files_in_memory


def test_an_unknown_backend_is_an_error(clip):
    with pytest.raises(ValueError, match="no decoder 'opencv'; there are auto, decord, pyav"):
        read_frames(clip, [0], backend="opencv")


@pytest.mark.parametrize("backend", ["decord", "pyav"])
def test_times_are_those_of_the_file(tmp_path, backend):
    path = write_clip(tmp_path / "vfr.mp4", **KINDS["varying_rate.mp4"])

    with open_video(path, backend=backend) as video:
        times = video.timing(exact_times=True).times

    assert times == pytest.approx([k * 0.04 + 0.3 * (k > 10) for k in range(30)], abs=1e-3)


@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("name", ["reordering.avi", "reordering.mp4", "pictures.mkv"])
def test_times_increase_where_pictures_are_stored_in_another_order(tmp_path, name, backend):
    path = write_clip(tmp_path / name, **KINDS[name])

    with open_video(path, backend=backend) as video:
        times = video.timing(exact_times=True).times

    assert times == pytest.approx([k * 0.04 for k in range(30)], abs=2e-3)


def test_a_broken_file_has_the_times_of_its_good_frames(tmp_path):
    broken = broken_off(tmp_path)

    with open_video(broken, known=probe(broken)) as video:
        times = video.timing(exact_times=True).times

    assert times == pytest.approx([k * 0.04 for k in range(video.info.num_frames)], abs=1e-3)


def test_a_remembered_answer_saves_the_check_until_the_file_changes(clip, monkeypatch):
    info = probe(clip)
    monkeypatch.setattr(
        "octvideo.data.video.examine.examine", lambda *_: pytest.fail("it was checked again")
    )

    with open_video(clip, known=info) as video:
        assert numbers(video.read([7])) == [7]
    stale = replace(info, num_bytes=info.num_bytes + 1)
    with pytest.raises(pytest.fail.Exception, match="checked again"), open_video(clip, known=stale):
        pass


@pytest.fixture
def _in_a_worker(monkeypatch):
    """Where decord reads: a process that keeps a note of what it reads."""
    monkeypatch.setattr("octvideo.data.reading._shared", True)


def test_a_crash_of_decord_ends_no_program(tmp_path):
    """One byte, the number of entries of an empty table, makes decord's FFmpeg ask for more memory
    than there is."""
    options = {"options": {"g": "12"}}
    fragments = {"container_options": {"movflags": "frag_keyframe+empty_moov"}}
    data = bytearray(write_clip(tmp_path / "a.mp4", **options, **fragments).read_bytes())
    data[data.index(b"stts") + 10] = 4
    path = tmp_path / "abort.mp4"
    path.write_bytes(data)

    with open_video(path) as video:
        assert numbers(video.read(INDICES)) == INDICES
    known = replace(probe(path), backend="decord")
    with (
        pytest.raises(DecodeError, match=r"abort\.mp4: reading it with decord ended the process"),
        open_video(path, backend="decord", known=known) as video,
    ):
        video.read([0])


@pytest.mark.usefixtures("_in_a_worker")
@pytest.mark.parametrize(
    "place", ["decord.VideoReader", f"{DecordEngine.__module__}.DecordEngine._batch"]
)
def test_where_decord_gives_up_the_sequential_decode_decides(clip, monkeypatch, place):
    calls = []

    def give_up(*_args, **_options):
        calls.append(1)
        raise RuntimeError("decord cannot")

    monkeypatch.setattr(place, give_up)

    assert numbers(read_frames(clip, INDICES)) == INDICES
    assert calls
    with pytest.raises(DecodeError, match=r"clip\.mp4: decord cannot"):
        read_frames(clip, INDICES, backend="decord")


def test_interlaced_pictures_have_the_colors_of_the_sequential_decode(tmp_path):
    path = write_clip(tmp_path / "interlaced.mp4", **KINDS["interlaced.mp4"])

    assert probe(path).reason == "interlaced"
    np.testing.assert_array_equal(read_frames(path, [5, 9])[1], decoded_in_sequence(path, [9])[9])


def signature(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) -> (T, 16): mean luma on a 4 x 4 grid."""
    luma = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    rows, columns = (np.linspace(0, side, 5).astype(int) for side in luma.shape[1:])
    cells = [
        luma[:, top : max(bottom, top + 1), left : max(right, left + 1)].mean((1, 2))
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    return np.stack(cells, 1)


def decoded_in_sequence(path, wanted):
    """The wanted frames, as PyAV stores them, of one decode from the start to the end or to where
    it breaks off."""
    frames = {}
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        for k, frame in enumerate(container.decode(video=0)):
            if k in wanted:
                frames[k] = frame.to_ndarray(format="rgb24")
    return frames


def read_by(backend, path, indices):
    """None where decord says that it would be wrong."""
    try:
        return read_frames(path, indices, backend=backend)
    except DecodeError:
        assert backend == "decord"
        return None


@pytest.mark.slow
def test_frames_of_files_from_everywhere_are_exact(shared):
    zoo = shared / "data" / "decoder_zoo"
    signatures = np.load(zoo / "luma_signatures.npz", allow_pickle=False)
    draw = random.Random(0)
    with (zoo / "frames.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["frames"] != "0"]

    for row in rows:
        count, path = int(row["frames"]), zoo / row["file"]
        assert probe(path).num_frames == count, row["file"]
        mixed = [draw.randrange(count) for _ in range(6)] + [count - 1, 0, count - 1]
        expected = decoded_in_sequence(path, mixed)
        # The sequence is the one that was written down, up to what FFmpeg's versions make of
        # colors.
        written = signatures[row["file"]][mixed]
        assert np.abs(signature(np.stack([expected[k] for k in mixed])) - written).max() < 3.5, path
        for backend, indices in product(BACKENDS, (mixed, sorted(mixed), mixed[:1])):
            frames = read_by(backend, path, indices)
            if frames is not None:
                stored = np.rot90(frames, -int(row["rotation"]) // 90, (1, 2))
                np.testing.assert_array_equal(
                    stored, np.stack([expected[k] for k in indices]), str((path, backend))
                )


def test_unreadable_files_from_everywhere_are_named_within_five_seconds(shared):
    zoo = shared / "data" / "decoder_zoo"
    with (zoo / "frames.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file) if row["frames"] == "0"]

    for name, backend in product(names, BACKENDS):
        start = time.monotonic()
        with pytest.raises(DecodeError, match=rf"{name}: \w+"):
            read_frames(zoo / name, [0], backend=backend)
        with pytest.raises(DecodeError, match=rf"{name}: \w+"):
            probe(zoo / name)
        assert time.monotonic() - start < 5
