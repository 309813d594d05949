"""Images as an evaluation sees them: videos of one frame."""

import numpy as np
import pytest
import torch
from PIL import Image

from octvideo.data.clips.views import view_batches
from octvideo.data.images.dataset import ImageFolder
from octvideo.data.images.transforms import CenterCrop
from octvideo.data.images.views import ImageViews
from octvideo.engine.evaluation.evaluate import evaluate


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for k in range(3):
            pixels = rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    (tmp_path / "dog" / "1.png").write_bytes(b"torn")
    return tmp_path


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_image_is_its_center_crop_and_an_unreadable_one_says_why(folder, num_workers):
    source, crop = ImageFolder(folder), CenterCrop(32, short_side=36)
    images = ImageViews(source, crop, num_workers=num_workers)

    read = list(images.read(range(6)))

    assert [image.index for image in read] == list(range(6))
    assert (images.spec.crop_size, images.spec.short_side) == (32, 36)
    assert images.labels == [(0,)] * 3 + [(1,)] * 3
    assert [bool(image.problem) for image in read] == [False] * 4 + [True, False]
    (view,) = view_batches(read[0].frames, read[0].clips, images.spec, 1)
    assert torch.equal(view[0, :, 0], crop(source.read(0)))
    assert images.film(4) is None
    assert images.film(0).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_images_that_share_a_forward_pass_get_the_scores_of_each_alone(folder, batch_size):
    sizes = []

    def score(views):
        sizes.append(len(views))
        means = views.float().mean((1, 2, 3, 4))
        return torch.stack([means, 255 - means], 1).softmax(1)

    images = ImageViews(ImageFolder(folder), CenterCrop(32, short_side=36))

    found = evaluate(score, images, num_classes=2, prepare=lambda x: x, batch_size=batch_size)

    alone = evaluate(score, images, num_classes=2, prepare=lambda x: x)
    assert max(sizes) == min(batch_size, 4)
    np.testing.assert_array_equal(found.final, alone.final)
    assert list(found.problems) == [4]
