"""Image weights from the files that people have."""

from pathlib import Path

import pytest
import torch

from octvideo import create_model
from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.image_weights import ImageWeights, read_image_weights
from octvideo.weights.inflate import inflate

SHARED_RESNET = "data/weights/resnet50_imagenet_stride1x1.pth"


def read(content: dict, path: str = "w.pyth", *prefixes: str) -> ImageWeights:
    return read_image_weights(Checkpoint.of(content, path), prefixes)


def own_checkpoint(name: str = "resnet26", **options: object) -> dict:
    model = create_model(name, width_per_group=16, num_classes=10, **options)
    preprocessing = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.3]}
    return {
        "model_state": model.state_dict(),
        "meta": {"model": model.config, "preprocessing": preprocessing},
    }


def test_our_own_checkpoints_bring_what_they_assume() -> None:
    weights = read(own_checkpoint(alpha=0.25))

    assert weights.layout == "resnet26"
    assert weights.assumes == Assumptions(
        (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), 1e-5, False, "pool", reverse_channels=False
    )
    assert inflate(
        weights.state, create_model("c2d_r26", width_per_group=16, alpha=0.25), weights.assumes
    )


def test_the_moving_average_is_taken_where_there_is_one() -> None:
    checkpoint = own_checkpoint()
    average = {name: tensor + 1 for name, tensor in checkpoint["model_state"].items()}

    weights = read({**checkpoint, "ema_state": average})

    assert weights.state == average


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_names_become_ours_one_to_one(depth: int) -> None:
    model = create_model(f"resnet{depth}", width_per_group=16)
    numbers = {"reduce": 1, "spatial": 2, "expand": 3, "first": 1, "second": 2}
    theirs = {}
    for name, tensor in model.state_dict().items():
        head, *rest = name.split(".")
        if head == "stem":
            theirs[f"{rest[0]}1.{rest[1]}"] = tensor
        elif head == "head":
            theirs[f"fc.{rest[1]}"] = tensor
        else:
            layer, kind = rest[1:3]
            place = (
                f"downsample.{int(kind == 'bn')}"
                if layer == "shortcut"
                else f"{kind}{numbers[layer]}"
            )
            theirs[f"layer{int(head[3:]) - 1}.{rest[0][5:]}.{place}.{rest[-1]}"] = tensor

    wrapped = read(
        {"state_dict": {f"module.net.{k}": v for k, v in theirs.items()}}, "w.pth", "net."
    )
    assert wrapped.state.keys() == model.state_dict().keys()
    assert wrapped.assumes == Assumptions()


def test_what_is_no_image_network_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"a video network; set TRAIN\.CHECKPOINT_INFLATE False"
    ):
        read(own_checkpoint("c2d_r26"))
    with pytest.raises(CheckpointError, match=r"w.pth: not a ResNet .*blocks.0.attn"):
        read({"blocks.0.attn": torch.zeros(1)}, "w.pth")


def test_a_real_resnet_fills_networks_that_stride_where_it_does(shared: Path) -> None:
    checkpoint = torch.load(shared / SHARED_RESNET, weights_only=True)
    weights = read(checkpoint, SHARED_RESNET)
    model = create_model("i3d_r50", num_classes=6, stride_1x1=True)

    report = inflate(weights.state, model, weights.assumes)

    assert report.is_exact
    assert report.fresh == {"head.fc": "1000 classes in the image weights, 6 in the network"}
    assert any("RESNET.STRIDE_1X1 True is taken as right" in note for note in report.notes)
