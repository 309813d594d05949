"""Pixels: against the float computation, and at the sizes that are easily forgotten."""

import random

import pytest
import torch
from torch.nn import functional as F

from octvideo.data.transforms import (
    center_crop,
    color_jitter,
    normalize,
    random_box,
    random_crop,
    resize_short_side,
)


@pytest.fixture
def clip() -> torch.Tensor:
    """uint8 (3, 4, 61, 90), channel last in memory."""
    return torch.randint(256, (4, 61, 90, 3), dtype=torch.uint8).movedim(-1, 0)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (2, 3, 5, 6)])
def test_normalize_is_per_channel(shape):
    inputs = torch.randint(256, shape, dtype=torch.uint8)

    normal = normalize(inputs, (0.45, 0.4, 0.5), (0.225, 0.2, 0.25))

    for channel, (mean, std) in enumerate([(0.45, 0.225), (0.4, 0.2), (0.5, 0.25)]):
        torch.testing.assert_close(
            normal[:, channel], (inputs[:, channel].float() / 255 - mean) / std
        )


def test_the_short_side_is_resized_as_floats_would_be(clip):
    resized = resize_short_side(clip, 40)

    expected = F.interpolate(
        clip.transpose(0, 1).float(), (40, 59), mode="bilinear", align_corners=False
    )
    assert resized.dtype == torch.uint8
    assert (resized.transpose(0, 1).float() - expected).abs().max() <= 1.01


@pytest.mark.parametrize(("short_side", "size"), [(61, 61), (40, 33), (64, 64), (16, 80), (61, 1)])
def test_a_crop_of_any_size_comes_out(clip, short_side, size):
    """Larger than the short side asked for, or than the video, included: then the video is
    enlarged."""
    draw = random.Random(0).random

    assert center_crop(clip, short_side, size).shape == (3, 4, size, size)
    cropped = random_crop(61, 90, (short_side, short_side + 9), size, draw, inverse_uniform=True)
    assert cropped(clip).shape == (3, 4, size, size)


def test_random_crops_reach_every_place(clip):
    draw = random.Random(0).random

    crops = [
        random_crop(61, 90, (61, 61), 59, draw, inverse_uniform=False)(clip) for _ in range(2000)
    ]

    corners = {tuple(crop[:, 0, 0, 0].tolist()) for crop in crops}
    assert corners == {
        tuple(clip[:, 0, top, left].tolist()) for top in range(3) for left in range(32)
    }


def test_the_short_side_drawn_is_rounded_to_whole_pixels(clip):
    places = iter([0.75, 0.0, 0.0])

    change = random_crop(61, 90, (40, 41), 40, lambda: next(places), inverse_uniform=False)

    assert torch.equal(change(clip), resize_short_side(clip, 41)[..., :40, :40])


def test_boxes_are_wide_as_often_as_tall():
    draw = random.Random(0)

    boxes = [random_box(100, 100, (0.1, 0.2), (1 / 3, 3), draw) for _ in range(1000)]

    wide = sum(right - left > bottom - top for left, top, right, bottom in boxes)
    assert 440 < wide < 560


def test_a_box_as_wide_or_as_tall_as_the_picture_lies_anywhere_along_the_other_side():
    draw, half_of_it = random.Random(0), ((0.5, 0.5), (1.0, 1.0))

    tops = {random_box(10, 20, *half_of_it, draw)[1] for _ in range(300)}
    lefts = {random_box(20, 10, *half_of_it, draw)[0] for _ in range(300)}

    assert tops == lefts == set(range(11))


def test_color_jitter_is_brightness_then_contrast_then_saturation(clip):
    places = iter([0.75, 0.25, 1.0])

    jittered = color_jitter(clip, 0.4, lambda: next(places))

    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1, 1)
    expected = clip.float() * 1.2
    mean = (expected * luma).sum(0).mean()
    expected = (expected - mean) * 0.8 + mean
    gray = (expected * luma).sum(0, keepdim=True)
    expected = ((expected - gray) * 1.4 + gray).clamp(0, 255)
    assert (jittered.float() - expected).abs().max() <= 0.51


def test_color_jitter_of_nothing_changes_nothing(clip):
    assert torch.equal(color_jitter(clip, 0.0, lambda: 0.9), clip)
