"""tools/inflate_weights.py: what it writes trains on, and what it says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from octvideo import create_model

CFG = ("--cfg", str(Path(__file__).parents[2] / "configs" / "demo" / "c2d.yaml"))
SMALL = ("MODEL.NUM_CLASSES=3", "RESNET.WIDTH_PER_GROUP=16", "DATA.NUM_FRAMES=2")
MEAN, STD = [0.45] * 3, [0.225] * 3


@pytest.fixture
def image_weights(tmp_path: Path) -> Path:
    model = create_model("resnet26", width_per_group=16, num_classes=3, zero_init_final_bn=False)
    meta = {"model": model.config, "preprocessing": {"mean": MEAN, "std": STD}}
    torch.save({"model_state": model.state_dict(), "meta": meta}, tmp_path / "image.pyth")
    return tmp_path / "image.pyth"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(ord(name) + i).integers(0, 256, (80, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_what_it_writes_is_a_checkpoint_of_the_video_network(image_weights: Path, run_tool) -> None:
    out = image_weights.parent / "video.pyth"

    finished = run_tool("inflate_weights", *CFG, image_weights, out, *SMALL)

    assert finished.status == 0, finished.err
    assert "(resnet26) -> c2d_r26" in finished.out
    checkpoint = torch.load(out, weights_only=True)
    model = create_model(**checkpoint["meta"]["model"])
    model.load_state_dict(checkpoint["model_state"])
    assert checkpoint["meta"]["preprocessing"]["mean"] == MEAN


def test_pictures_show_what_dividing_the_kernels_does(
    image_weights: Path, pictures: Path, run_tool
) -> None:
    out = image_weights.parent / "video.pyth"

    finished = run_tool(
        "inflate_weights",
        *CFG,
        "--images",
        pictures,
        "--batches",
        1,
        image_weights,
        out,
        *SMALL,
        "OCTCONV.ALPHA=0.5",
    )

    assert finished.status == 0, finished.err
    for text in (
        "split in res3: ",
        "res5: relative feature error",
        "of it from pooling",
        "measured anew",
    ):
        assert text in finished.out


def test_top1_is_not_measured_on_folders_of_a_few_classes(
    image_weights: Path, pictures: Path, run_tool
) -> None:
    shutil.rmtree(pictures / "a")

    finished = run_tool(
        "inflate_weights", *CFG, "--images", pictures, image_weights, "never.pyth", *SMALL
    )

    assert finished.status == 2
    assert "2 classes, none of which is called as one of the network's 3; " in finished.err


def test_a_contradiction_ends_in_one_line_with_the_setting(image_weights: Path, run_tool) -> None:
    finished = run_tool(
        "inflate_weights", *CFG, image_weights, "never.pyth", *SMALL, "DATA.MEAN=[0.5,0.5,0.5]"
    )

    assert finished.status == 2
    assert (
        finished.err
        == "error: the weights were trained with another input; set DATA.MEAN [0.45, 0.45, 0.45]\n"
    )
