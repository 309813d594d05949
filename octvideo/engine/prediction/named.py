"""The prediction for a video: its most probable classes, or why there are none."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.data.clips.views import ViewSpec
from octvideo.errors import ConfigError


class Network(Protocol):
    """What the runs of this package need of a network: `octvideo.recognizer.Recognizer` has it."""

    class_names: list[str]
    device: torch.device
    num_frames: int
    usual_fps: float

    @property
    def takes_any_batch(self) -> bool: ...
    def fingerprint(self) -> str: ...
    def view_spec(self, views: str) -> ViewSpec: ...
    def center_crop(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]: ...
    def outputs(self, views: Tensor, *, scores: bool, features: bool) -> NDArray[np.float32]:
        """uint8 (N, 3, T, H, W) -> (N, classes), (N, channels), or one beside the other."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class NamedVideo:
    """A video and its most probable classes; `problem` says why there are none.

    features: float32 (C,), where they were asked for.
    """

    path: str
    predictions: Sequence[Prediction]
    problem: str = ""
    features: NDArray[np.float32] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Path, predictions and problem as plain values."""
        return {
            "path": self.path,
            "predictions": [asdict(p) for p in self.predictions],
            "problem": self.problem,
        }

    def as_text(self) -> str:
        if self.problem:
            return f"{self.path}: could not be read ({self.problem})"
        return "\n".join(
            [self.path, *(f"  {p.probability:6.1%}  {p.name}" for p in self.predictions)]
        )


def check_top_k(top_k: Any) -> None:
    """Raises ConfigError."""
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise ConfigError(f"top_k is {top_k!r}; give how many classes to name, 1 or more")


def top_predictions(
    scores: NDArray[np.float32], class_names: Sequence[str], k: int
) -> list[Prediction]:
    """The k most probable of (C,) scores; equal ones in the order of the classes."""
    order = np.argsort(-scores, kind="stable")[:k]
    return [Prediction(class_names[i], float(scores[i])) for i in order]
