"""From pictures to a video network: an Oct-ResNet trains in the video networks' engine, and its
weights inflate."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.torch_file import read_torch_file
from octvideo.weights.image_weights import read_image_weights
from octvideo.weights.inflate import inflate

SETTINGS = """
TRAIN: {DATASET: imagenet, BATCH_SIZE: 16, EVAL_PERIOD: 6, CHECKPOINT_PERIOD: 6}
TEST: {DATASET: imagenet, BATCH_SIZE: 16, IMAGE_CROP_SIZES: [64, 96]}
DATA: {TRAIN_JITTER_SCALES: [64, 64], TRAIN_CROP_SIZE: 64, TEST_CROP_SIZE: 64, COLOR_JITTER: 0.4, PCA_NOISE: 0.1,
       TRAIN_JITTER_SCALES_RELATIVE: [0.5, 1.0], RANDOM_FLIP: false}
MODEL: {ARCH: resnet26, NUM_CLASSES: 4, DROPOUT_RATE: 0}
RESNET: {WIDTH_PER_GROUP: 16, ZERO_INIT_FINAL_BN: true}
OCTCONV: {ALPHA: 0.25, STAGES: [2, 3, 4, 5], WIDTH_RULE: round16}
MIXUP: {ENABLE: true, ALPHA: 0.2, CUTMIX_ALPHA: 0, LABEL_SMOOTH_VALUE: 0.1}
SOLVER: {MAX_EPOCH: 6, BASE_LR: 0.1, WARMUP_EPOCHS: 1}
DATA_LOADER: {NUM_WORKERS: 0}
TENSORBOARD: {ENABLE: false}
"""


def paint(label: int, rng: np.random.Generator) -> Image.Image:
    """Stripes along one of four directions, of any colors, width and place."""
    y, x = np.mgrid[:72, :80]
    along = np.stack([x, y, x + y, x - y])[label]
    wave = 0.5 + 0.5 * np.sin(along * rng.uniform(0.3, 0.8) + rng.uniform(0, 6))
    dark, bright = rng.uniform(0, 100, 3), rng.uniform(155, 255, 3)
    noise = rng.normal(0, 20, (72, 80, 3))
    return Image.fromarray(
        (dark + (bright - dark) * wave[..., None] + noise).clip(0, 255).astype(np.uint8)
    )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 16)):
        for label, name in enumerate(("down", "across", "rising", "falling")):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                paint(label, rng).save(folder / f"{i}.jpg", quality=90)
    return tmp_path / "pictures"


@pytest.mark.slow
def test_an_oct_resnet_learns_and_becomes_a_video_network(
    pictures: Path, tmp_path: Path, run_tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    run = tmp_path / "run"

    began = time.process_time()
    finished = run_tool(
        "train_net",
        "--cfg",
        tmp_path / "mine.yaml",
        f"DATA.PATH_TO_DATA_DIR={pictures}",
        f"OUTPUT_DIR={run}",
    )

    assert finished.status == 0, finished.err
    assert time.process_time() - began < 60  # seconds of one core, whatever else the machine does
    assert re.search(
        r"res2 +48 \+ 16 +16x16 \+ 8x8 ", finished.out
    )  # LOG_MODEL_INFO's table of stages
    accuracies = json.loads((run / "results.json").read_text())["crop_sizes"]
    assert float(accuracies["64"]["top1_acc"]) >= 2 * 25
    assert set(accuracies) == {"64", "96"}
    for size in accuracies:
        assert (
            f"center crops of {size}: top-1 {accuracies[size]['top1_acc']:.2f} % (" in finished.out
        )

    checkpoint = read_torch_file(str(run / "checkpoints" / "best.pyth"))
    assert checkpoint["meta"]["class_names"] == ["across", "down", "falling", "rising"]
    weights = read_image_weights(Checkpoint.of(checkpoint, "best.pyth"))
    model_2d = create_model(
        "resnet26",
        alpha=0.25,
        num_classes=4,
        width_per_group=16,
        stages=(2, 3, 4, 5),
        width_rule="round16",
    )
    model_2d.load_state_dict(weights.state)
    image = torch.randn(2, 3, 64, 64)
    (wanted,) = model_2d.eval().features(image)

    # C2D equals the image network in every frame, I3D where its window in time is full.
    for name, num_frames, frames in (("c2d_r26", 2, slice(None)), ("i3d_r26", 40, slice(9, 11))):
        model_3d = create_model(name, alpha=0.25, num_classes=4, width_per_group=16)
        report = inflate(weights.state, model_3d, weights.assumes)
        (features,) = model_3d.eval().features(
            image.unsqueeze(2).expand(-1, -1, num_frames, -1, -1)
        )

        assert report.is_exact
        assert not report.notes
        assert features[:, :, frames].shape[2] > 0
        for frame in features[:, :, frames].unbind(2):
            torch.testing.assert_close(frame, wanted, rtol=1e-4, atol=1e-5)
