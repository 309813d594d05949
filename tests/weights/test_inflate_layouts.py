"""Image weights of every project inflate by one setting: a clip that stands still gets the features
of its image."""

import pytest
import torch
from still_clip import FULL_FRAMES, error_on_a_still_clip
from test_convert import d_li14_names, torchvision_names, trained
from test_mmaction2 import theirs as mmaction2_name
from test_weights_files import pyslowfast_name

import octvideo
from octvideo.safetensors_file import write_safetensors


def renamed(rename):
    return lambda model: {rename(name): tensor for name, tensor in model.state_dict().items()}


# alpha, and what a file holds for an image network of ours. (The official files:
# test_inflate_official.)
LAYOUTS = {
    "torchvision": (0.0, torchvision_names),
    "timm": (
        0.0,
        lambda m: {"state_dict": {f"module.{n}": t for n, t in torchvision_names(m).items()}},
    ),
    "PySlowFast": (0.0, lambda m: {"model_state": renamed(pyslowfast_name)(m)}),
    "mmaction2": (0.0, lambda m: {"state_dict": renamed(mmaction2_name)(m)}),
    "d-li14": (0.5, d_li14_names),
}


def check(alpha, path, source):
    options = {"alpha": alpha, "width_per_group": 8, "num_classes": 7, "weights": str(path)}

    # d-li14's networks alone are octave: up to res4, and split by `int`, as our image networks are.
    like_images = {"stages": (2, 3, 4), "width_rule": "int"}
    c2d = octvideo.create_model("c2d_r26", **like_images, **options)
    i3d = octvideo.create_model("i3d_r26", **like_images, **options)

    assert error_on_a_still_clip(source, c2d, 4, slice(None)) < 1e-5
    assert error_on_a_still_clip(source, i3d, 40, FULL_FRAMES) < 1e-5
    assert torch.equal(c2d.head.fc.weight, source.head.fc.weight)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_weights_of_every_layout_inflate(layout, tmp_path):
    alpha, content = LAYOUTS[layout]
    source = trained("resnet26", alpha=alpha, width_per_group=8, num_classes=7)
    torch.save(content(source), tmp_path / "image.pth")

    check(alpha, tmp_path / "image.pth", source)


def test_image_weights_in_safetensors_inflate(tmp_path):
    source = trained("resnet26", width_per_group=8, num_classes=7)
    state = {"model_state": source.state_dict(), "meta": {"model": source.config}}
    write_safetensors(str(tmp_path / "image.safetensors"), state)

    check(0.0, tmp_path / "image.safetensors", source)
