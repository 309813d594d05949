"""Grad-CAM over time and space, of both octaves (Selvaraju et al. 2017)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.report.hooks import as_pair, captured
from octvideo.report.plots import color_map

Evidence = NDArray[np.float32]


def gradcam(
    model: nn.Module, clip: Tensor, class_index: int, layer: str = "res5"
) -> dict[str, Evidence]:
    """Where the evidence for a class lies: {"high": (T, H, W), "low": ...} in 0..1 at the clip's size.

    clip: float (1, 3, T, H, W). The two share one scale, so that a faint low group is faint in the picture too.
    Works for any layer whose output is a feature map; SlowFast: name it "slow.res5" or "fast.res5".
    """
    with torch.enable_grad(), captured(model.eval(), [layer]) as found:
        logits = model(clip.detach().requires_grad_())
        pair = as_pair(found[layer])
        groups = {"high": pair.high} | ({} if pair.low is None else {"low": pair.low})
        gradients = torch.autograd.grad(
            logits[0, class_index], list(groups.values()), allow_unused=True
        )
    maps = {
        name: _evidence(feature, gradient, clip.shape[2:])
        for (name, feature), gradient in zip(groups.items(), gradients, strict=True)
        if gradient is not None
    }
    scale = max(max(float(m.max()) for m in maps.values()), 1e-12)
    return {name: (m / scale).cpu().numpy() for name, m in maps.items()}


def overlay(frames: NDArray[np.uint8], evidence: Evidence) -> NDArray[np.uint8]:
    """uint8 (T, H, W, 3) frames with the evidence (T, H, W) in 0..1 glowing over a dimmed picture."""
    glow = color_map("inferno")(evidence)[..., :3] * 255
    weight = 0.25 + 0.6 * evidence[..., None]
    return np.clip(frames * (1 - weight) + glow * weight, 0, 255).astype(np.uint8)


def _evidence(feature: Tensor, gradient: Tensor, size: torch.Size) -> Tensor:
    weights = gradient.mean((2, 3, 4), keepdim=True)
    seen = F.relu((weights * feature).sum(1, keepdim=True)).detach()
    return F.interpolate(seen, size=tuple(size), mode="trilinear", align_corners=False)[0, 0]
