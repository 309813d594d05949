"""When frames are shown: timestamps of all kinds become seconds in one place, and reach whoever
asks."""

import av
import numpy as np
import pytest
from coded_videos import numbers, write_clip
from hypothesis import example, given
from hypothesis import strategies as st

from octvideo.data import open_video
from octvideo.data.sampling import ClipRule
from octvideo.data.video.encode import write_video
from octvideo.data.video.times import rate_and_duration, true_times

VARYING = [33 * k for k in range(40)] + [40 * 33 + 200 * k for k in range(40)]  # ms
NONE = float("nan")


def times_of(path):
    with open_video(path) as video:
        return np.array(video.timing(exact_times=True).times), video.info


def decoded_times(path):
    """Of a sequential decode, in the order of the frames."""
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return np.array(times) - times[0]


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv", "vfr.mov"])
def test_a_varying_rate_gives_true_seconds_and_a_true_rate(tmp_path, name):
    path = write_clip(tmp_path / name, 80, pts=VARYING, options={"g": "12"})

    times, info = times_of(path)

    np.testing.assert_allclose(times, decoded_times(path), atol=1e-6)
    np.testing.assert_allclose(times, np.array(VARYING) / 1000, atol=2e-3)
    assert info.duration_seconds == pytest.approx(9.1, abs=0.25)
    assert info.fps == pytest.approx(80 / info.duration_seconds)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "b.avi", "a.ts", "a.flv"])
def test_a_constant_rate_is_the_announced_one(tmp_path, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    bf = "2" if name != "a.avi" else "0"
    path = write_clip(tmp_path / name, 50, codec=codec, options={"g": "10", "bf": bf})

    times, info = times_of(path)

    np.testing.assert_allclose(times, np.arange(50) / 25, atol=2e-3)
    assert (info.fps, info.duration_seconds) == (25, 2.0)


def test_a_missing_rate_is_measured(tmp_path):
    """WebM need not tell its rate, and what FFmpeg then guesses from the first frames is wrong."""
    stamps = [10 * k for k in range(20)] + [200 + 80 * k for k in range(60)]
    path = write_clip(tmp_path / "a.webm", 80, codec="libvpx-vp9", pts=stamps, options={"g": "20"})

    times, info = times_of(path)

    np.testing.assert_allclose(times, np.array(stamps) / 1000, atol=1e-3)
    assert info.duration_seconds == pytest.approx(5.0, abs=0.1)
    assert info.fps == pytest.approx(16, rel=0.03)


def test_raw_streams_have_the_rate_of_their_header(tmp_path):
    path = write_clip(tmp_path / "a.h264", 50, options={"g": "10"})

    times, info = times_of(path)

    np.testing.assert_allclose(times, np.arange(50) / info.fps)


def joined(folder, *, count=20):
    """Two recordings in one transport stream: the second one's clock starts again."""
    parts = [
        write_clip(folder / f"{part}.ts", count, options={"g": "10", "bf": "2"}) for part in "ab"
    ]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_recordings_that_were_joined_follow_each_other(tmp_path):
    path = joined(tmp_path)

    times, info = times_of(path)

    np.testing.assert_allclose(times, np.arange(40) * 0.04, atol=1e-3)
    assert (info.num_frames, info.fps) == (40, 25)
    with open_video(path) as video:
        assert numbers(video.read([0, 19, 20, 39])) == [0, 19, 0, 19]


def test_the_time_rule_takes_the_frame_on_screen(tmp_path):
    path = write_clip(tmp_path / "vfr.mp4", 80, pts=VARYING)
    rule = ClipRule(8, 30, 30.0, "time")  # a frame every second

    with open_video(path) as video:
        indices = rule.clip(video.timing(exact_times=True), lambda: 0.0)
        found = numbers(video.read(indices))

    shown = [max(k for k in range(80) if VARYING[k] <= 1000 * second + 1) for second in range(8)]
    assert found == shown


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([5.0, 5.1, 5.2], [0, 0.1, 0.2]),
        ([0, 0.1, 0.2, 0, 0.1, 0.2], [0, 0.1, 0.2, 0.3, 0.4, 0.5]),  # joined
        ([0, 0.1, 0.2, 0.1, 0.2, 0.3], [0, 0.1, 0.2, 0.3, 0.4, 0.5]),  # and cut in front
        ([0, 0.1, 0.2, 7.0, 7.1, 7.2, 0, 0.1], [0, 0.1, 0.2, 7.0, 7.1, 7.2, 7.3, 7.4]),
        ([0, 0.3, 0.1, 0.2, 0.6, 0.4, 0.5], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),  # B pictures
        ([0, 0.1, 0.1, 0.3], [0, 0.1, 0.2, 0.3]),  # twice the same
        ([0, 0.1, NONE, 0.3], [0, 0.1, 0.2, 0.3]),
        ([0, 0.1, 0.05, 0.3, 0.4], [0, 0.05, 0.1, 0.3, 0.4]),
        ([NONE, NONE, NONE], [0, 0.1, 0.2]),
        ([NONE, 0.5, 0.6], [0, 0.1, 0.2]),
        ([3.0], [0]),
    ],
)
def test_stamps_of_all_kinds_become_seconds(stamps, times):
    assert true_times(stamps, 10).tolist() == pytest.approx(times)


@example([0.0, 8.7e-16, -8.0])  # The first two are one number beside 8.
@example([-8.0, 0.0, 8.7e-16])
@example([-1e-241, 0.0, NONE])
@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(NONE)), min_size=1, max_size=50))
def test_seconds_increase_whatever_the_stamps(stamps):
    times = true_times(stamps, 25)

    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert np.isfinite(times).all()


@pytest.mark.parametrize(
    ("times", "announced", "last", "expected"),
    [
        (np.arange(50) / 25, 25, 0.0, (25, 2.0)),
        (np.arange(50) / 25, None, 0.0, (25, 2.0)),
        (np.arange(50) / 25, 90000, 0.0, (25, 2.0)),
        (np.arange(50) / 12.5, 25, 0.08, (12.5, 4.0)),
        (np.array([0.0, *np.arange(3, 101)]) / 25, 25, 0.0, (25, 101 / 25)),
        (np.zeros(1), 30, 0.0, (30, 1 / 30)),
        (np.zeros(1), None, 0.0, (25, 1 / 25)),
    ],
)
def test_a_rate_is_believed_where_the_times_agree(times, announced, last, expected):
    assert rate_and_duration(times, announced, last) == pytest.approx(expected)


def test_a_video_written_at_its_times_ends_when_its_last_frame_does(tmp_path):
    times = [stamp / 1000 for stamp in VARYING] + [9.6]
    frames = np.zeros((80, 32, 32, 3), np.uint8)

    write_video(tmp_path / "out.mp4", frames, 8, times=times)

    found, info = times_of(tmp_path / "out.mp4")
    np.testing.assert_allclose(found, times[:-1], atol=1e-3)
    assert info.duration_seconds == pytest.approx(9.6, abs=0.01)


def test_a_frame_that_is_shown_long_counts_though_the_others_keep_the_rate():
    times = np.array([*np.arange(99) / 30, 98 / 30 + 1])

    assert rate_and_duration(times, 30) == pytest.approx((30, 98 / 30 + 1 + 1 / 30))


@pytest.mark.parametrize(("last", "shown"), [(0.3, 0.3), (1e6, 0.1), (-1.0, 0.1)])
def test_the_last_frame_is_shown_as_long_as_it_says_if_that_can_be(last, shown):
    _, seconds = rate_and_duration(np.arange(20) / 10, None, last)

    assert seconds == pytest.approx(1.9 + shown)


def test_recordings_joined_last_first_are_not_mixed():
    """No stamp comes twice, and too many frames lie between the two places for it to be B
    pictures."""
    stamps = [0.05 + k / 10 for k in range(15, 40)] + [k / 10 for k in range(40)]

    np.testing.assert_allclose(true_times(stamps, 10.0), np.arange(65) / 10, atol=1e-6)
