"""The network inside a recognizer: its description, its optimization, the check of its outputs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from octvideo.data.sources import Source
from octvideo.deploy.cache import hash_of
from octvideo.deploy.engines import WindowScores, choose, optimize
from octvideo.deploy.exported import ExportedNetwork
from octvideo.deploy.precision import split_clips
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models.network import HeadAct, Network, alpha_of, config_of, pooled_features


def described(recognizer: Any) -> str:
    """One line: the network, its classes, its clips and its device."""
    options = config_of(recognizer.model)
    network = options.get("name", type(recognizer.model).__name__)
    alpha = f", alpha {alpha:g}" if (alpha := alpha_of(options)) else ""
    classes, size = recognizer.class_names, recognizer.preprocessing
    several = " of which several may hold" if recognizer.multi_label else ""
    return (
        f"Recognizer({network}{alpha}; {len(classes)} classes{several}: {', '.join(classes[:2])},"
        f" ...; {size['num_frames']} frames x stride {size['sampling_rate']} at"
        f" {size['target_fps']:g} fps, {size['crop_size']} x {size['crop_size']} pixels; on"
        f" {recognizer.device})"
    )


def optimized(
    model: nn.Module,
    act: HeadAct,
    example: Tensor,
    engine: str,
    precision: str,
    calibration: Sequence[Source],
    read: Callable[[Source], Tensor],
) -> tuple[nn.Module, str]:
    """The optimized network, which returns probabilities, and a digest of the clips that set its
    ranges, "" of none; raises the errors of `octvideo.deploy.optimize`, those of its arguments
    before a video is `read`."""
    if isinstance(model, ExportedNetwork):
        raise ConfigError(
            f"{model.path}: another runtime computes it already; optimize the checkpoint that it"
            " was made of"
        )
    engine, precision = choose(engine, precision, example.device, len(calibration) > 0)
    clips = torch.cat([read(video) for video in calibration]) if len(calibration) else None
    fast = optimize(
        WindowScores(model, act),
        example,
        engine=engine,
        precision=precision,
        calibration=clips,
    )
    return fast, "" if clips is None else hash_of(split_clips(clips)[0])


def outputs(
    model: nn.Module, score: nn.Module, x: Tensor, *, scores: bool, features: bool
) -> list[Tensor]:
    """Probabilities (N, classes), features (N, channels), or both. A network that is not optimized
    gives both in one pass; a runtime gives probabilities alone, and features take a second one."""
    if scores and features and isinstance(score, WindowScores) and isinstance(model, Network):
        return list(model.scores_and_features(x, score.act))
    found = [score(x)] if scores else []
    return [*found, pooled_features(model, x)] if features else found


def finite(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores. Raises CheckpointError where they are not finite."""
    if not np.isfinite(scores).all():
        raise CheckpointError("the network's outputs are not finite; its weights have diverged")
    return scores
