"""What untrained networks of the benchmarks say of their input and their classes."""

from typing import Any

import torch

from octvideo import create_model
from octvideo.recognizer import Recognizer

CLASS_NAMES = [f"class {k}" for k in range(27)]


def preprocessing(size: int, short_side: int, sampling_rate: int = 4) -> dict[str, Any]:
    """Clips of 8 frames of size x size pixels, from frames of this short side."""
    return {
        "mean": [0.45] * 3,
        "std": [0.225] * 3,
        "reverse_channels": False,
        "num_frames": 8,
        "sampling_rate": sampling_rate,
        "sampling_rule": "pyslowfast",
        "target_fps": 30.0,
        "crop_size": size,
        "short_side": short_side,
    }


def make_recognizer(model: str, alpha: float, width: int, size: int) -> Recognizer:
    """An untrained network on 8 x 4 clips of size x size."""
    options = {"alpha": alpha, "width_per_group": width, "crop_size": size}
    network = create_model(model, num_classes=len(CLASS_NAMES), **options)
    seen = preprocessing(size, size * 8 // 7)
    return Recognizer(network, CLASS_NAMES, seen, torch.device("cpu"))
