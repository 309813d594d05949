"""The drawing rule of the official networks beside this file, and a writer of MXNet's format.

Each JSON, here and in rows/, names the parameters and shapes of an official OctConv network
(MXNet), a seed, and the logits which the official code printed for the weights and the input drawn
from that seed. `draw` and `network_input` define both.
"""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Oracle = dict[str, Any]


def draw(seed: int, name: str, shape: list[int]) -> np.ndarray:
    """float32 weights of `name` (without arg: or aux:)."""
    random = np.random.RandomState((seed * 1000003 + zlib.crc32(name.encode())) % 2**32)
    if name.endswith("gamma"):
        return random.uniform(0.2, 0.5, shape).astype("f4")
    if name.endswith(("beta", "bias", "moving_mean", "running_mean")):
        return (random.standard_normal(shape) * 0.1).astype("f4")
    if name.endswith(("moving_var", "running_var")):
        return random.uniform(0.5, 1.5, shape).astype("f4")
    return (random.standard_normal(shape) * np.sqrt(2.0 / int(np.prod(shape[1:])))).astype("f4")


def network_input(oracle: Oracle) -> np.ndarray:
    """float32 (N, 3, H, W), fed to the network as it is."""
    return np.random.RandomState(oracle["seed"] + 77).standard_normal(oracle["input"]).astype("f4")


def parameters(oracle: Oracle, *, by_prefix: bool = False) -> dict[str, np.ndarray]:
    """Names as an official file has them to arrays; by_prefix: a gluon network's in the older
    spelling."""
    seed = oracle["seed"]
    if oracle["kind"] == "symbol":
        return {
            name: draw(seed, name.split(":", 1)[1], shape)
            for name, shape in oracle["params"].items()
        }
    return {
        full if by_prefix else name: draw(seed, full, shape)
        for name, (full, shape) in oracle["params"].items()
    }


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(arrays)))
        for array in arrays.values():
            file.write(struct.pack(f"<IiI{array.ndim}q", 0xF993FAC9, 0, array.ndim, *array.shape))
            file.write(struct.pack("<iii", 1, 0, 0) + array.tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            file.write(struct.pack("<Q", len(name)) + name.encode())
