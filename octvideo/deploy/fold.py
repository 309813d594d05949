"""Folding batch norms into the convolutions before them: exact in evaluation mode, and one pass
over memory less."""

from collections import Counter
from typing import Any

import torch
from torch import nn

from octvideo.copies import copied
from octvideo.layers import OctBatchNorm2d, OctBatchNorm3d, OctConv2d, OctConv3d
from octvideo.layers.calls import CONVOLUTIONS, NORMS, computes_as, hooks_of, with_parts
from octvideo.models.network import norms_behind_convolutions

SYNCHRONIZED = (
    "octvideo.engine.training.adapt._AcrossRanks",
    *(f"pytorchvideo.layers.batch_norm.NaiveSyncBatchNorm{dims}d" for dims in (1, 2, 3)),
)
"""By name: deployment depends on neither. In evaluation mode they call torch's."""


@torch.no_grad()
def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode in which every batch norm that directly follows a convolution is
    folded into it.

    Modules declare these norms (octvideo.models.network). One stays where it cannot be folded: it
    has no statistics, or the convolution's weights are computed in each pass (weight norm,
    pruning), or it has several norms, or a hook of the two would see something else, or one of them
    is of a class that has a forward of its own. A convolution whose weights are another's too gets
    its own. The copy must not be trained.
    """
    model = copied(model).eval()
    found = list(norms_behind_convolutions(model))
    norms_of = Counter(conv for _, _, conv in found)
    for holder, name, conv in found:
        norm = getattr(holder, name)
        if norms_of[conv] == 1 and _can_be_folded(conv, norm):
            _fold(conv, norm)
            setattr(holder, name, nn.Identity())
    return model


def _can_be_folded(conv: nn.Module, norm: nn.Module) -> bool:
    """Not an identity either, as the norms of a network that is folded already."""
    convs, norms = with_parts(conv), with_parts(norm)
    paths, groups = convs[1:] or convs, norms[1:] or norms
    return (
        all(computes_as(part, CONVOLUTIONS) for part in convs)
        and all({"weight", "bias"} <= path._parameters.keys() for path in paths)
        and all(_is_batch_norm(part) for part in norms)
        and all(getattr(group, "running_var", None) is not None for group in groups)
        and not any(any(hooks_of(part)) for part in (*convs, *norms))
    )


def _is_batch_norm(norm: nn.Module) -> bool:
    """Whether it computes one in evaluation mode, where a synchronized one does too."""
    bases = type(norm).__mro__
    synchronized = [b for b in bases if f"{b.__module__}.{b.__qualname__}" in SYNCHRONIZED]
    return computes_as(norm, (*NORMS, nn.SyncBatchNorm, *synchronized))


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
        weight = path.weight * scale.view(-1, *[1] * (path.weight.dim() - 1))
        path.weight = nn.Parameter(weight, path.weight.requires_grad)  # the old one may be tied
    first = paths[0]
    bias = shift if first.bias is None else first.bias * scale + shift
    first.bias = nn.Parameter(bias, requires_grad=False)
