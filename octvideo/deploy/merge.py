"""Octave convolutions as two convolutions instead of four, for inference: exact.

    stride 1    Y_H = W_H cat[X_H, up X_L]      Y_L = W_L cat[pool X_H, X_L]
    stride 2    Y_H = W_H cat[pool X_H, X_L]    Y_L = W_L cat[pool pool X_H, pool X_L]

A runtime loses less time between larger operations, and adds a residual in the same pass. At stride
1 this is right for 1 x 1 in space only, and costs some multiply-adds more, since X_L is then
convolved at the resolution of X_H: it pays if the output is wide. So measurements decide which
layers are merged, layer by layer.
"""

from collections.abc import Collection

import torch
from torch import nn

from octvideo.copies import copied
from octvideo.layers import OctConv2d, OctConv3d, OctTensor
from octvideo.layers.calls import CONVOLUTIONS, computes_as, with_parts
from octvideo.layers.resize import down, up_to
from octvideo.octavize.kept import why_kept


class MergedOctConv(nn.Module):
    """Computes the output of `conv`, from OctTensor to OctTensor, in one of the forms above."""

    def __init__(self, conv: OctConv2d | OctConv3d) -> None:
        super().__init__()
        self.pool, self.stride = conv.pool, conv.stride[-1]
        paths = conv.paths
        self.high = _side_by_side(paths["h2h"], paths["l2h"])
        self.low = _side_by_side(paths["h2l"], paths["l2l"]) if "h2l" in paths else None

    def forward(self, x: OctTensor) -> OctTensor:
        assert x.low is not None
        pooled = down(x.high, self.pool)
        high = self.high(
            torch.cat([pooled, up_to(x.low, pooled) if self.stride == 1 else x.low], 1)
        )
        if self.low is None:
            return OctTensor(high)
        return OctTensor(high, self.low(torch.cat([down(pooled, 2), down(x.low, self.pool)], 1)))


def mergeable(model: nn.Module) -> list[str]:
    """Names of the octave convolutions that can be merged: not those with hooks, computed weights
    or a class that has a forward of its own."""
    return [
        name
        for name, m in model.named_modules()
        if isinstance(m, OctConv2d | OctConv3d) and _has_form(m)
    ]


def _has_form(conv: OctConv2d | OctConv3d) -> bool:
    form = conv.kernel_size[-2:] == (1, 1) if conv.stride[-1] == 1 else conv.pool == 2
    is_known = all(computes_as(part, CONVOLUTIONS) for part in with_parts(conv))
    has_form = form and conv.groups == 1 and bool(conv.in_channels.low)
    return has_form and is_known and not why_kept(conv)


def merge_convs(model: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy of `model` in which the octave convolutions of these names are merged."""
    model = copied(model)
    for name in names:
        parent, _, child = name.rpartition(".")
        conv = model.get_submodule(name)
        assert isinstance(conv, OctConv2d | OctConv3d)
        setattr(model.get_submodule(parent), child, MergedOctConv(conv))
    return model


@torch.no_grad()
def _side_by_side(high: nn.Conv2d | nn.Conv3d, low: nn.Conv2d | nn.Conv3d) -> nn.Module:
    """One convolution of cat[a, b] that gives high(a) + low(b); only `high` has a bias."""
    joined = copied(high)
    joined.in_channels = high.in_channels + low.in_channels
    joined.weight = nn.Parameter(torch.cat([high.weight, low.weight], 1), requires_grad=False)
    return joined
