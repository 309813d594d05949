"""The effect of splitting vanilla image weights for an octave network: the error of each stage, and
of the classification.

A share alpha of the channels loses its fine detail when kernels are split, and pooling where the
image network strides changes the rest. Batch norm statistics that are measured anew, or training,
recover much of it; these numbers are the starting point.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.counted_run import captured, evaluating
from octvideo.layers import merge
from octvideo.models import create_model
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import image_pathway, inflate
from octvideo.weights.source import State

STAGES = ("res2", "res3", "res4", "res5")


@dataclass(frozen=True, slots=True)
class StageError:
    """|features - vanilla features| / |vanilla features| after a stage; `strided`: the error
    without pooling."""

    stage: str
    error: float
    strided: float

    @property
    def pooled_share(self) -> float:
        """The part of the error that striding like the image network would avoid; negative if
        pooling helps."""
        return 1 - self.strided / self.error if self.error else 0.0

    def __str__(self) -> str:
        return (
            f"{self.stage}: relative feature error {self.error:.3f}, {self.pooled_share:.0%} of it"
            " from pooling"
        )


@torch.no_grad()
def stage_errors(
    state_2d: State, model_3d: nn.Module, clips: Tensor, assumes: Assumptions
) -> list[StageError]:
    """Compare `model_3d`, inflated from vanilla weights, with the vanilla video network inflated
    from them.

    clips: float (N, 3, T, H, W), normalized as the weights expect.
    """
    config: dict[str, Any] = model_3d.config  # type: ignore[assignment]
    vanilla = _inflated(
        state_2d, assumes, {**config, "alpha": 0.0, "downsample": assumes.downsample or "stride"}
    )
    strided = _inflated(state_2d, assumes, {**config, "downsample": "stride"})
    wanted = stage_features(vanilla, clips)

    def errors_of(model: nn.Module) -> dict[str, float]:
        got = stage_features(model, clips)
        norms = {stage: (got[stage] - wanted[stage]).norm() for stage in STAGES}
        return {stage: float(norm / wanted[stage].norm()) for stage, norm in norms.items()}

    errors = [errors_of(model) for model in (model_3d, strided)]
    return [StageError(stage, errors[0][stage], errors[1][stage]) for stage in STAGES]


def _inflated(state_2d: State, assumes: Assumptions, config: dict[str, Any]) -> nn.Module:
    model = create_model(**config)
    inflate(state_2d, model, assumes)
    return model


def stage_features(model: nn.Module, clips: Tensor) -> dict[str, Tensor]:
    """The outputs of res2..res5 (in SlowFast, of the slow pathway) in evaluation mode, with the low
    group upsampled and concatenated."""
    pathway = image_pathway(model)
    stages = {stage: pathway.get_submodule(stage) for stage in STAGES}
    with captured(stages) as found, evaluating(model):
        model(clips)
    return {stage: merge(output) for stage, output in found.items()}


@dataclass(frozen=True, slots=True)
class Recovery:
    """Top-1 in per cent, before and after new batch norm statistics were measured."""

    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"top-1 {self.before:.1f} %, with batch norm statistics measured anew"
            f" {self.after:.1f} %"
        )


def measure_recovery(
    model: nn.Module, clips: Iterable[tuple[Tensor, Tensor]], remeasure: Callable[[nn.Module], None]
) -> Recovery:
    """clips: batches of float (N, 3, T, H, W) and labels (N,), iterated twice. remeasure replaces
    the statistics."""
    before = top1(model, clips)
    remeasure(model)
    return Recovery(before, top1(model, clips))


@torch.no_grad()
def top1(model: nn.Module, clips: Iterable[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    hits = torch.cat([model(inputs).argmax(1) == targets for inputs, targets in clips])
    return 100 * float(hits.float().mean())
