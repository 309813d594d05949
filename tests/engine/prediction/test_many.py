"""How many views a forward pass over many videos takes, and how many threads."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from octvideo.data.clips.views import DecodedVideo, ViewSpec
from octvideo.data.sampling import ClipRule
from octvideo.engine.prediction import many

SPEC = ViewSpec(ClipRule(2, 1, 30), 1, 1, short_side=4, crop_size=4, center=True)


def videos(count: int) -> list[DecodedVideo]:
    clip = torch.tensor([[0, 1]])
    return [
        DecodedVideo(i, f"{i}.mp4", torch.full((2, 4, 4, 3), i, dtype=torch.uint8), clip)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("arguments", "long_pass", "first", "largest"),
    [
        ({"on_cpu": True}, 60.0, 1, 4),
        ({"on_cpu": True}, 0.0, 1, 1),
        ({"on_cpu": True, "any_batch": False}, 60.0, 4, 4),
        ({"on_cpu": False}, 60.0, 4, 4),
    ],
)
def test_passes_grow_on_a_cpu_while_they_are_short(
    monkeypatch, arguments, long_pass, first, largest
):
    monkeypatch.setattr(many, "_LONG_PASS", long_pass)
    sizes = []

    def compute(views: torch.Tensor) -> np.ndarray:
        sizes.append(len(views))
        return views.float().mean((1, 2, 3, 4))[:, None].numpy()

    found = list(many.mean_outputs(compute, videos(60), SPEC, batch=4, **arguments))

    assert [(index, float(value[0])) for index, value in found] == [(i, i) for i in range(60)]
    assert (sizes[0], max(sizes), sum(sizes)) == (first, largest, 60)


@pytest.mark.parametrize(("any_batch", "expected"), [(True, 1), (False, 4)])
def test_a_network_that_is_compiled_for_its_threads_has_all_of_them(any_batch, expected):
    torch.set_num_threads(4)
    alone, seen = threading.Lock(), []

    def compute(views: torch.Tensor) -> np.ndarray:
        free = alone.acquire(blocking=False)
        seen.append((torch.get_num_threads(), free))
        time.sleep(0.005)
        if free:
            alone.release()
        return views.float().mean((1, 2, 3, 4))[:, None].numpy()

    list(many.mean_outputs(compute, videos(9), SPEC, batch=2, on_cpu=True, any_batch=any_batch))

    assert {threads for threads, _ in seen} == {expected}
    assert any_batch or all(free for _, free in seen)


def run() -> Iterator[tuple[int, Any]]:
    def compute(views: torch.Tensor) -> np.ndarray:
        return np.zeros((len(views), 1), np.float32)

    return many.mean_outputs(compute, videos(3), SPEC, batch=2, on_cpu=True)


def test_runs_that_take_turns_leave_the_callers_threads_alone():
    torch.set_num_threads(4)

    seen = [torch.get_num_threads() for _ in zip(run(), run(), strict=True)]

    assert (seen, torch.get_num_threads()) == ([4, 4, 4], 4)
    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == 4


def test_a_run_that_is_left_early_gives_new_threads_what_they_had():
    torch.set_num_threads(4)
    left = run()
    next(left)

    left.close()

    with ThreadPoolExecutor(1) as new:
        assert new.submit(torch.get_num_threads).result() == 4
