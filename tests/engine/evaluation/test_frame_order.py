"""Does time matter? Scorers that know the answer, on clips that become brighter or darker."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from octvideo.data.clips.views import DecodedVideo, ViewSpec
from octvideo.data.sampling import ClipRule
from octvideo.engine.evaluation.frame_order import (
    ORDERS,
    named_by_order,
    one_frame,
    summarize_orders,
)

T = 8


@dataclass
class Ramps:
    """Videos of class 0 become brighter, those of class 1 darker; the last one cannot be read."""

    count: int = 100
    spec = ViewSpec(ClipRule(T, 1), 1, 1, short_side=32, crop_size=32, center=True)
    multi_label = False

    def __post_init__(self):
        self.paths = [f"{i}.mp4" for i in range(self.count + 1)]
        self.labels = [(i % 2,) for i in range(self.count + 1)]

    def read(self, indices):
        for index in indices:
            ramp = torch.arange(T) * 20
            ramp = ramp.flip(0) if index % 2 else ramp
            frames = ramp.to(torch.uint8).view(T, 1, 1, 1).expand(T, 32, 32, 3)
            problem = "torn" if index == self.count else ""
            yield DecodedVideo(index, self.paths[index], frames, torch.arange(T)[None], problem)


def by_slope(x):
    """Class 0 where the last frame is brighter than the first."""
    slope = (x[:, :, -1] - x[:, :, 0]).mean((1, 2, 3))
    return torch.stack([slope, -slope], dim=1).sigmoid()


def by_nothing(x):
    return torch.tensor([[0.6, 0.4]]).expand(len(x), 2)


def named(score):
    return named_by_order(score, Ramps(), prepare=lambda x: x.float() / 255)


def test_what_knows_motion_fails_without_it():
    right = named(by_slope)

    assert right["true order"][:-1].all()
    assert not right["reversed"].any()
    assert 0.2 < right["shuffled"].mean() < 0.8
    assert not any(found[-1] for found in right.values())  # an unread video counts as wrong


def test_the_verdict_names_what_was_found():
    assert summarize_orders(named(by_slope))["verdict"].startswith("Time matters")
    assert "makes no use of time" in summarize_orders(named(by_nothing))["verdict"]


@pytest.mark.parametrize(
    ("accuracies", "says"),
    [
        ((0.9, 0.9, 0.9, 0.5), "but not their order"),
        ((0.9, 0.4, 0.4, 0.3), "Time matters"),
        ((0.9, 0.4, 0.9, 0.3), "Time matters"),
        ((0.9, 0.9, 0.4, 0.9), "Time matters"),
        ((0.9, 0.9, 0.9, 0.9), "no use of time"),
    ],
)
def test_verdicts_follow_the_intervals(accuracies, says):
    videos = np.arange(2000) / 2000
    right = {name: videos < share for name, share in zip(ORDERS, accuracies, strict=True)}

    assert says in summarize_orders(right)["verdict"]


def test_few_videos_tell_nothing():
    right = {name: np.array([True] * 5) for name in ORDERS}

    assert "cannot be told" in summarize_orders(right)["verdict"]


def test_numbers_of_points_lost_are_paired():
    first = np.array([True] * 60 + [False] * 40)
    right = dict.fromkeys(ORDERS, first) | {"reversed": np.array([True] * 50 + [False] * 50)}

    found = summarize_orders(right)["orders"]

    assert found["reversed"]["lost"] == 10.0
    low, high = found["reversed"]["lost_interval"]
    assert 3 < low < 10 < high < 17
    assert found["shuffled"]["lost_interval"] == pytest.approx([-3.62, 3.62], abs=0.01)


@pytest.mark.parametrize("unclear", ["shuffled", "reversed"])
def test_one_order_that_few_videos_leave_open_leaves_the_order_open(unclear):
    """Of 100 videos, 10 are lost and 8 won: anything from 6 won to 10 lost."""
    videos = np.arange(100)
    right = dict.fromkeys(ORDERS, videos < 90)
    right |= {"one frame repeated": videos < 50, unclear: (videos >= 10) & (videos < 98)}

    assert "whether their order does cannot be told" in summarize_orders(right)["verdict"]


def test_the_frame_that_is_repeated_is_the_middle_one():
    assert one_frame(torch.arange(10).view(2, 5), 0).tolist() == [[2] * 5, [7] * 5]
