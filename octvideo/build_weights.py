"""Weights to start from, as a config names them. Reads TRAIN.CHECKPOINT_* and the DATA that they must agree with."""

import logging
from typing import Any

from torch import nn

from octvideo.torch_file import read_torch_file
from octvideo.weights import load_weights
from octvideo.weights.convert import convert_weights
from octvideo.weights.image_weights import ImageWeights, read_image_weights
from octvideo.weights.inflate import InflationReport, inflate

logger = logging.getLogger("octvideo")


def load_initial_weights(cfg: Any, model: nn.Module) -> None:
    """Fill `model` from TRAIN.CHECKPOINT_FILE_PATH; where that is empty, training starts from scratch."""
    path = cfg.TRAIN.CHECKPOINT_FILE_PATH
    if not path:
        if cfg.TRAIN.CHECKPOINT_INFLATE:
            logger.warning("training from scratch: TRAIN.CHECKPOINT_FILE_PATH names no image weights to inflate")
    elif cfg.TRAIN.CHECKPOINT_INFLATE:
        report = inflate_from(cfg, read_weights(cfg, path), model)
        logger.info("inflated %s: %s", path, "; ".join(report.lines()))
    else:
        load_weights(model, path, clear_prefixes=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN)


def read_weights(cfg: Any, path: str) -> ImageWeights:
    """Of a checkpoint of this package, a ResNet in torchvision's layout, or an official OctConv file."""
    if path.endswith((".params", ".tar")):
        return read_image_weights(convert_weights(path).checkpoint(), path)
    return read_image_weights(read_torch_file(path), path, cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN)


def inflate_from(cfg: Any, weights: ImageWeights, model: nn.Module) -> InflationReport:
    """Raises CheckpointError where the weights contradict the model or DATA.MEAN and DATA.STD."""
    trusted = weights.assumes.check_input(cfg.DATA.MEAN, cfg.DATA.STD)
    report = inflate(weights.state, model, weights.assumes)
    report.notes += trusted
    return report
