"""pytorchvideo's hub models, narrow and wide, with weights that hide no mistake."""

import torch
from torch import nn

from octvideo.models.pytorchvideo import import_pytorchvideo


def reference(name: str, num_classes: int = 400, width: int = 64) -> nn.Module:
    """c2d_r50, i3d_r50, slow_r50 of the hub; slowfast_r50 in its 4x16 form (32 frames, every 8th
    slow).

    The hub's heads pool the windows of 224 px; here they pool what there is, which is the same
    function at 224.
    """
    if name == "slowfast_r50":
        model = import_pytorchvideo("slowfast").create_slowfast(
            model_num_class=num_classes,
            slowfast_fusion_conv_kernel_size=(5, 1, 1),
            slowfast_fusion_conv_stride=(8, 1, 1),
        )
        model.blocks[5].pool = nn.ModuleList([nn.AdaptiveAvgPool3d(1), nn.AdaptiveAvgPool3d(1)])
        return model
    model = getattr(import_pytorchvideo("hub.resnet"), name)(
        model_num_class=num_classes, stem_dim_out=width
    )
    model.blocks[-1].pool = nn.AdaptiveAvgPool3d(1)
    return model


def randomise(model: nn.Module) -> nn.Module:
    """Every batch norm with statistics and an affine map of its own, and no gamma near zero; in
    evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def slow_frames(clip: torch.Tensor, ratio: int = 8) -> torch.Tensor:
    """PySlowFast's pick: evenly from the first frame to the last, truncated."""
    frames = clip.shape[2]
    return clip[:, :, torch.linspace(0, frames - 1, frames // ratio).long()]
