import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from octvideo.data.clips.views import VideoViews, ViewSpec, read_clips, view_batches
from octvideo.data.lists.video_list import read_list
from octvideo.data.sampling import ClipRule, Timing
from octvideo.data.video.decode import read_frames
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError, DataError

KINETICS = ViewSpec(ClipRule(8, 8))
SMALL = ViewSpec(ClipRule(4, 4), short_side=48, crop_size=48)


# --- PySlowFast's rule, written again from its description: one view at a time, nothing shared.


def pyslowfast_places(num_video_frames, fps, view, *, num_frames, rate, num_clips=10, num_crops=3):
    """Where the frames of a view lie, in exact fractions: linspace over a span from delta * i /
    num_clips, clamped."""
    span = Fraction(num_frames * rate) * Fraction(fps) / 30
    start = max(num_video_frames - span, Fraction(0)) * (view // num_crops) / num_clips
    places = [start + (span - 1) * k / (num_frames - 1) for k in range(num_frames)]
    return [min(max(place, Fraction(0)), Fraction(num_video_frames - 1)) for place in places]


def pyslowfast_view(path, frames, view, size, num_crops=3):
    """float (3, T, size, size): decode, short side to `size` in float, crop along the longer
    side."""
    clip = torch.from_numpy(np.array(read_frames(path, frames))).permute(3, 0, 1, 2).float()
    height, width = clip.shape[2:]
    if width < height:
        height, width = math.floor(height / width * size), size
    else:
        height, width = size, math.floor(width / height * size)
    clip = F.interpolate(clip, size=(height, width), mode="bilinear", align_corners=False)
    place = view % num_crops
    y, x = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        y = (0, y, height - size)[place]
    else:
        x = (0, x, width - size)[place]
    return clip[:, :, y : y + size, x : x + size]


# --- Which frames and which crops


@pytest.mark.parametrize("num_frames", [1, 20, 64, 65, 250, 300, 394])
@pytest.mark.parametrize("fps", [30, 25, 15])
@pytest.mark.parametrize(("length", "rate"), [(8, 8), (4, 16), (32, 2)])
def test_view_frames_are_pyslowfasts_exactly(num_frames, fps, length, rate):
    spec = ViewSpec(ClipRule(length, rate))

    clips = spec.clips(Timing(num_frames, float(fps)))

    for i, clip in enumerate(clips):
        places = pyslowfast_places(num_frames, fps, 3 * i, num_frames=length, rate=rate)
        assert clip == [int(place) for place in places]


def test_an_8x8_clip_at_30_fps_steps_by_9():
    clips = KINETICS.clips(Timing(300, 30.0))

    assert clips[0] == [0, 9, 18, 27, 36, 45, 54, 63]
    assert clips[9][0] == int(236 * 9 / 10)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (256, 340, [(0, 0), (0, 42), (0, 84)]),
        (256, 341, [(0, 0), (0, 43), (0, 85)]),
        (455, 256, [(0, 0), (100, 0), (199, 0)]),
        (256, 256, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_three_crops_lie_along_the_longer_side(height, width, expected):
    assert KINETICS.crops(height, width) == expected


def test_crops_of_a_square_lie_from_left_to_right():
    spec = ViewSpec(ClipRule(8, 8), short_side=256, crop_size=224)

    assert spec.crops(256, 256) == [(16, 0), (16, 16), (16, 32)]


def test_a_single_crop_is_in_the_middle_of_both_sides():
    spec = ViewSpec(ClipRule(8, 8), num_crops=1, short_side=256, crop_size=224)

    assert spec.crops(256, 340) == [(16, 58)]


def test_smaller_protocols_are_subsets_of_the_views():
    subsets = KINETICS.subsets()

    assert list(subsets) == ["1x1", "1x3", "3x1", "5x1", "10x1", "10x3"]
    assert subsets["1x1"] == [1]
    assert subsets["1x3"] == [0, 1, 2]
    assert subsets["3x1"] == [1, 10, 19]
    assert subsets["5x1"] == [1, 7, 13, 19, 25]
    assert subsets["10x3"] == list(range(30))


@pytest.mark.parametrize("num_clips", [1, 2, 5, 10])
def test_where_the_numbers_divide_a_subset_has_pyslowfasts_own_clips(num_clips):
    """A 5 x 3 test of PySlowFast takes exactly every second clip of its 10 x 3 test."""
    timing = Timing(301, 30.0)
    own = ViewSpec(ClipRule(8, 8), num_clips=num_clips).clips(timing)

    views = KINETICS._subset(num_clips, 1)

    assert [KINETICS.clips(timing)[view // 3] for view in views] == own


def test_validation_looks_at_the_middle_clip():
    spec = ViewSpec(ClipRule(8, 8), num_clips=1, num_crops=1, center=True)

    (clip,) = spec.clips(Timing(300, 30.0))

    assert clip[0] == 118


def test_several_clips_begin_at_the_start_of_the_video_even_where_one_would_be_in_the_middle():
    spec = ViewSpec(ClipRule(8, 8), num_clips=10, center=True)

    assert spec.clips(Timing(300, 30.0)) == KINETICS.clips(Timing(300, 30.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clips": 0}, "NUM_ENSEMBLE_VIEWS: 0"),
        ({"num_crops": 4}, "NUM_SPATIAL_CROPS: 4"),
        ({"crop_size": 257}, "does not fit into a short side of 256"),
    ],
)
def test_impossible_views_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ViewSpec(ClipRule(8, 8), **options)


# --- Pixels of real files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A wide and a tall video, a text renamed .mp4, an empty file, and a video of one frame."""
    folder = tmp_path_factory.mktemp("videos")
    ramp = np.arange(90)[:, None] + np.arange(120)
    for name, count, turn in (("wide", 40, False), ("tall", 37, True), ("short", 1, False)):
        frames = np.stack(
            [
                np.stack([ramp + 3 * i, 2 * ramp % 200 + i, 255 - ramp], axis=-1) % 256
                for i in range(count)
            ]
        )
        write_video(
            folder / f"{name}.mp4", (frames.swapaxes(1, 2) if turn else frames).astype(np.uint8)
        )
    (folder / "text.mp4").write_text("not a video")
    (folder / "empty.mp4").touch()
    lines = ["wide.mp4 0", "tall.mp4 1", "text.mp4 0", "short.mp4 2", "empty.mp4 1"]
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    return folder


def all_views(video, spec, view_chunk=30):
    return torch.cat(list(view_batches(video.frames, video.clips, spec, view_chunk)))


@pytest.mark.parametrize(("index", "name", "count"), [(0, "wide", 40), (1, "tall", 37)])
def test_views_are_pyslowfasts_pixels_up_to_resize_rounding(folder, index, name, count):
    (video,) = VideoViews(read_list(folder / "val.csv"), SMALL).read([index])

    views = all_views(video, SMALL)

    assert views.shape == (30, 3, 4, 48, 48)
    assert views.dtype == torch.uint8
    for view in range(30):
        frames = [int(place) for place in pyslowfast_places(count, 30, view, num_frames=4, rate=4)]
        expected = pyslowfast_view(folder / f"{name}.mp4", frames, view, 48)
        assert (views[view].float() - expected).abs().max() <= 1.01, view


def test_views_are_the_same_in_chunks_of_any_size(folder):
    (video,) = VideoViews(read_list(folder / "val.csv"), SMALL).read([1])

    for chunk in (1, 7, 30):
        assert torch.equal(all_views(video, SMALL, chunk), all_views(video, SMALL))


def test_a_video_is_decoded_once_for_all_its_views(folder, monkeypatch):
    from octvideo.data.video import decode

    reads = []
    read = decode.Video.read
    monkeypatch.setattr(
        decode.Video,
        "read",
        lambda self, indices, prepare: reads.append(list(indices)) or read(self, indices, prepare),
    )

    (video,) = VideoViews(read_list(folder / "val.csv"), SMALL).read([0])

    assert len(reads) == 1
    assert reads[0] == sorted(set(reads[0]))
    assert len(video.frames) == len(reads[0])


class Uneven:
    """Six frames, each of its own number; the first three are shown within a fifth of a second."""

    path = "uneven.mp4"

    def timing(self, *, exact_times):
        return Timing(6, 2.0, (0.0, 0.1, 0.2, 1.0, 2.0, 3.0) if exact_times else ())

    def read(self, indices, prepare):
        return np.stack([prepare(np.full((8, 8, 3), index, np.uint8)) for index in indices])


def test_by_the_clock_a_clip_has_the_frames_that_are_shown_then():
    spec = ViewSpec(ClipRule(3, 30, 30.0, "time"), 1, 1, short_side=8, crop_size=8)

    frames, clips = read_clips(Uneven(), spec)

    assert frames[clips[0], 0, 0, 0].tolist() == [0, 3, 4]


def test_a_video_of_one_frame_is_seen_in_all_views(folder):
    (video,) = VideoViews(read_list(folder / "val.csv"), SMALL).read([3])

    assert video.frames.shape[0] == 1
    assert all_views(video, SMALL).shape == (30, 3, 4, 48, 48)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_unreadable_files_say_why_and_stop_nothing(folder, num_workers):
    videos = VideoViews(read_list(folder / "val.csv"), SMALL, num_workers=num_workers)

    found = list(videos.read([4, 0, 2]))

    assert [video.index for video in found] == [4, 0, 2]
    assert found[0].problem == "the file is empty"
    assert not found[1].problem
    assert found[2].problem


def test_film_shows_the_middle_view_to_people(folder):
    videos = VideoViews(read_list(folder / "val.csv"), SMALL)
    (video,) = videos.read([0])

    film = videos.film(0)

    expected = all_views(video, SMALL)[5 * 3 + 1].movedim(0, -1)
    np.testing.assert_array_equal(film, expected.numpy())
    assert videos.film(2) is None


def test_labels_take_the_models_meaning(folder):
    videos = VideoViews(read_list(folder / "val.csv"), SMALL, classes=[5, 3, 4])

    assert videos.labels == [(5,), (3,), (5,), (4,), (3,)]


def test_a_label_without_a_name_is_refused(folder):
    with pytest.raises(DataError, match=r"label 2 has no name"):
        VideoViews(read_list(folder / "val.csv"), SMALL, classes=[1, 0])


@given(
    num_clips=st.integers(1, 12),
    num_crops=st.integers(1, 3),
    height=st.integers(48, 200),
    width=st.integers(48, 200),
    num_frames=st.integers(1, 90),
)
def test_any_views_lie_inside_the_video_and_any_subset_inside_the_views(
    num_clips, num_crops, height, width, num_frames
):
    spec = ViewSpec(ClipRule(4, 4), num_clips, num_crops, short_side=48, crop_size=48)

    assert all(
        0 <= frame < num_frames for clip in spec.clips(Timing(num_frames, 30.0)) for frame in clip
    )
    for top, left in spec.crops(height, width):
        assert 0 <= top <= height - 48
        assert 0 <= left <= width - 48
    for name, views in spec.subsets().items():
        clips, crops = map(int, name.split("x"))
        assert len(set(views)) == clips * crops
        assert set(views) <= set(range(spec.num_views))
    assert list(spec.subsets())[-1] == f"{num_clips}x{num_crops}"
