"""Weights to start from, of whatever kind, into a network of whatever kind."""

import logging

from torch import nn

from octvideo.checkpoint import Checkpoint
from octvideo.weights.image_weights import read_image_weights
from octvideo.weights.inflate import inflate
from octvideo.weights.load import load_weights

logger = logging.getLogger("octvideo")


def is_to_be_inflated(checkpoint: Checkpoint, model: nn.Module) -> bool:
    """Image weights for a video network, as the kernels tell."""
    return is_image(checkpoint) and getattr(model, "takes", "") == "clips"


def is_image(checkpoint: Checkpoint) -> bool:
    """Are they the weights of an image network, as the kernels tell?"""
    dims = {tensor.dim() for tensor in checkpoint.weights.values()}
    return 4 in dims and 5 not in dims


def fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load video weights into a video network and image weights into an image network; inflate image weights.

    Raises CheckpointError, with the model untouched, where they do not fit.
    """
    if not is_to_be_inflated(checkpoint, model):
        load_weights(model, checkpoint)
        return
    weights = read_image_weights(checkpoint)
    report = inflate(weights.state, model, weights.assumes)
    logger.info("inflated %s (%s): %s", checkpoint.path, weights.layout, "; ".join(report.lines()))
