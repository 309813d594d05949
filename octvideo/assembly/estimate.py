"""The time that a run will take on this machine, estimated from a few of its steps."""

import itertools
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from numpy import linspace
from torch import nn

from octvideo.assembly import data as build_data
from octvideo.assembly.identity import refuse_another_kind
from octvideo.assembly.probe import begin_probe, probe_settings
from octvideo.assembly.start import scorer
from octvideo.assembly.tasks import Task, task_of, with_counted_classes
from octvideo.assembly.training import build_trainer
from octvideo.complexity import count
from octvideo.data.loading.loader import Loader
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import default_view_chunk
from octvideo.engine.evaluation.frame_order import ORDERS
from octvideo.engine.threads import set_threads
from octvideo.engine.training.trainer import Trainer
from octvideo.errors import silence
from octvideo.models.registry import find_name, on_meta

STEPS = 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of the training, validation included, or of the features of a probe, and of the final
    test, with that of the frame order if there is one.

    training_macs, test_macs: of one clip, to extrapolate to another input size.
    """

    training: float
    testing: float
    training_macs: int
    test_macs: int

    @property
    def total(self) -> float:
        return self.training + self.testing

    def at(self, training_macs: int, test_macs: int) -> float:
        """Seconds of training and test if clips cost that many multiply-adds."""
        training = self.training * training_macs / self.training_macs
        return training + self.testing * test_macs / self.test_macs


def estimate(cfg: Any, procs: Processes, steps: int = STEPS, *, probe: bool = False) -> Estimate:
    """Run some training steps, none for a probe, and the views of a test video, and discard the
    results. OUTPUT_DIR is not touched.

    Raises OctvideoError for what the run would refuse before it reads a video; a training that
    other settings began is no such thing, as the one that is planned may be another.
    """
    cfg = probe_settings(cfg) if probe else with_counted_classes(cfg)
    task = task_of(cfg)
    model: nn.Module
    with silence():
        set_threads(cfg.DATA_LOADER.NUM_WORKERS)
        if probe:
            model, about = begin_probe(cfg, procs)
            model.to(procs.device)
        else:
            model, steps_seconds, epochs = _train_a_little(cfg, procs, task, steps)
    view = _view_seconds(cfg, task, model, procs)
    decode, num_tests = _decode_seconds(cfg, task)
    num_views = cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS
    num_passes = 1
    num_val = len(task.validation().paths)
    if probe:
        num_videos = about.training["data"]["samples"] + num_val
        training = num_videos * (num_views * view + decode)
    else:
        training = steps_seconds + num_val * (view + decode) * epochs / cfg.TRAIN.EVAL_PERIOD
    if cfg.TEST.DIAGNOSE:
        num_views, num_passes = num_views + len(ORDERS), 2
    test = num_tests * (num_views * view + num_passes * decode)
    return Estimate(training, test, *clip_macs(cfg))


def clip_macs(cfg: Any) -> tuple[int, int]:
    """Multiply-adds of a training clip and of a test clip, or of such images."""
    from octvideo.assembly.model import build_model

    task = task_of(cfg)
    name = find_name(cfg.MODEL.ARCH, cfg.RESNET.DEPTH)
    model = on_meta(name, lambda: build_model(cfg))
    shapes = (task.input_shape(), task.tested_shape())
    training, test = (count(model, shape).macs for shape in shapes)
    return training, test


def _train_a_little(
    cfg: Any, procs: Processes, task: Task, steps: int
) -> tuple[nn.Module, float, float]:
    """The network on its device, the seconds of all steps, judged by some of them, and the number
    of epochs."""
    refuse_another_kind(cfg.OUTPUT_DIR, "training")
    build_data.require_videos(cfg)
    loader = build_data.train_loader(cfg, task.train_dataset(), procs)
    with closing(loader):
        trainer = build_trainer(cfg, procs, loader, None)
        step = _step_seconds(trainer, loader, cfg.SOLVER.ACCUM_STEPS, steps)
    num_steps = trainer.position().total_steps
    return (
        trainer.model,
        num_steps * step,
        num_steps / max(len(loader) // cfg.SOLVER.ACCUM_STEPS, 1),
    )


def _step_seconds(trainer: Trainer, loader: Loader, batches_per_step: int, steps: int) -> float:
    """The mean of `steps` steps, waiting for data included, after a warm-up step."""
    trainer.set_training_mode()
    batches = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
    start = 0.0
    for number in range(steps + 1):
        if number == 1:
            start = perf_counter()
        trainer.step([next(batches) for _ in range(batches_per_step)], 0.0)
    return (perf_counter() - start) / steps


@torch.inference_mode()
def _view_seconds(cfg: Any, task: Task, model: nn.Module, procs: Processes) -> float:
    """Seconds of one view of the test, in the chunks of the test."""
    spec = build_data.final_views(cfg)
    chunk = cfg.TEST.VIEW_CHUNK or default_view_chunk(spec)
    score = scorer(cfg, model.eval())
    views = torch.rand(chunk, *task.tested_shape()).to(procs.device)
    start = 0.0
    for number in range(2):
        if number == 1:
            start = perf_counter()
        score(views).cpu()
    return (perf_counter() - start) / chunk


def _decode_seconds(cfg: Any, task: Task) -> tuple[float, int]:
    """Seconds per video of the test, with all workers busy; and the number of videos."""
    videos = next(iter(task.final_tests(task.class_names()))).videos
    at_once = max(cfg.DATA_LOADER.NUM_WORKERS, 1)
    numbers = linspace(0, len(videos.paths) - 1, 4 * at_once).astype(int).tolist()
    decoded = iter(videos.read(numbers))
    # The first ones wait for the workers to start.
    for _ in range(at_once):
        next(decoded)
    start = perf_counter()
    count = sum(1 for _ in decoded)
    return (perf_counter() - start) / count, len(videos.paths)
