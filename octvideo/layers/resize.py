"""Resize the groups of a pair to each other's size: average pooling down, nearest neighbors up."""

import torch
from torch import Tensor
from torch.nn import functional as F

from octvideo.layers.conv3d_as_2d import fold_time, in_2d, unfold_time
from octvideo.layers.oct_tensor import OctTensor


def down(x: Tensor, factor: int) -> Tensor:
    """Average-pool height and width by `factor`; a last odd row or column is averaged by itself."""
    if factor == 1:
        return x
    if x.dim() == 4:
        return F.avg_pool2d(x, factor, ceil_mode=True, count_include_pad=False)
    if in_2d():
        return unfold_time(down(fold_time(x), factor), x)
    # The 3D pool refuses a map that is smaller than its window.
    window = (1, min(factor, x.shape[-2]), min(factor, x.shape[-1]))
    return F.avg_pool3d(x, window, (1, factor, factor), ceil_mode=True, count_include_pad=False)


def up_to(x: Tensor, like: Tensor) -> Tensor:
    """Nearest upsampling of height and width by 2, cropped to the size of `like` (maps of odd size
    end in half a pixel)."""
    if x.dim() == 5 and in_2d():
        return unfold_time(up_to(fold_time(x), like), x)
    height, width = like.shape[-2:]
    scale = (2.0, 2.0) if x.dim() == 4 else (1.0, 2.0, 2.0)
    return F.interpolate(x, scale_factor=scale, mode="nearest")[..., :height, :width]


def merge(x: OctTensor) -> Tensor:
    """Merge a pair: upsample the low group and concatenate it to the high group (the official
    code's `Adapter`)."""
    return x.high if x.low is None else torch.cat([x.high, up_to(x.low, x.high)], dim=1)
