"""From settings to runs: the build modules are the only readers of a config.

Everything that it calls takes plain values by name. `train`, `final_test` and `dry_run` are what the tools do.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from iopath.common.file_io import g_pathmgr
from torch import nn

from octvideo import build_data, build_recipe
from octvideo.build_dry_run import GeneratedSamples, GeneratedVideos
from octvideo.build_images import final_image_test, image_validator, validation_images
from octvideo.build_model import build_model
from octvideo.build_weights import load_initial_weights
from octvideo.complexity import count, stage_table
from octvideo.config import config_from_text
from octvideo.data.batch import Batch
from octvideo.data.loader import Loader
from octvideo.data.views import ViewSpec
from octvideo.deploy.optimize import WindowScores, optimize
from octvideo.engine import adapt
from octvideo.engine.checkpoint import find_latest
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluate import Scorer, Videos, default_view_chunk, evaluate
from octvideo.engine.files import make_output_folder
from octvideo.engine.journal import Journal, fingerprint
from octvideo.engine.log import setup_logging
from octvideo.engine.losses import make_loss, mixup
from octvideo.engine.results import final_line, headline, summarise, write_results
from octvideo.engine.threads import set_threads
from octvideo.engine.train import Trainer
from octvideo.errors import CheckpointError
from octvideo.models.blocks import Bottleneck
from octvideo.report.html import write_report
from octvideo.torch_file import read_torch_file
from octvideo.weights import load_weights

logger = logging.getLogger("octvideo")

Validate = Callable[[nn.Module], dict[str, float]]


# --- Training


def train(cfg: Any, procs: Processes) -> bool:
    """Train in OUTPUT_DIR, or go on with the run that is there. False when a signal stopped it."""
    cfg = build_data.with_counted_classes(cfg)
    _start(cfg, procs)
    loader = build_data.train_loader(cfg, build_data.train_dataset(cfg), procs)
    trainer = build_trainer(cfg, procs, loader, _validation(cfg, procs))
    if warning := build_recipe.recipe_warning(cfg):
        logger.warning(warning)
    summary = trainer.train()
    for path, cause in loader.bad.items():
        logger.warning("%s: could not be read (%s), others stood in for it", path, cause)
    logger.info("checkpoints and curves: %s, checkpoints/, metrics.jsonl, tensorboard/", cfg.OUTPUT_DIR)
    return summary.finished


def _validation(cfg: Any, procs: Processes) -> Validate:
    if cfg.TRAIN.DATASET != build_data.VIDEO:
        return image_validator(cfg, validation_images(cfg), procs)
    path, names = build_data.list_path(cfg, "val"), build_data.class_names(cfg)
    videos = build_data.open_videos(cfg, path, build_data.validation_views(cfg), names)
    return validator(cfg, cast(Videos, videos), procs)


def training_batches(cfg: Any) -> tuple[Iterator[Batch], list[str]]:
    """The first epoch as the network would get it, to look at, and the names of its classes."""
    cfg = build_data.with_counted_classes(cfg)
    loader = build_data.train_loader(cfg, build_data.train_dataset(cfg), Processes())
    return loader.epoch(0), build_data.class_names(cfg)


def build_trainer(cfg: Any, procs: Processes, loader: Loader, validate: Validate | None) -> Trainer:
    """Everything that trains, seeded, on its device, with the weights that TRAIN.CHECKPOINT_FILE_PATH names."""
    torch.manual_seed(cfg.RNG_SEED)
    if cfg.TRAIN.DETERMINISTIC:
        torch.use_deterministic_algorithms(True)
    model = build_model(cfg)
    if cfg.LOG_MODEL_INFO:
        logger.info("%s", stage_table(model, build_data.input_shape(cfg)))
    load_initial_weights(cfg, model)
    torch.manual_seed(cfg.RNG_SEED + procs.rank)  # ranks start alike and drop out differently
    frozen = _adapt(cfg, model, procs)
    steps = max(len(loader) // cfg.SOLVER.ACCUM_STEPS, 1)
    logger.info(build_recipe.describe_recipe(cfg, steps, procs.world_size))
    return Trainer(
        model,
        loader,
        build_recipe.build_optimizer(cfg, model),
        build_recipe.build_schedule(cfg, steps),
        build_recipe.build_options(cfg),
        loss=make_loss(
            "bce_logit" if cfg.MODEL.LOSS_FUNC == "bce_logit" else "cross_entropy",
            label_smoothing=cfg.MIXUP.LABEL_SMOOTH_VALUE,
            class_weights=cfg.MODEL.CLASS_WEIGHTS or None,
        ),
        prepare=build_data.preparation(cfg),
        validate=validate,
        mix=partial(mixup, num_classes=cfg.MODEL.NUM_CLASSES, alpha=cfg.MIXUP.ALPHA) if cfg.MIXUP.ENABLE else None,
        frozen=frozen,
        procs=procs,
        meta=_meta(cfg, model),
        cfg_text=cfg.dump(),
    )


def _adapt(cfg: Any, model: nn.Module, procs: Processes) -> list[nn.Module]:
    """Freezing, synchronised batch norm, recomputation, memory format, device; what stays in evaluation mode."""
    names = {"stem" if stage == 1 else f"res{stage}" for stage in cfg.MODEL.FREEZE_STAGES}
    frozen = adapt.freeze(model, [name for name, _ in model.named_modules() if name.rpartition(".")[2] in names])
    if cfg.MODEL.FROZEN_BN:
        frozen += adapt.freeze_batch_norm(model)
    if cfg.BN.NORM_TYPE == "sync_batchnorm" and procs.world_size > 1:
        adapt.synchronise_batch_norm(model, procs.device)
    if cfg.MODEL.ACT_CHECKPOINT:
        adapt.recompute_activations(module for module in model.modules() if isinstance(module, Bottleneck))
    model.to(procs.device)
    if cfg.TRAIN.CHANNELS_LAST:
        images = cfg.TRAIN.DATASET != build_data.VIDEO
        model.to(memory_format=torch.channels_last if images else torch.channels_last_3d)  # type: ignore[call-overload]
    return frozen


def _meta(cfg: Any, model: nn.Module) -> dict[str, Any]:
    """What a checkpoint needs to be used without a config."""
    return {
        "format": 1,
        "model": model.config,
        "class_names": build_data.class_names(cfg),
        "preprocessing": build_data.preprocessing(cfg),
    }


def validator(cfg: Any, videos: Videos, procs: Processes) -> Validate:
    """validate(model) -> errors in per cent, over one view of every video."""
    prepare, names = build_data.preparation(cfg), build_data.class_names(cfg)

    def validate(model: nn.Module) -> dict[str, float]:
        evaluation = evaluate(
            _scorer(cfg, model), videos, num_classes=cfg.MODEL.NUM_CLASSES, prepare=prepare, processes=procs
        )
        summary = summarise(evaluation, names, {})
        if "map" in summary:
            return {"map_err": 100 * (1 - summary["map"])}
        return {"top1_err": 100 - summary["top1_acc"], "top5_err": 100 - summary["top5_acc"]}

    return validate


def _scorer(cfg: Any, model: nn.Module, optimise_for: int = 0) -> Scorer:
    """PySlowFast's test head; where a video has several labels, a sigmoid of the logits.

    optimise_for: views per forward pass for which the fastest engine installed is prepared; 0: none.
    """
    network = model if cfg.DATA.MULTI_LABEL else WindowScores(model)
    if optimise_for:
        size = cfg.DATA.TEST_CROP_SIZE
        example = torch.rand(optimise_for, 3, cfg.DATA.NUM_FRAMES, size, size)
        network = optimize(network, example.to(next(model.parameters()).device))
    return (lambda inputs: network(inputs).sigmoid()) if cfg.DATA.MULTI_LABEL else network


# --- The test on all views


def final_test(cfg: Any, procs: Processes, checkpoint: str = "", list_path: str = "") -> dict[str, Any]:
    """Score every video of a list in all its views; results go to OUTPUT_DIR. Continues where it was interrupted.

    checkpoint: TEST.CHECKPOINT_FILE_PATH, else the newest in OUTPUT_DIR. list_path: test.csv (or val.csv) of the data.
    """
    cfg = build_data.with_counted_classes(cfg)
    _start(cfg, procs)
    checkpoint = checkpoint or cfg.TEST.CHECKPOINT_FILE_PATH or _newest_checkpoint(cfg.OUTPUT_DIR, procs)
    model, names = _trained_model(cfg, checkpoint)
    model.to(procs.device).eval()
    if cfg.TRAIN.DATASET != build_data.VIDEO:
        return final_image_test(cfg, procs, model)
    list_path = list_path or build_data.final_list_path(cfg)
    videos = build_data.open_videos(cfg, list_path, build_data.final_views(cfg), names)
    protocol = _protocol(cfg, videos.spec, checkpoint, list_path)
    journal = Journal(Path(cfg.OUTPUT_DIR), fingerprint(**protocol, paths=videos.paths), procs.rank)
    evaluation = evaluate(
        _scorer(cfg, model, protocol["view_chunk"] if cfg.TEST.OPTIMIZE else 0),
        cast(Videos, videos),
        num_classes=cfg.MODEL.NUM_CLASSES,
        prepare=build_data.preparation(cfg),
        view_chunk=protocol["view_chunk"],
        ensemble=cfg.DATA.ENSEMBLE_METHOD,
        processes=procs,
        journal=journal,
        progress=_log_progress,
    )
    summary = summarise(evaluation, names, protocol | {"network": _network(cfg, model)})
    if procs.is_main:
        write_results(cfg.OUTPUT_DIR, evaluation, summary)
        journal.remove()
        environment = {"torch": torch.__version__, "device": str(procs.device), "processes": procs.world_size}
        write_report(cfg.OUTPUT_DIR, film=videos.film, config=cfg.dump(), environment=environment, title=cfg.OUTPUT_DIR)
        logger.info("%s", headline(summary))
        logger.info("results: %s, results.json, predictions.csv, scores.npz, report.html to look at", cfg.OUTPUT_DIR)
        logger.info(json.dumps(final_line(summary)))
    return summary


def _newest_checkpoint(output_dir: str, procs: Processes) -> str:
    """Rank 0's answer, which waits until it has written what it trained."""
    path = procs.from_main(find_latest(f"{output_dir}/checkpoints") if procs.is_main else None)
    if path is None:
        raise CheckpointError(f"{output_dir}: no checkpoint to test; train first or set TEST.CHECKPOINT_FILE_PATH")
    return path


def settings_of(checkpoint: str, overrides: Sequence[str] = ()) -> Any:
    """The config that a checkpoint of this package holds."""
    text = read_torch_file(checkpoint).get("cfg")
    if not text:
        raise CheckpointError(f"{checkpoint}: holds no settings; name the config of its network with --cfg")
    return config_from_text(text, checkpoint, overrides)


def _trained_model(cfg: Any, checkpoint: str) -> tuple[nn.Module, list[str]]:
    """The network with a checkpoint's weights (their moving average, if there is one), and its class names."""
    model = build_model(cfg)
    load_weights(model, checkpoint, new_classes=False)
    meta = read_torch_file(checkpoint).get("meta") or {}
    return model, meta.get("class_names") or build_data.class_names(cfg)


def _protocol(cfg: Any, spec: ViewSpec, checkpoint: str, list_path: str) -> dict[str, Any]:
    """Everything that decides a score, as results.json shows it."""
    return build_data.preprocessing(cfg) | {
        "checkpoint": checkpoint,
        "checkpoint_sha256": _sha256(checkpoint),
        "list": list_path,
        "views": f"{spec.num_clips}x{spec.num_crops}",
        "ensemble": cfg.DATA.ENSEMBLE_METHOD,
        "view_chunk": cfg.TEST.VIEW_CHUNK or default_view_chunk(spec),
        "optimize": cfg.TEST.OPTIMIZE,
    }


def _network(cfg: Any, model: nn.Module) -> dict[str, Any]:
    """What was tested, and what one view of it costs."""
    size = cfg.DATA.TEST_CROP_SIZE
    cost = count(model, (3, cfg.DATA.NUM_FRAMES, size, size))
    config: Any = model.config
    return {
        "name": config["name"],
        "alpha": config["alpha"],
        "parameters": cost.parameters,
        "gflops_per_view": round(cost.macs / 1e9, 3),
    }


def _sha256(path: str) -> str:
    with g_pathmgr.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _log_progress(done: int, total: int) -> None:
    """Ten lines, however long the list."""
    if done * 10 // max(total, 1) > (done - 1) * 10 // max(total, 1):
        logger.info("test: %d of %d videos", done, total)


# --- Dry run


def dry_run(cfg: Any, procs: Processes) -> None:
    """Two training and two evaluation steps of a config on generated data; nothing is kept."""
    with TemporaryDirectory() as folder:
        small = _shrunk(cfg, folder, procs.world_size)
        _start(small, procs)
        classes, multi_label = small.MODEL.NUM_CLASSES, cfg.DATA.MULTI_LABEL
        samples = GeneratedSamples(build_data.input_shape(cfg), classes, 2 * small.TRAIN.BATCH_SIZE, multi_label)
        if cfg.TRAIN.DATASET == build_data.VIDEO:
            videos = GeneratedVideos(build_data.validation_views(cfg), classes, 2, multi_label)
            validate = validator(small, videos, procs)
        else:
            validate = image_validator(small, samples, procs)
        build_trainer(small, procs, build_data.train_loader(small, samples, procs), validate).train()
        setup_logging(None, procs.is_main)
    logger.info("dry run: two training and two evaluation steps went through")


def _shrunk(cfg: Any, output_dir: str, world_size: int) -> Any:
    """The same run on one epoch of two steps with two samples per forward pass."""
    small = cfg.clone()
    small.defrost()
    small.OUTPUT_DIR = output_dir
    small.MODEL.NUM_CLASSES = cfg.MODEL.NUM_CLASSES or 2
    small.TRAIN.BATCH_SIZE = 2 * world_size * cfg.SOLVER.ACCUM_STEPS
    small.TEST.BATCH_SIZE = small.TRAIN.BATCH_SIZE // world_size
    small.TRAIN.CHECKPOINT_FILE_PATH, small.TRAIN.CHECKPOINT_INFLATE = "", False
    small.SOLVER.MAX_EPOCH, small.SOLVER.MAX_ITER = 1, 0
    small.SOLVER.LR_POLICY, small.SOLVER.WARMUP_EPOCHS = "cosine", 0.0
    small.BN.NUM_BATCHES_PRECISE = 1
    small.DATA_LOADER.NUM_WORKERS = 0
    small.TENSORBOARD.ENABLE = False
    return small


# --- Shared


def _start(cfg: Any, procs: Processes) -> None:
    """Output folder, log, threads; what training and testing begin with."""
    if procs.is_main:
        make_output_folder(cfg.OUTPUT_DIR)
    setup_logging(cfg.OUTPUT_DIR, procs.is_main)
    set_threads(cfg.DATA_LOADER.NUM_WORKERS, procs.local_world_size)
