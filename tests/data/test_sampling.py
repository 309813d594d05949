"""Frame arithmetic: the published rules to the frame, and that no clip leaves the video."""

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octvideo.data.sampling import (
    RULES,
    ClipRule,
    Timing,
    crop_offset,
    segment_indices,
    short_side_size,
)

videos = st.builds(Timing, st.integers(1, 2000), st.floats(1, 240))
rules = st.builds(
    ClipRule, st.integers(1, 64), st.integers(1, 32), st.floats(1, 120), st.sampled_from(RULES)
)
draws = st.floats(0, 1, exclude_max=True)


@given(rules, videos, draws)
@example(ClipRule(2, 1, target_fps=3.0), Timing(3, 1.0), 0.5)  # spans 2/3 of a frame
def test_a_clip_stays_inside_the_video_and_in_order(rule, video, place):
    clip = rule.clip(video, lambda: place)

    assert len(clip) == rule.num_frames
    assert clip == sorted(clip)
    assert clip[0] >= 0
    assert clip[-1] < video.num_frames


@given(rules, videos, st.integers(1, 12))
def test_uniform_clips_stay_inside_the_video_and_in_order(rule, video, num_clips):
    clips = rule.uniform_clips(video, num_clips)

    assert len(clips) == num_clips
    assert clips == sorted(clips)
    assert all(0 <= clip[0] <= clip[-1] < video.num_frames for clip in clips)


def test_8x8_at_30_fps_steps_by_9_as_pyslowfast_does():
    clips = ClipRule(8, 8).uniform_clips(Timing(300, 30.0), 10)

    assert clips[0] == [0, 9, 18, 27, 36, 45, 54, 63]
    assert clips[5] == [118, 127, 136, 145, 154, 163, 172, 181]
    assert [clip[0] for clip in clips] == [int(236 * i / 10) for i in range(10)]


@given(
    st.integers(1, 600),
    st.sampled_from([10.0, 23.976, 25.0, 29.97, 30.0, 50.0, 60.0]),
    st.integers(1, 10),
)
def test_pyslowfast_clips_are_its_linspace(num_frames, fps, num_clips):
    rule = ClipRule(8, 8, target_fps=30.0)

    clips = rule.uniform_clips(Timing(num_frames, fps), num_clips)

    span = 64 * fps / 30
    for i, clip in enumerate(clips):
        start = max(num_frames - span, 0) * i / num_clips
        for k, frame in enumerate(clip):
            place = min(max(start + k * (span - 1) / 7, 0), num_frames - 1)
            rounding = abs(place - round(place)) < 1e-6  # then either side is right
            assert abs(frame - math.floor(place)) <= rounding


def steps(clip: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(clip)]


@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 300), draws)
def test_stride_steps_exactly_and_can_reach_both_ends(num_frames, stride, spare, place):
    length = (num_frames - 1) * stride + 1
    rule, video = ClipRule(num_frames, stride, rule="stride"), Timing(length + spare, 30.0)

    clip = rule.clip(video, lambda: place)

    assert steps(clip) == [stride] * (num_frames - 1)
    assert rule.clip(video, lambda: 0.0)[0] == 0
    assert rule.clip(video, lambda: 1 - 1e-9)[-1] == video.num_frames - 1


@given(st.integers(1, 32), st.integers(1, 500), st.lists(draws, min_size=32, max_size=32))
def test_segments_give_one_frame_each(num_segments, num_frames, places):
    frames = segment_indices(num_frames, places[:num_segments])

    length = num_frames / num_segments
    assert all(k * length - 1 < frame <= (k + 1) * length for k, frame in enumerate(frames))
    if num_frames >= num_segments:
        assert segment_indices(num_frames, [0.5] * num_segments)[0] == int(length / 2)


def test_segments_draw_once_each():
    places = iter([0.0, 0.5, 0.99])

    assert ClipRule(3, 1, rule="segment").clip(Timing(30, 30.0), lambda: next(places)) == [
        0,
        15,
        29,
    ]


def test_segments_of_a_test_favor_no_end_of_their_parts():
    rule = ClipRule(3, 1, rule="segment")

    assert rule.uniform_clips(Timing(9, 30.0), 1) == [[1, 4, 7]]
    assert rule.uniform_clips(Timing(24, 30.0), 2) == [[2, 10, 18], [6, 14, 22]]


def test_time_follows_the_clock_where_the_frame_rate_varies():
    # Ten frames in the first second, then one each second.
    times = [k / 10 for k in range(10)] + [1.0, 2.0, 3.0]
    rule = ClipRule(4, 30, target_fps=30.0, rule="time")

    assert rule.clip(Timing(13, 4.0, times), lambda: 0.0) == [0, 10, 11, 12]


@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 300), draws)
def test_time_is_stride_where_the_frame_rate_is_constant(num_frames, stride, spare, place):
    video = Timing((num_frames - 1) * stride + 1 + spare, 30.0)
    rule = ClipRule(num_frames, stride, 30.0, "time")

    clip = rule.clip(video, lambda: place)

    assert steps(clip) == [stride] * (num_frames - 1)
    assert rule.clip(video, lambda: 0.0)[0] == 0
    assert rule.clip(video, lambda: 1 - 1e-12)[-1] == video.num_frames - 1


def test_a_frame_is_found_at_its_time_though_neither_is_exact_in_binary():
    """3 * 0.1 is 0.30000000000000004."""
    times = [k * 0.1 for k in range(8)]

    assert [Timing(8, 10.0, times).frame_at(k / 10) for k in range(8)] == list(range(8))


def test_a_video_shorter_than_the_clip_repeats_its_last_frame():
    assert ClipRule(4, 2, rule="stride").clip(Timing(4, 30.0), lambda: 0.7) == [0, 2, 3, 3]
    assert ClipRule(4, 2).clip(Timing(1, 30.0), lambda: 0.7) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "wrong", [{"num_frames": 0}, {"frame_stride": 0}, {"target_fps": 0.0}, {"rule": "uniform"}]
)
def test_a_rule_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"positive|no sampling rule"):
        ClipRule(**{"num_frames": 8, "frame_stride": 8, **wrong})


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 512))
def test_the_short_side_becomes_what_was_asked(height, width, short_side):
    new_height, new_width = short_side_size(height, width, short_side)

    assert min(new_height, new_width) == short_side
    assert max(new_height, new_width) == max(height, width) * short_side // min(height, width)


@given(st.integers(1, 500), st.integers(0, 200), st.integers(0, 2))
def test_crops_lie_inside_and_the_middle_rounds_up(crop, spare, place):
    offset = crop_offset(crop + spare, crop, place)

    assert 0 <= offset <= spare
    assert crop_offset(crop + spare, crop, 1) == math.ceil(spare / 2)
