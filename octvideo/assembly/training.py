"""Training with the settings of a config."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from octvideo.assembly import data as build_data
from octvideo.assembly import recipe as build_recipe
from octvideo.assembly.identity import (
    RunIdentity,
    data_of,
    digest,
    facts,
    refuse_another_kind,
    warn_of_earlier_training,
)
from octvideo.assembly.model import build_model
from octvideo.assembly.start import head_act, running, scorer
from octvideo.assembly.tasks import require_data_folder, task_of, with_counted_classes
from octvideo.assembly.weights import frozen_parts, load_initial_weights
from octvideo.checkpoint import Checkpoint
from octvideo.complexity import stage_table
from octvideo.data.clips.dataset import ClipDataset
from octvideo.data.loading.batch import Batch
from octvideo.data.loading.loader import Dataset, Loader
from octvideo.engine.checkpoint_files import is_resumable
from octvideo.engine.distributed import ALONE, Processes
from octvideo.engine.evaluation.evaluate import Videos, evaluate
from octvideo.engine.evaluation.journal import weights_digest
from octvideo.engine.evaluation.results import summarize
from octvideo.engine.training import adapt
from octvideo.engine.training.losses import Mixer, make_loss
from octvideo.engine.training.rng import be_deterministic, seed_all
from octvideo.engine.training.state import Callbacks, TrainSummary
from octvideo.engine.training.trainer import Trainer
from octvideo.errors import ConfigError, logger
from octvideo.layers import channels_last
from octvideo.models.network import recomputable_parts

Validate = Callable[[nn.Module], dict[str, float]]


def train(cfg: Any, procs: Processes, callbacks: Callbacks | None = None) -> TrainSummary:
    """Train in OUTPUT_DIR, or resume the run in it. `finished` is False if a signal stopped it.
    Raises CheckpointError for a folder that holds another run's checkpoints, or a probe's."""
    require_data_folder(cfg)
    cfg = with_counted_classes(cfg)
    with running(cfg, procs):
        procs.made_by_main(partial(refuse_another_kind, cfg.OUTPUT_DIR, "training"))
        procs.made_by_main(partial(build_data.require_videos, cfg))
        return _train(cfg, procs, callbacks)


def _train(cfg: Any, procs: Processes, callbacks: Callbacks | None) -> TrainSummary:
    task = task_of(cfg)
    loader = build_data.train_loader(cfg, task.train_dataset(), procs)
    videos = task.validation()
    validate = validator(cfg, videos, procs)
    trainer = build_trainer(cfg, procs, loader, validate, callbacks, data_of(videos))
    steps = len(loader) // cfg.SOLVER.ACCUM_STEPS
    for warning in (
        build_recipe.recipe_warning(cfg),
        build_recipe.schedule_warning(cfg),
        build_recipe.frozen_warning(cfg),
        build_recipe.average_warning(cfg, steps),
    ):
        if warning:
            logger.warning(warning)
    summary = trainer.train()
    for path, cause in loader.bad.items():
        logger.warning("%s: could not be read (%s), others stood in for it", path, cause)
    logger.info(
        "checkpoints and curves: %s, checkpoints/, metrics.jsonl, tensorboard/", cfg.OUTPUT_DIR
    )
    return summary


def training_batches(cfg: Any) -> tuple[Iterator[Batch], list[str]]:
    """The first epoch as the network's input, for inspection, and the class names."""
    require_data_folder(cfg)
    cfg = with_counted_classes(cfg)
    task = task_of(cfg)
    loader = build_data.train_loader(cfg, task.train_dataset(), ALONE)
    return loader.epoch(0), task.class_names()


def build_trainer(
    cfg: Any,
    procs: Processes,
    loader: Loader,
    validate: Validate | None,
    callbacks: Callbacks | None = None,
    validation: dict[str, Any] | None = None,
) -> Trainer:
    """The trainer, seeded, on its device, with the weights of TRAIN.CHECKPOINT_FILE_PATH; these may
    be gone where OUTPUT_DIR has a whole checkpoint, which takes their place when training resumes.

    validation: `data_of` the data that `validate` sees, for a run that is resumed to compare.
    """
    seed_all(cfg.RNG_SEED)
    if cfg.TRAIN.DETERMINISTIC:
        be_deterministic()
    model = build_model(cfg)
    if cfg.LOG_MODEL_INFO:
        logger.info("%s", stage_table(model, task_of(cfg).input_shape()))
    folder, start = f"{cfg.OUTPUT_DIR}/checkpoints", Checkpoint()
    if not procs.from_main(procs.is_main and is_resumable(folder)):
        names = task_of(cfg).class_names()
        start = load_initial_weights(cfg, model, loader.dataset, procs, names)
    seed_all(cfg.RNG_SEED + procs.rank)  # equal initial weights, different dropout on each rank
    frozen = _adapt(cfg, model, procs)
    steps = max(len(loader) // cfg.SOLVER.ACCUM_STEPS, 1)
    logger.info(build_recipe.describe_recipe(cfg, steps, procs.world_size))
    for warning in build_recipe.precision_warnings(cfg, procs.device):
        logger.warning(warning)
    about = describe(cfg, model, loader.dataset)
    warn_of_earlier_training(start, about)
    about = replace(about, training=about.training | {"validation": validation})
    if procs.world_size > 1:
        known = {"list": about.training["data"], "classes": digest(about.class_names)}
        procs.agree(facts(cfg) | known | {"weights": weights_digest(model.state_dict())})
    mixup, mix = cfg.MIXUP, None
    if mixup.ENABLE:
        shares = (mixup.ALPHA, mixup.CUTMIX_ALPHA, mixup.PROB, mixup.SWITCH_PROB)
        mix = Mixer(cfg.MODEL.NUM_CLASSES, *shares)
    return Trainer(
        model,
        loader,
        build_recipe.build_optimizer(cfg, model),
        build_recipe.build_schedule(cfg, steps),
        build_recipe.build_options(cfg),
        loss=make_loss(
            cfg.MODEL.LOSS_FUNC,
            label_smoothing=cfg.MIXUP.LABEL_SMOOTH_VALUE if cfg.MIXUP.ENABLE else 0.0,
            class_weights=cfg.MODEL.CLASS_WEIGHTS or None,
        ),
        prepare=build_data.preparation(cfg),
        validate=validate,
        mix=mix,
        frozen=frozen,
        procs=procs,
        about=about,
        identity=RunIdentity(cfg, about),
        callbacks=callbacks,
    )


def _adapt(cfg: Any, model: nn.Module, procs: Processes) -> list[nn.Module]:
    """Synchronized batch norm, freezing, recomputation, memory format, device; returns the modules
    that stay in evaluation mode."""
    if cfg.BN.NORM_TYPE == "sync_batchnorm" and procs.world_size > 1:
        adapt.synchronize_batch_norm(model, procs.device)
    frozen = adapt.freeze(model, frozen_parts(cfg, model))
    if cfg.MODEL.FROZEN_BN:
        frozen += adapt.freeze_batch_norm(model)
    if cfg.MODEL.ACT_CHECKPOINT:
        parts = recomputable_parts(model)
        if not parts:
            raise ConfigError(
                f"MODEL.ACT_CHECKPOINT is true, and {cfg.MODEL.ARCH} declares nothing that may be"
                " recomputed; set may_be_recomputed on its blocks, or MODEL.ACT_CHECKPOINT to"
                " false"
            )
        adapt.recompute_activations(parts)
    if cfg.OCTCONV.MEMORY_SAVING and cfg.TRAIN.COMPILE:
        logger.warning(
            "OCTCONV.MEMORY_SAVING changes nothing with TRAIN.COMPILE True: a compiler chooses by"
            " itself what to compute again; set one of them False"
        )
    model.to(procs.device)
    channels_last(model, cfg.TRAIN.CHANNELS_LAST or procs.device.type == "cpu")
    return frozen


def describe(cfg: Any, model: nn.Module, dataset: Dataset) -> Checkpoint:
    """The facts that let a checkpoint be used without a config; saving adds the weights."""
    network: Any = model.config
    task = task_of(cfg)
    return Checkpoint(
        network=network,
        class_names=tuple(task.class_names()),
        input=task.input_spec(),
        multi_label=cfg.DATA.MULTI_LABEL,
        head_act=head_act(cfg),
        recipe=cfg.dump(),
        training={"data": list_facts(dataset)},
    )


def list_facts(dataset: Dataset) -> dict[str, Any]:
    """The facts by which a checkpoint knows its training list."""
    return {
        "fingerprint": dataset.fingerprint(),
        "samples": len(dataset),
        "classes": _renumbering(dataset),
    }


def _renumbering(dataset: Dataset) -> list[int] | None:
    """The class of each label of the list, which its fingerprint does not show; None where labels
    are the classes."""
    classes = list(dataset.classes or ()) if isinstance(dataset, ClipDataset) else []
    return None if classes == list(range(len(classes))) else classes


def validator(cfg: Any, videos: Videos, procs: Processes) -> Validate:
    """validate(model) -> errors in per cent and mean loss, over a view of each video or image."""
    task = task_of(cfg)
    names = task.class_names()

    def validate(model: nn.Module) -> dict[str, float]:
        evaluation = evaluate(
            scorer(cfg, model),
            videos,
            num_classes=cfg.MODEL.NUM_CLASSES,
            prepare=task.preparation(),
            batch_size=task.batch_size,
            processes=procs,
        )
        if problem := evaluation.unread():
            logger.warning("validation: %s, and count as wrong", problem)
        summary = summarize(evaluation, names, {})
        if "map" in summary:
            return {"map_err": 100 * (1 - summary["map"])}
        errors = {"top1_err": 100 - summary["top1_acc"], "top5_err": 100 - summary["top5_acc"]}
        loss = summary["log_loss"]
        return errors if loss is None else errors | {"loss": loss}

    return validate
