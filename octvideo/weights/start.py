"""Load initial weights of any kind into a network of any kind."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError, logger
from octvideo.models import create_model
from octvideo.models.network import config_of
from octvideo.models.pytorchvideo import (
    PytorchvideoNet,
    PytorchvideoOptions,
    octave_arguments,
)
from octvideo.models.registry import family_in
from octvideo.models.slowfast import SlowFast
from octvideo.models.video_resnet import VideoResNet
from octvideo.octavize import octavize
from octvideo.weights.image_weights import (
    ImageWeights,
    read_image_weights,
    read_video_weights,
)
from octvideo.weights.inflate import inflate
from octvideo.weights.inflation_report import InflationReport
from octvideo.weights.load import load_weights
from octvideo.weights.source import is_octave, is_video

# An octave network may pool where the vanilla one strides: a part of what dividing is.
CHANGED_BY_DIVISION = ("downsample", "nonlocal_on")


def is_to_be_inflated(checkpoint: Checkpoint, model: nn.Module) -> bool:
    """Whether these are image weights for a video network."""
    return is_image(checkpoint) and getattr(model, "takes", "") == "clips"


def is_image(checkpoint: Checkpoint) -> bool:
    """Whether these are weights of an image network: its family tells, which may be one of 2D
    kernels for clips; the kernels where the file says none that is known."""
    if family := family_in(checkpoint.network):
        return not family.takes_clips
    dims = {tensor.dim() for tensor in checkpoint.weights.values()}
    return 4 in dims and 5 not in dims


def is_to_be_divided(checkpoint: Checkpoint, model: nn.Module) -> bool:
    """Whether these are weights of a vanilla video network, for an octave network here."""
    config = config_of(model)
    is_octave_model = bool(config.get("alpha")) and isinstance(model, VideoResNet | SlowFast)
    return is_octave_model and is_video(checkpoint.weights) and not is_octave(checkpoint.weights)


def is_to_be_octavized(checkpoint: Checkpoint, model: nn.Module) -> bool:
    """Whether these are weights of a vanilla network, for what `octavize` made of it."""
    vanilla = bool(checkpoint.weights) and not is_octave(checkpoint.weights)
    return vanilla and made_octave_with(model) is not None


def made_octave_with(model: nn.Module) -> dict[str, Any] | None:
    """The arguments of `octavize` that made `model` octave, `example` as a shape; None if
    `octavize` did not make it."""
    config = config_of(model)
    if config.get("octavize"):
        return dict(config["octavize"])
    if not (isinstance(model, PytorchvideoNet) and config.get("alpha")):
        return None
    options = {name: value for name, value in config.items() if name != "name"}
    name = str(config["name"]).removeprefix("ptv:")
    return octave_arguments(name, PytorchvideoOptions(**options))


def octavize_into(
    model: nn.Module,
    checkpoint: Checkpoint,
    clips: Tensor | None = None,
    prefixes: Sequence[str] = (),
) -> Any:
    """Fill an octavized network with vanilla weights: they are loaded into its vanilla form, which
    `octavize` then converts with the network's own arguments.

    clips: float (N, 3, T, H, W) that sort the channels, if the network has
    low_channels="smoothest". prefixes: texts to remove from the names of the weights. Returns the
    `OctaveReport`. Raises CheckpointError if the weights do not fit.
    """
    arguments = made_octave_with(model)
    assert arguments is not None
    config: dict[str, Any] = model.config  # type: ignore[assignment]
    vanilla = create_model(**{**config, "alpha": 0.0, "octavize": None})
    load_weights(vanilla, checkpoint, clear_prefixes=prefixes)
    example = torch.empty(arguments["example"], device="meta") if clips is None else clips
    octave = octavize(vanilla, **{**arguments, "example": example})
    state = octave.state_dict()
    own = model.state_dict()
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in own.items()}:
        raise CheckpointError(
            f"{checkpoint.path}: its channels are divided otherwise than the network's; report this"
            " with the config"
        )
    model.load_state_dict(state)
    return octave.octave_report


def fill_from(weights: ImageWeights, model: nn.Module, path: str) -> InflationReport:
    """Inflate image weights or split video weights. Raises CheckpointError if they do not fit."""
    if is_video(weights.state):
        kept = {k: v for k, v in weights.assumes.options.items() if k not in CHANGED_BY_DIVISION}
        replace(weights.assumes, options=kept).check_options(model, path)
    return inflate(weights.state, model, weights.assumes)


def fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load video weights into a video network and image weights into an image network; inflate
    image weights for a video network.

    Vanilla video weights are split for an octave network, their last channels low. Raises
    CheckpointError, with the model untouched, if they do not fit.
    """
    if is_to_be_octavized(checkpoint, model):
        octavize_into(model, checkpoint)
        logger.info("divided %s, its last channels low", checkpoint.path)
        return
    if is_to_be_divided(checkpoint, model):
        weights = read_video_weights(checkpoint)
        report = fill_from(weights, model, checkpoint.path)
        logger.info("divided %s: %s", checkpoint.path, "; ".join(report.lines()))
        return
    if not is_to_be_inflated(checkpoint, model):
        load_weights(model, checkpoint)
        return
    weights = read_image_weights(checkpoint)
    report = fill_from(weights, model, checkpoint.path)
    logger.info("inflated %s (%s): %s", checkpoint.path, weights.layout, "; ".join(report.lines()))
