"""Folding batch norms into the convolutions before them: exact in evaluation mode, and one pass
over memory less."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from octvideo.copies import copied
from octvideo.layers import OctBatchNorm2d, OctBatchNorm3d, OctConv2d, OctConv3d
from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.space_to_depth import Conv2d
from octvideo.models.network import norms_behind_convolutions

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2d, Conv3d)
NORMS = (nn.BatchNorm1d, nn.SyncBatchNorm)  # one forward serves all dimensions


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which every batch norm that directly follows a convolution is
    folded into it.

    Modules declare these norms (octvideo.models.network). One stays where it cannot be folded: it
    has no statistics, or the convolution's weights are computed in each pass (weight norm,
    pruning), or a hook of the two would see something else, or one of them is of a class that has a
    forward of its own. The copy must not be trained.
    """
    model = copied(model).eval()
    for holder, name, conv in list(norms_behind_convolutions(model)):
        norm = getattr(holder, name)
        if _can_be_folded(conv, norm):
            _fold(conv, norm)
            setattr(holder, name, nn.Identity())
    return model


def _can_be_folded(conv: nn.Module, norm: nn.Module) -> bool:
    """Not an identity either, as the norms of a network that is folded already."""
    paths = list(conv.paths.values()) if isinstance(conv, OctConv2d | OctConv3d) else [conv]
    groups = norm.groups if isinstance(norm, OctBatchNorm2d | OctBatchNorm3d) else [norm]
    modules = (conv, *paths, norm, *groups)
    return (
        all(_computes_as(path, CONVOLUTIONS) for path in paths)
        and all({"weight", "bias"} <= path._parameters.keys() for path in paths)
        and all(_computes_as(g, NORMS) or "Sync" in type(g).__name__ for g in groups)
        and all(getattr(group, "running_var", None) is not None for group in groups)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    )


def _computes_as(layer: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether it is one of these layers, or of a class that changes only how one is built."""
    return _passes(type(layer)) in map(_passes, kinds) and "forward" not in vars(layer)


def _passes(kind: type) -> tuple[Any, ...]:
    return tuple(getattr(kind, name, None) for name in ("forward", "_conv_forward", "__call__"))


def _fold(conv: Any, norm: Any) -> None:
    high = norm.high if isinstance(norm, OctBatchNorm2d | OctBatchNorm3d) else norm
    if not isinstance(conv, OctConv2d | OctConv3d):
        _fold_group([conv], high)
        return
    _fold_group([path for path in (conv.h2h, conv.l2h) if path is not None], high)
    if conv.out_channels.low:
        _fold_group([path for path in (conv.h2l, conv.l2l) if path is not None], norm.low)


def _fold_group(paths: list[Any], norm: Any) -> None:
    """`paths` are summed, then normalized: each is scaled, and the first gets the shift as bias."""
    # In evaluation mode a norm is x * scale + shift, per channel.
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    for path in paths:
        path.weight.mul_(scale.view(-1, *[1] * (path.weight.dim() - 1)))
    first = paths[0]
    bias = shift if first.bias is None else first.bias * scale + shift
    first.bias = nn.Parameter(bias, requires_grad=False)
