"""Octave convolutions and the layers that networks use beside them. Depends on torch only."""

from octvideo.layers.conv3d_as_2d import (
    channels_last,
    compute_in_2d,
    lower,
    stem_by_space_to_depth,
)
from octvideo.layers.fused import fuse
from octvideo.layers.oct_tensor import WIDTH_RULES, Channels, OctTensor, as_pair, check_alpha
from octvideo.layers.octave import OctConv2d, OctConv3d, save_memory
from octvideo.layers.octave_norm import OctBatchNorm2d, OctBatchNorm3d
from octvideo.layers.resize import down, merge, up_to

__all__ = [
    "WIDTH_RULES",
    "Channels",
    "OctBatchNorm2d",
    "OctBatchNorm3d",
    "OctConv2d",
    "OctConv3d",
    "OctTensor",
    "as_pair",
    "channels_last",
    "check_alpha",
    "compute_in_2d",
    "down",
    "fuse",
    "lower",
    "merge",
    "save_memory",
    "stem_by_space_to_depth",
    "up_to",
]
