"""What happens to pixels: uint8 resize, crop and flip in the worker, normalisation on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (N, 3, [T,] H, W) -> float32 of the same shape, (x / 255 - mean) / std per channel.

    Runs where the inputs are: a quarter of the bytes travel to the device, and the worker's CPU is left for decoding.
    """
    shape = (-1, *[1] * (inputs.dim() - 2))
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float32, device=inputs.device))
    shift = torch.tensor(mean, dtype=torch.float32, device=inputs.device) * 255 * scale
    return inputs.float().mul_(scale.view(shape)).sub_(shift.view(shape))
