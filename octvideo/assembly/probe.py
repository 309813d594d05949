"""A linear probe: only the classifier is trained, on features that are computed once and stored."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from octvideo.assembly import data as build_data
from octvideo.assembly.identity import (
    refuse_another_kind,
    refuse_another_probe,
    warn_of_earlier_training,
)
from octvideo.assembly.model import build_model
from octvideo.assembly.start import running
from octvideo.assembly.tasks import Task, task_of, with_counted_classes
from octvideo.assembly.testing import log_tenths
from octvideo.assembly.training import describe
from octvideo.assembly.weights import load_initial_weights
from octvideo.checkpoint import Checkpoint
from octvideo.data.clips.views import VideoViews
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import default_view_chunk, evaluate
from octvideo.engine.evaluation.journal import Journal, fingerprint, weights_digest
from octvideo.engine.linear import fit_linear
from octvideo.engine.training.rng import seed_all
from octvideo.errors import ConfigError, DataError, logger
from octvideo.models.network import Network, pooled_features

Features = tuple[
    NDArray[np.float32], NDArray[np.int64]
]  # (N, D) of the videos that can be read, (N,) labels


def probe(cfg: Any, procs: Processes, on_start: Callable[[], object] | None = None) -> str:
    """Train the classifier on pooled features of train.csv, its penalty chosen on val.csv; returns
    the checkpoint's path. Raises CheckpointError if OUTPUT_DIR holds checkpoints of a training, or
    a probe of another network, start or input, and DataError for a list without labels.

    The features are stored in OUTPUT_DIR/features, a line per video, so that the same command
    computes only missing ones: of a file that has changed, or all of them under other weights or
    views. on_start: called by rank 0 once the folder is locked and the weights fit the network.
    """
    cfg = probe_settings(cfg)
    with running(cfg, procs):
        return _probe(cfg, procs, on_start)


def probe_settings(cfg: Any) -> Any:
    """The settings with their classes counted. Raises ConfigError for those that a probe cannot
    follow."""
    if cfg.DATA.MULTI_LABEL:
        raise ConfigError(
            "a probe names one class per video; train the network where DATA.MULTI_LABEL is true"
        )
    if weights := cfg.MODEL.CLASS_WEIGHTS:
        raise ConfigError(
            f"MODEL.CLASS_WEIGHTS is {weights}; in a probe all videos count alike: leave it out, or"
            " train the network"
        )
    return with_counted_classes(cfg)


def begin_probe(cfg: Any, procs: Processes) -> tuple[Network, Checkpoint]:
    """The network with its weights, and what the probe's checkpoint says; nothing is written.
    Raises OctvideoError for all that a probe refuses before it reads a video. cfg: of
    `probe_settings`."""
    procs.made_by_main(partial(refuse_another_kind, cfg.OUTPUT_DIR, "probe"))
    procs.made_by_main(partial(refuse_another_probe, cfg))
    procs.made_by_main(partial(build_data.require_videos, cfg))
    task = task_of(cfg)
    dataset = task.train_dataset()
    build_data.open_labeled_list(cfg, build_data.list_path(cfg, "val"))  # before hours of features
    seed_all(cfg.RNG_SEED)
    model = build_model(cfg)
    if not isinstance(getattr(getattr(model, "head", None), "fc", None), nn.Linear):
        raise ConfigError(
            f"{cfg.MODEL.ARCH}: a probe trains a layer head.fc on pooled features, which this"
            " network does not have; train the network, or probe one that does"
        )
    start = load_initial_weights(cfg, model, dataset, procs, task.class_names())
    about = describe(cfg, model, dataset)
    warn_of_earlier_training(start, about)
    return model, about


def _probe(cfg: Any, procs: Processes, on_start: Callable[[], object] | None) -> str:
    model, about = begin_probe(cfg, procs)
    task = task_of(cfg)
    if on_start and procs.is_main:
        on_start()
    model.to(procs.device).eval()
    train, val = (_features(cfg, task, model, procs, split) for split in ("train", "val"))
    classifier = fit_linear(*train, *val, num_classes=cfg.MODEL.NUM_CLASSES)
    logger.info("classifier: %s", classifier)
    with torch.no_grad():
        model.head.fc.weight.copy_(torch.from_numpy(classifier.weight))
        model.head.fc.bias.copy_(torch.from_numpy(classifier.bias))
    path = f"{cfg.OUTPUT_DIR}/checkpoints/best.pyth"
    if procs.is_main:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace(about, state=model.state_dict()).write(path)
    procs.barrier()
    return path


def _features(cfg: Any, task: Task, model: nn.Module, procs: Processes, split: str) -> Features:
    """The mean over the views of the final test, of every video of a list."""
    spec = build_data.final_views(cfg)
    path = build_data.list_path(cfg, split)
    test = next(iter(task.final_tests(task.class_names(), path)))
    assert isinstance(test.videos, VideoViews)
    key = fingerprint(
        weights=weights_digest(model.state_dict()),
        network=model.config,
        input=task.input_spec().as_dict(),
        views=repr(spec),
        paths=test.videos.paths,
    )
    journal = Journal(Path(cfg.OUTPUT_DIR) / "features" / split, key, procs.rank)
    found = evaluate(
        partial(pooled_features, model),
        test.videos,
        num_classes=model.head.fc.in_features,  # type: ignore[union-attr, arg-type]
        prepare=task.preparation(),
        view_chunk=cfg.TEST.VIEW_CHUNK or default_view_chunk(spec),
        processes=procs,
        journal=journal,
        progress=log_tenths(f"features of {split}"),
    )
    read = ~np.isnan(found.final).any(axis=1)
    if not read.any():
        raise DataError(f"{path}: none of its videos can be read")
    labels = np.array([label for label, *_ in found.labels], np.int64)
    return found.final[read], labels[read]
