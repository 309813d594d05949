"""Losses, mixup, and hits: what is asked of logits (N, classes)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(
    kind: Literal["cross_entropy", "bce_logit"] = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Loss:
    """loss(logits, targets) -> mean over the batch. targets: classes (N,), or weights of classes (N, classes)."""
    weights = None if class_weights is None else torch.tensor(class_weights)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weight = None if weights is None else weights.to(logits)
        if kind == "bce_logit":
            return F.binary_cross_entropy_with_logits(logits, targets.to(logits), pos_weight=weight)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=label_smoothing)

    return loss


def mixup(inputs: Tensor, targets: Tensor, num_classes: int, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend the batch with its reverse, share ~ Beta(alpha, alpha) of it; targets become (N, classes). (Zhang 2018.)"""
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    soft = targets if targets.ndim == 2 else F.one_hot(targets, num_classes).to(inputs.dtype)
    return inputs.lerp(inputs.flip(0), 1 - share), soft.lerp(soft.flip(0), 1 - share)


def hits(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """How many rows have a right class among their k highest (k is cut to the number of classes).

    With soft or multiple targets any class with a weight counts as right.
    """
    guesses = logits.topk(min(k, logits.shape[1]), dim=1).indices
    if targets.ndim == 2:
        return (targets.gather(1, guesses) > 0).any(1).sum()
    return (guesses == targets[:, None]).any(1).sum()
