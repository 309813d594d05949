"""What a call of a layer computes and who sees it, for passes that compute without calling it."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.octave import OctConv2d, OctConv3d
from octvideo.layers.octave_norm import OctBatchNorm2d, OctBatchNorm3d
from octvideo.layers.space_to_depth import Conv2d

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2d, Conv3d, OctConv2d, OctConv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, OctBatchNorm2d, OctBatchNorm3d)

METHODS = (
    *("__call__", "forward", "_conv_forward"),
    *("pair", "to_high", "to_low", "_add_up", "_from_high"),
)
"""Those that a call of one of these layers runs."""


def computes_as(layer: nn.Module, kinds: Sequence[type[nn.Module]]) -> bool:
    """Whether it is one of these layers, or of a class that changes only how one is built; what is
    inside is asked for itself."""
    is_one = type(layer) in kinds or _methods(type(layer)) in map(_methods, kinds)
    return is_one and vars(layer).keys().isdisjoint(METHODS)


def _methods(kind: type) -> tuple[Any, ...]:
    return tuple(getattr(kind, name, None) for name in METHODS)


def with_parts(layer: nn.Module) -> list[nn.Module]:
    """A layer, and the convolutions or norms that an octave one consists of."""
    if isinstance(layer, OctConv2d | OctConv3d):
        return [layer, *layer.paths.values()]
    return [layer, *layer.groups] if isinstance(layer, OctBatchNorm2d | OctBatchNorm3d) else [layer]


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """Those of its calls and of its gradients; what is inside has hooks of its own."""
    return (
        *(module._forward_pre_hooks, module._forward_hooks),
        *(module._backward_pre_hooks, module._backward_hooks),
    )
