"""The proof of an inflation: a clip that repeats one image."""

import torch
from torch import nn

FULL_FRAMES = slice(9, 11)  # of 20: where an I3D of depth 50 sees no padding when it gets 40 frames


@torch.no_grad()
def error_on_a_still_clip(
    model_2d: nn.Module, model_3d: nn.Module, num_frames: int, frames: slice
) -> float:
    """Largest difference between the features of an image and those of the clip repeating it, over
    their largest.

    Of SlowFast, the features of the slow pathway.
    """
    image = torch.randn(1, 3, 64, 64)
    (wanted,) = model_2d.features(image)
    features, *_ = model_3d.eval().features(image.unsqueeze(2).expand(-1, -1, num_frames, -1, -1))
    chosen = features[:, :, frames]
    assert chosen.shape[2] > 0
    return float((chosen - wanted.unsqueeze(2)).abs().max() / wanted.abs().max())
