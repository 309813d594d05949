"""Multinomial logistic regression: the classifier of a linear probe."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

# Half the squared norm of the weights, on standardized features.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """weight (C, D), bias (C,): for raw features. penalty: the best one in validation."""

    weight: Array
    bias: Array
    penalty: float
    train_accuracy: float
    val_accuracy: float
    val_loss: float

    def __str__(self) -> str:
        return (
            f"L2 penalty {self.penalty:g}, top-1 {self.train_accuracy:.1f} % of the training"
            f" videos, {self.val_accuracy:.1f} % of the validation videos (loss"
            f" {self.val_loss:.3f})"
        )


def fit_linear(
    features: Array, labels: Labels, val_features: Array, val_labels: Labels, *, num_classes: int
) -> Linear:
    """The weights with the lowest validation loss over all `PENALTIES`; by L-BFGS in float64,
    deterministic.

    features: (N, D), labels: (N,). Every dimension is standardized; the scaling becomes a part of
    weight and bias.
    """
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64) + 1e-6
    x, y = _standardized(features, mean, std), torch.from_numpy(labels)
    val_x, val_y = _standardized(val_features, mean, std), torch.from_numpy(val_labels)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for penalty in PENALTIES:
        weight, bias = _solve(x, y, num_classes, penalty)
        loss = float(F.cross_entropy(val_x @ weight.T + bias, val_y))
        if best is None or loss < best[0]:
            best = (loss, penalty, weight, bias)
    assert best is not None
    loss, penalty, weight, bias = best
    scaled = weight.numpy() / std
    return Linear(
        scaled.astype(np.float32),
        (bias.numpy() - scaled @ mean).astype(np.float32),
        penalty,
        _accuracy(x @ weight.T + bias, y),
        _accuracy(val_x @ weight.T + bias, val_y),
        loss,
    )


def _standardized(features: Array, mean: NDArray[np.float64], std: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy((features - mean) / std)


def _solve(x: Tensor, y: Tensor, num_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Minimize the mean cross entropy and `penalty` times half the squared norm of the weights."""
    weight = torch.zeros(num_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 * float((logits.argmax(1) == labels).double().mean())
