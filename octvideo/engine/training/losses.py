"""Losses, mixup, and top-k hits of logits (N, classes)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from octvideo.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """targets: classes (N,), or weights of classes (N, classes)."""
    return F.cross_entropy(logits, targets, weight=weights, label_smoothing=label_smoothing)


def bce_logit(logits: Tensor, targets: Tensor, weights: Tensor | None, _: float) -> Tensor:
    """A yes or no per class. targets: (N, classes); weights count the positives."""
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits), pos_weight=weights)


# The losses by their names in MODEL.LOSS_FUNC. PySlowFast's soft one is what torch's cross-entropy
# has become.
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None, float], Tensor]] = {
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": cross_entropy,
    "bce_logit": bce_logit,
}


@dataclass(frozen=True, slots=True, eq=False)
class WeightedClasses:
    """Cross-entropy in which a clip counts by the weight of its class, a mixed one by those of its
    classes: sum of w l / sum of w, over all clips of an optimizer step.

    A part of a step that was divided by its own weights would lose them: in one of a single clip
    they cancel.
    """

    weights: Tensor
    label_smoothing: float = 0.0

    def __call__(
        self, logits: Tensor, targets: Tensor, mean_weight: Tensor | None = None
    ) -> Tensor:
        """mean_weight: of the clips of the whole step; None where these are all."""
        if mean_weight is None:
            weight, clips = self.sums(targets)
            mean_weight = weight / clips
        # Without the limit, clips of classes that do not count would have a loss of 0 / 0.
        mean = mean_weight.to(logits).clamp_min(torch.finfo(logits.dtype).tiny)
        summed = F.cross_entropy(
            logits,
            targets,
            self.weights.to(logits),
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return summed / (len(targets) * mean)

    def sums(self, targets: Tensor) -> Tensor:
        """The sum of the weights of these targets (N,) or (N, classes), and N; float64 (2,). Mixing
        the clips of a batch changes neither."""
        weights = self.weights.to(targets.device, torch.float64)
        own = weights[targets] if targets.ndim == 1 else targets.to(weights) @ weights
        return torch.stack([own.sum(), own.new_tensor(len(own))])


def make_loss(
    kind: str = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Loss:
    """loss(logits, targets) -> mean over the batch. kind: a key of `LOSSES`. Raises ConfigError for
    an unknown kind."""
    if kind not in LOSSES:
        raise ConfigError(f"there is no loss {kind!r}; there are {', '.join(LOSSES)}")
    compute = LOSSES[kind]
    weights = None if class_weights is None else torch.tensor(class_weights)
    if weights is not None and compute is cross_entropy:
        return WeightedClasses(weights, label_smoothing)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        weight = None if weights is None else weights.to(logits)
        return compute(logits, targets, weight, label_smoothing)

    return loss


@dataclass(frozen=True, slots=True)
class Mixer:
    """Mixup (Zhang 2018) and CutMix (Yun 2019) of a batch with its reverse; targets become (N,
    classes).

    alpha, cutmix_alpha: the share of a sample is drawn from Beta(alpha, alpha); 0 switches that
    form off.
    prob: the probability that a batch is mixed. switch_prob: the probability of CutMix if both
    forms are on.
    """

    num_classes: int
    alpha: float = 0.8
    cutmix_alpha: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        soft = targets if targets.ndim == 2 else F.one_hot(targets, self.num_classes)
        soft = soft.to(inputs.dtype)
        if not (self.alpha or self.cutmix_alpha) or _drawn() >= self.prob:
            return inputs, soft
        cut = not self.alpha or (self.cutmix_alpha > 0 and _drawn() < self.switch_prob)
        alpha = self.cutmix_alpha if cut else self.alpha
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        if cut:
            inputs, share = _cutmix(inputs, share)
        else:
            inputs = inputs.lerp(inputs.flip(0), 1 - share)
        return inputs, soft.lerp(soft.flip(0), 1 - share)


def _cutmix(inputs: Tensor, share: float) -> tuple[Tensor, float]:
    """A box of 1 - share of the area comes from the other sample, in all frames; the share left."""
    height, width = inputs.shape[-2:]
    box_height, box_width = (int(side * (1 - share) ** 0.5) for side in (height, width))
    middle_y, middle_x = int(_drawn() * height), int(_drawn() * width)
    top, left = max(middle_y - box_height // 2, 0), max(middle_x - box_width // 2, 0)
    bottom, right = min(middle_y + box_height // 2, height), min(middle_x + box_width // 2, width)
    mixed = inputs.clone()
    mixed[..., top:bottom, left:right] = inputs.flip(0)[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _drawn() -> float:
    return float(torch.rand(()))


def hits(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """The number of rows with a right class among their k highest logits (k is cut to the number of
    classes).

    With soft or multiple targets any class with a positive weight counts as right.
    """
    guesses = logits.topk(min(k, logits.shape[1]), dim=1).indices
    if targets.ndim == 2:
        return (targets.gather(1, guesses) > 0).any(1).sum()
    return (guesses == targets[:, None]).any(1).sum()
