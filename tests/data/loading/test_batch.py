"""Batches: samples of clips, images and several labels, side by side in order."""

import torch

from octvideo.data import Batch, DecodeError, Problem, Sample
from octvideo.data.loading.batch import sample_or_another


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
    moved = batch.to("meta")
    assert moved.inputs.is_meta
    assert moved.targets.is_meta
    assert moved.indices.is_meta
    assert (moved.paths, moved.problems) == (batch.paths, batch.problems)


def test_several_labels_and_images_make_the_same_batch():
    image = torch.zeros(3, 5, 5, dtype=torch.uint8)

    batch = Batch.of([Sample(image, torch.tensor([0.0, 1.0]), 0, "a.jpg")] * 3)

    assert batch.inputs.shape == (3, 3, 5, 5)
    assert batch.targets.tolist() == [[0.0, 1.0]] * 3


def test_another_file_is_drawn_where_the_first_one_drawn_cannot_be_read_either():
    tried = []

    def read(position, draw):
        tried.append(position)
        if len(tried) < 4:
            raise DecodeError(f"{position}.mp4", "torn")
        return torch.zeros(3, 1, 1, 1, dtype=torch.uint8), 0, f"{position}.mp4"

    sample = sample_or_another(read, 1000, seed=1, epoch=0, index=5)

    assert tried[0] == 5
    assert len(set(tried)) == 4
    assert [problem.path for problem in sample.problems] == [f"{k}.mp4" for k in tried[:3]]
    assert sample.path == f"{tried[3]}.mp4"


def test_a_batch_is_as_long_as_its_targets():
    assert len(Batch(torch.zeros(2, 3, 1, 4, 4), torch.tensor([0, 1]), torch.arange(2), [])) == 2
