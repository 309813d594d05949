"""`--dry-run`: two training and evaluation steps on generated data in the shapes of a config, and
what a training would make of the checkpoints that are there."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Generator, Tensor

from octvideo.assembly import data as build_data
from octvideo.assembly.identity import RunIdentity, refuse_another_kind
from octvideo.assembly.start import running
from octvideo.assembly.tasks import task_of, with_counted_classes
from octvideo.assembly.training import build_trainer, list_facts, validator
from octvideo.checkpoint import Checkpoint
from octvideo.config.check import first_problem
from octvideo.data.clips.views import DecodedVideo, ViewSpec
from octvideo.data.loading.batch import Sample
from octvideo.data.sampling import Timing
from octvideo.engine.checkpoint_files import read_latest
from octvideo.engine.distributed import Processes
from octvideo.engine.log import setup_logging
from octvideo.engine.training.snapshots import changes_since
from octvideo.errors import CheckpointError, ConfigError, OctvideoError, logger


def dry_run(cfg: Any, procs: Processes) -> None:
    """Two training and two evaluation steps of a config on generated data; nothing is kept. Raises
    ConfigError for a batch that training would refuse, CheckpointError for the folder of a probe
    and, after the steps, for a checkpoint in OUTPUT_DIR that training would refuse."""
    build_data.clips_per_pass(cfg, procs.world_size)
    with ExitStack() as stack:
        folder = procs.made_by_main(lambda: stack.enter_context(TemporaryDirectory()))
        small = _shrunk(cfg, folder, procs.world_size)
        stack.enter_context(running(small, procs))
        classes, multi_label = small.MODEL.NUM_CLASSES, cfg.DATA.MULTI_LABEL
        task = task_of(small)
        samples = GeneratedSamples(
            task.input_shape(), classes, 2 * small.TRAIN.BATCH_SIZE, multi_label
        )
        videos = GeneratedVideos(task.validation_spec(), classes, 2, multi_label)
        loader = build_data.train_loader(small, samples, procs)
        build_trainer(small, procs, loader, validator(small, videos, procs)).train()
        setup_logging(None, procs.is_main)
    logger.info("dry run: two training and two evaluation steps went through")
    procs.made_by_main(partial(say_what_is_there, cfg))


def say_what_is_there(cfg: Any) -> None:
    """Log whether a training with these settings would resume from a checkpoint in OUTPUT_DIR.
    Raises CheckpointError where it would be refused, as far as the lists are there, or where the
    folder is a probe's."""
    refuse_another_kind(cfg.OUTPUT_DIR, "training")
    found = read_latest(f"{cfg.OUTPUT_DIR}/checkpoints")
    if found is None:
        return
    path, content = found
    checkpoint = Checkpoint.of(content, path)
    try:
        changes = changes_since(checkpoint, _beside(checkpoint, cfg), cfg.TRAIN.AUTO_RESUME)
    except CheckpointError as refusal:
        raise CheckpointError(f"the training would be refused: {refusal}") from None
    but = f", with {', '.join(changes)}" if changes else ""
    logger.info("the training would resume from %s%s", path, but)


def _beside(checkpoint: Checkpoint, cfg: Any) -> RunIdentity:
    """The run of these settings; classes and list are the checkpoint's where the data are away."""
    with suppress(OctvideoError):
        cfg = with_counted_classes(cfg)
        task = task_of(cfg)
        names, facts = tuple(task.class_names()), list_facts(task.train_dataset())
        about = replace(checkpoint, class_names=names, training={"data": facts})
        return RunIdentity(cfg, about)
    about = replace(checkpoint, training={"data": checkpoint.training.get("data")})
    return RunIdentity(with_counted_classes(cfg, len(checkpoint.class_names)), about)


def _shrunk(cfg: Any, output_dir: str, world_size: int) -> Any:
    """The settings with one epoch of two steps and two samples per forward pass. Where nothing says
    how many classes there are, there are two."""
    small = cfg.clone()
    small.defrost()
    small.OUTPUT_DIR = output_dir
    named = len(task_of(cfg).given_names())
    small.MODEL.NUM_CLASSES = cfg.MODEL.NUM_CLASSES or named or len(cfg.MODEL.CLASS_WEIGHTS) or 2
    if problem := first_problem(small):
        raise ConfigError(problem)
    small.TRAIN.BATCH_SIZE = 2 * world_size * cfg.SOLVER.ACCUM_STEPS
    small.TEST.BATCH_SIZE = small.TRAIN.BATCH_SIZE // world_size
    small.TRAIN.CHECKPOINT_FILE_PATH, small.TRAIN.CHECKPOINT_INFLATE = "", False
    small.SOLVER.MAX_EPOCH, small.SOLVER.MAX_ITER = 1, 0
    small.SOLVER.LR_POLICY, small.SOLVER.WARMUP_EPOCHS = "cosine", 0.0
    small.BN.NUM_BATCHES_PRECISE = 1
    small.DATA_LOADER.NUM_WORKERS = 0
    small.TENSORBOARD.ENABLE = False
    return small


@dataclass(frozen=True)
class GeneratedSamples:
    """Noise of one shape with labels in turn: a Dataset for the loader."""

    shape: tuple[int, ...]
    num_classes: int
    num_samples: int
    multi_label: bool = False

    def __len__(self) -> int:
        return self.num_samples

    def fingerprint(self) -> str:
        return "generated"

    def sample(self, epoch: int, index: int) -> Sample:
        label = index % self.num_classes
        target = torch.eye(self.num_classes)[label] if self.multi_label else label
        return Sample(_noise(self.shape, index), target, index, f"generated clip {index}")


class GeneratedVideos:
    """Videos of noise, twice as wide as high and as long as a clip: `Videos` for an evaluation."""

    def __init__(
        self, spec: ViewSpec, num_classes: int, num_videos: int = 2, multi_label: bool = False
    ) -> None:
        self.spec, self.multi_label = spec, multi_label
        self.paths: Sequence[str] = [f"generated video {i}" for i in range(num_videos)]
        self.read_as: Sequence[str] = [""] * num_videos
        self.labels: Sequence[tuple[int, ...]] = [(i % num_classes,) for i in range(num_videos)]

    def read(self, indices: Sequence[int]) -> Iterable[DecodedVideo]:
        rule, side = self.spec.rule, self.spec.short_side
        for index in indices:
            frames = _noise((rule.num_frames, side, 2 * side, 3), index)
            clips = self.spec.clips(Timing(rule.num_frames, rule.target_fps))
            yield DecodedVideo(index, self.paths[index], frames, torch.tensor(clips))


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))
