"""What untrained networks of the benchmarks say of their input and their classes."""

from typing import Any

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
