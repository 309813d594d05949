"""How many views a forward pass over many videos takes."""

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
