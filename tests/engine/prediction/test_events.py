"""When something begins and ends, and which windows go before."""

from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octvideo.data.video.live import LiveFrame
from octvideo.engine.prediction.events import Event, Window, find_events
from octvideo.engine.prediction.live import timed_clips
from octvideo.errors import ConfigError


def _windows(*probabilities: float, breaks: tuple[int, ...] = (0,)) -> list[Window]:
    """Windows of two seconds, one a second; class "other" takes the rest."""
    return [
        Window(float(k), k + 2.0, np.array([p, 1 - p], np.float32), ["wave", "other"], k in breaks)
        for k, p in enumerate(probabilities)
    ]


def _of_wave(windows: list[Window], **options: float) -> list[tuple[float, float | None]]:
    options = {"smoothing": 0.0, **options}
    return [(e.start, e.end) for e in find_events(windows, **options) if e.name == "wave"]


def test_an_event_is_told_when_it_begins_and_when_it_has_ended():
    assert _of_wave(_windows(0.1, 0.9, 0.9, 0.1)) == [(1, None), (1, 4)]


def test_between_the_two_thresholds_nothing_begins_and_nothing_ends():
    assert _of_wave(_windows(0.5, 0.7, 0.5, 0.5, 0.3, 0.5)) == [(1, None), (1, 5)]


def test_a_single_window_does_not_begin_what_is_smoothed():
    once, often = _windows(0.0, 1.0, 0.0, 0.0), _windows(0.0, 1.0, 1.0, 1.0, 0.0, 0.0)

    assert _of_wave(once, smoothing=0.5) == []
    assert _of_wave(often, smoothing=0.5) == [(2, None), (2, 6)]


def test_short_events_are_left_out_and_long_ones_wait():
    windows = _windows(0.9, 0.1, 0.9, 0.9, 0.9, 0.1)

    assert _of_wave(windows, min_seconds=3) == [(2, None), (2, 6)]


def test_a_break_ends_all_events():
    windows = _windows(0.9, 0.9, 0.9, 0.9, breaks=(0, 2))

    assert _of_wave(windows) == [(0, None), (0, 3), (2, None), (2, 5)]


def test_an_event_knows_its_highest_probability():
    found = [e for e in find_events(_windows(0.7, 0.9, 0.8), smoothing=0) if e.name == "wave"]

    assert found == [
        Event("wave", 0.0, None, pytest.approx(0.7)),
        Event("wave", 0.0, 4.0, pytest.approx(0.9)),
    ]


@pytest.mark.parametrize(
    "options",
    [{"on": 0.3, "off": 0.4}, {"on": 1.5}, {"off": 0.0}, {"smoothing": 1.0}, {"min_seconds": -1}],
)
def test_thresholds_out_of_order_are_refused(options):
    with pytest.raises(ConfigError):
        list(find_events(_windows(0.5), **options))


def _frames(times: list[float], breaks: tuple[int, ...] = (0,)) -> Iterator[LiveFrame]:
    return (LiveFrame(k, t, k in breaks) for k, t in enumerate(times))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "step", "count"), [(10, 5, 4), (12, 4, 3), (5, 10, 2), (8, 8, 8)]
)
def test_frames_at_a_constant_rate_make_the_windows_of_a_timeline(window, step, count):
    frames = _frames([k / 25 for k in range(60)])

    clips = list(timed_clips(frames, window / 25, step / 25, count))

    starts = [k for k in range(0, 60, step) if k + window < 60]
    assert [round(clip.start * 25) for clip in clips] == starts
    for clip, start in zip(clips, starts, strict=True):
        assert clip.images == [start + k * (window - 1) // max(count - 1, 1) for k in range(count)]
    assert [clip.begins for clip in clips] == [True] + [False] * (len(clips) - 1)


def test_windows_begin_anew_behind_a_break_and_never_span_it():
    frames = _frames([0, 0.5, 1.0, 1.5, 7.3, 7.8, 8.3, 8.8], breaks=(0, 4))

    clips = list(timed_clips(frames, 1.0, 1.0, 2))

    assert [(clip.start, clip.images, clip.begins) for clip in clips] == [
        (0, [0, 1], True),
        (7.3, [4, 5], True),
    ]


def test_a_window_without_a_frame_is_passed_over():
    frames = _frames([0, 0.5, 1.0, 6.25, 6.75, 7.25, 8.0])

    clips = list(timed_clips(frames, 1.0, 1.0, 2))

    assert [(clip.start, clip.images) for clip in clips] == [
        (0, [0, 1]),
        (1, [2, 2]),
        (6, [3, 4]),
        (7, [5, 5]),
    ]


def test_a_gap_whose_next_frame_is_on_the_grid_but_for_rounding_is_passed_over():
    frames = _frames([0, 0.001, 0.002, 3.002], breaks=(0, 2))

    assert [(clip.start, clip.images) for clip in timed_clips(frames, 2, 1, 1)] == [(0.002, [2])]


def test_a_frame_close_behind_the_last_one_of_another_window_is_in_its_own():
    frames = _frames([0, 0.45, 0.55, 2.0])

    clips = list(timed_clips(frames, 1.0, 0.5, 1))

    assert [(clip.start, clip.images) for clip in clips] == [(0, [0]), (0.5, [2])]


def _windows_by_counting(
    ticks: list[int], breaks: list[int], window: int, stride: int
) -> Iterator[tuple[int, bool, list[int]]]:
    """Start, whether it is the first since a break, and the frames of each window."""
    for first, end in pairwise([*breaks, len(ticks)]):
        begins = True
        for start in range(ticks[first], ticks[end - 1] - window + 1, stride):
            inside = [k for k in range(first, end) if start <= ticks[k] < start + window]
            if inside:
                yield start, begins, inside
                begins = False


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(1, 4) | st.integers(5, 100), max_size=30),
    breaks=st.sets(st.integers(1, 30), max_size=3),
    window=st.integers(1, 40),
    stride=st.integers(1, 40),
    count=st.sampled_from([1, 2, 5]),
)
def test_every_window_that_has_a_frame_is_found_whatever_comes_when(
    steps, breaks, window, stride, count
):
    ticks = list(accumulate(steps, initial=0))  # of 0.05 s, which has no exact float
    begins = [0, *sorted(k for k in breaks if k < len(ticks))]
    frames = _frames([tick / 20 for tick in ticks], breaks=tuple(begins))

    clips = list(timed_clips(frames, window / 20, stride / 20, count))

    wanted = list(_windows_by_counting(ticks, begins, window, stride))
    assert [(round(clip.start * 20), clip.begins) for clip in clips] == [w[:2] for w in wanted]
    for clip, (_, _, inside) in zip(clips, wanted, strict=True):
        assert len(clip.images) == count
        assert set(clip.images) <= set(inside)
        if count > 1:
            assert clip.images[-1] == inside[-1]
        else:  # A frame close before it may not be held.
            assert ticks[clip.images[0]] - ticks[inside[0]] < window / 7


def test_an_endless_source_at_any_rate_is_held_only_as_far_as_its_windows_need():
    alive, most = 0, 0

    class Counted:
        def __init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def endless() -> Iterator[LiveFrame]:
        nonlocal most
        for k in range(20000):
            most = max(most, alive)
            yield LiveFrame(Counted(), k / 1000, k == 0)  # type: ignore[arg-type]

    assert sum(1 for _ in timed_clips(endless(), 4.0, 1.0, 4)) == 16
    assert most <= 8 * 4 + 12
