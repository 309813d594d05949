"""Global reasoning unit (Chen et al. 2019, "Graph-Based Global Reasoning Networks") on an octave
pair.

map --+-- state ------------ x -- graph over nodes, over states -- x -- extension, BN --+-- map
      +-- projection to nodes +------------------------------------+                    |
      +---------------------------------------------------------------------------------+
"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctBatchNorm2d, OctConv2d, OctTensor


class GloRe(nn.Module):
    """Positions are projected to `num_states` / 2 nodes, related by a graph convolution, and
    projected back.

    The input projections map both groups to one map at the high resolution; the extension gives to
    both groups. BN starts at gamma 0, so that the unit starts as the identity.
    """

    norm_follows: ClassVar = {"bn": "extension"}

    def __init__(self, channels: Channels, num_states: int, bn_eps: float) -> None:
        super().__init__()
        num_nodes = num_states // 2
        self.state = OctConv2d(channels, Channels(num_states), 1)
        self.projection = OctConv2d(channels, Channels(num_nodes), 1)
        self.over_nodes = nn.Conv1d(num_nodes, num_nodes, 1, bias=False)
        self.over_states = nn.Conv1d(num_states, num_states, 1, bias=False)
        self.extension = OctConv2d(Channels(num_states), channels, 1)
        self.bn = OctBatchNorm2d(channels, eps=bn_eps).zero_init()

    def forward(self, x: OctTensor) -> OctTensor:
        state, projection = self.state(x).high, self.projection(x).high
        positions = projection.flatten(2)
        # (N, states, positions) x (N, positions, nodes); the mean keeps the scale at every image
        # size.
        nodes = torch.einsum("nsp,ngp->nsg", state.flatten(2), positions) / positions.shape[2]
        related = nodes + self.over_nodes(nodes.transpose(1, 2)).transpose(1, 2)
        related = self.over_states(F.relu(related))
        given_back = torch.einsum("nsg,ngp->nsp", related, positions).reshape(state.shape)
        return x + self.bn(self.extension(OctTensor(given_back)))
