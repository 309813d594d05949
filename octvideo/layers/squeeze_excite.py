"""Squeeze-excite on an octave pair (Hu et al. 2018), as in the official OctConv networks."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.layers.oct_tensor import Channels, OctTensor


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate in (0, 1): one squeeze over the averages of both groups, one
    gate vector for each.

    Hidden width (C_high + C_low) // `reduction`. Works on images and clips.
    """

    def __init__(self, channels: Channels, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels.total // reduction, 1)
        self.squeeze = nn.Linear(channels.total, hidden)
        self.gate_high = nn.Linear(hidden, channels.high)
        self.gate_low = nn.Linear(hidden, channels.low) if channels.low else None

    def forward(self, x: OctTensor) -> OctTensor:
        averages = [group.flatten(2).mean(2) for group in (x.high, x.low) if group is not None]
        hidden = F.relu(self.squeeze(torch.cat(averages, dim=1)))
        low = (
            None if x.low is None or self.gate_low is None else _scale(x.low, self.gate_low(hidden))
        )
        return OctTensor(_scale(x.high, self.gate_high(hidden)), low)


def _scale(x: Tensor, gate: Tensor) -> Tensor:
    return x * torch.sigmoid(gate).reshape(*gate.shape, *[1] * (x.dim() - 2))
