"""What the tiny network of the tests sees, in the words of checkpoints and exports."""

PREPROCESSING = {
    "mean": [0.45] * 3,
    "std": [0.225] * 3,
    "reverse_channels": False,
    "num_frames": 4,
    "sampling_rate": 2,
    "sampling_rule": "pyslowfast",
    "target_fps": 30.0,
    "crop_size": 32,
    "short_side": 32,
}
