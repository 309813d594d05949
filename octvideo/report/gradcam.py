"""Grad-CAM over time and space, of both groups (Selvaraju et al. 2017)."""

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import ConfigError
from octvideo.report.hooks import captured, groups_of
from octvideo.report.plots import color_map

Evidence = NDArray[np.float32]
GLOW = "inferno"
ENOUGH = 7  # positions along a side of a feature map, as res5 has of a picture of 224 pixels


def gradcam(
    model: nn.Module, clip: Tensor, class_index: int, layer: str = "res5"
) -> dict[str, Evidence]:
    """Grad-CAM, the evidence for a class by place: {"high": (T, H, W), "low": ...} in 0..1, at the
    clip's size.

    clip: float (1, 3, T, H, W). The two share one scale, so that a faint low group is faint in the
    picture too. Works for any layer whose output is a feature map (`layer_to_look_at` finds one).
    """
    with torch.enable_grad(), captured(model.eval(), [layer]) as found:
        logits = model(clip.detach().requires_grad_())
        groups = groups_of(found[layer])
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


@torch.no_grad()
def layer_to_look_at(model: nn.Module, clip: Tensor) -> str:
    """The last stage whose feature map has at least 7 x 7 positions, else the one with the most.

    A stage is res2, res3, ... (of SlowFast's slow pathway), in other networks a child that gives a
    feature map. Raises ConfigError for a network without any.
    """
    names = [name for name, _ in model.named_modules() if re.fullmatch(r"(slow\.)?res\d", name)]
    names = names or [name for name, _ in model.named_modules() if name and name.count(".") < 2]
    with captured(model.eval(), names) as found:
        model(clip)
    sides = {}
    for name, feature in found.items():
        high = getattr(feature, "high", feature)
        if isinstance(high, Tensor) and high.dim() == 5:
            sides[name] = min(high.shape[-2:])
    if not sides:
        raise ConfigError("this network has no feature maps to look at; name a layer")
    enough = [name for name, side in sides.items() if side >= ENOUGH]
    return enough[-1] if enough else max(sides, key=lambda name: sides[name])


def overlay(frames: NDArray[np.uint8], evidence: Evidence) -> NDArray[np.uint8]:
    """uint8 (T, H, W, 3) frames with evidence (T, H, W) in 0..1 glowing over a dimmed picture."""
    glow = color_map(GLOW)(evidence)[..., :3] * 255
    weight = 0.25 + 0.6 * evidence[..., None]
    return np.clip(frames * (1 - weight) + glow * weight, 0, 255).astype(np.uint8)


def _evidence(feature: Tensor, gradient: Tensor, size: torch.Size) -> Tensor:
    weights = gradient.mean((2, 3, 4), keepdim=True)
    seen = F.relu((weights * feature).sum(1, keepdim=True)).detach()
    return F.interpolate(seen, size=tuple(size), mode="trilinear", align_corners=False)[0, 0]
