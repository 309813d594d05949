"""Batches: samples of clips, images and several labels, side by side in order."""

import torch

from octvideo.data import Batch, Problem, Sample


def test_samples_are_stacked_in_order_with_what_was_really_read():
    problem = Problem("b.mp4", "the file is empty")
    clips = [torch.randint(256, (4, 6, 8, 3), dtype=torch.uint8).movedim(-1, 0) for _ in range(2)]

    batch = Batch.of([Sample(clips[0], 3, 7, "a.mp4"), Sample(clips[1], 5, 2, "c.mp4", (problem,))])

    assert torch.equal(batch.inputs, torch.stack(clips))
    assert batch.targets.tolist() == [3, 5]
    assert batch.targets.dtype == torch.int64
    assert batch.indices.tolist() == [7, 2]
    assert batch.paths == ["a.mp4", "c.mp4"]
    assert batch.problems == (problem,)
    assert len(batch.to("cpu")) == 2


def test_several_labels_and_images_make_the_same_batch():
    image = torch.zeros(3, 5, 5, dtype=torch.uint8)

    batch = Batch.of([Sample(image, torch.tensor([0.0, 1.0]), 0, "a.jpg")] * 3)

    assert batch.inputs.shape == (3, 3, 5, 5)
    assert batch.targets.tolist() == [[0.0, 1.0]] * 3
