"""The test on all views as a config asks for it, or as a checkpoint remembers it."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from iopath.common.file_io import g_pathmgr
from torch import nn

from octvideo.assembly import data as build_data
from octvideo.assembly.images import final_image_test
from octvideo.assembly.model import build_model
from octvideo.assembly.start import scorer, start_run
from octvideo.checkpoint import Checkpoint
from octvideo.complexity import count
from octvideo.config import config_from_text
from octvideo.data.clips.views import ViewSpec
from octvideo.engine.checkpoint_files import find_latest
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import default_view_chunk, evaluate
from octvideo.engine.evaluation.journal import Journal, fingerprint
from octvideo.engine.evaluation.results import final_line, headline, summarise, write_results
from octvideo.errors import CheckpointError
from octvideo.report.html import write_report
from octvideo.weights import load_weights
from octvideo.weights.assumptions import Assumptions

logger = logging.getLogger("octvideo")


def final_test(
    cfg: Any, procs: Processes, checkpoint: str | Checkpoint = "", list_path: str = ""
) -> dict[str, Any]:
    """Score every video of a list in all its views; results go to OUTPUT_DIR. Continues where it was interrupted.

    checkpoint: read, or its path; "" stands for TEST.CHECKPOINT_FILE_PATH, else the newest in OUTPUT_DIR.
    list_path: by default test.csv (or val.csv) of the data.
    """
    cfg = build_data.with_counted_classes(cfg)
    start_run(cfg, procs)
    if not isinstance(checkpoint, Checkpoint):
        path = checkpoint or cfg.TEST.CHECKPOINT_FILE_PATH
        checkpoint = Checkpoint.read(path or _newest_checkpoint(cfg.OUTPUT_DIR, procs))
    model, names = _trained_model(cfg, checkpoint)
    model.to(procs.device).eval()
    if cfg.TRAIN.DATASET != build_data.VIDEO:
        return final_image_test(cfg, procs, model)
    list_path = list_path or build_data.final_list_path(cfg)
    videos = build_data.open_videos(cfg, list_path, build_data.final_views(cfg), names)
    protocol = _protocol(cfg, videos.spec, checkpoint.path, list_path)
    settings = {"network": model.config, "multi_label": cfg.DATA.MULTI_LABEL, "paths": videos.paths}
    journal = Journal(Path(cfg.OUTPUT_DIR), fingerprint(**protocol, **settings), procs.rank)
    evaluation = evaluate(
        scorer(cfg, model, protocol["view_chunk"] if cfg.TEST.OPTIMIZE else 0),
        videos,
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
        environment = {
            "torch": torch.__version__,
            "device": str(procs.device),
            "processes": procs.world_size,
        }
        write_report(
            cfg.OUTPUT_DIR,
            film=videos.film,
            config=cfg.dump(),
            environment=environment,
            title=cfg.OUTPUT_DIR,
        )
        journal.remove()
        logger.info("%s", headline(summary))
        logger.info(
            "results: %s, results.json, predictions.csv, scores.npz, report.html to look at",
            cfg.OUTPUT_DIR,
        )
        logger.info(json.dumps(final_line(summary)))
    return summary


def _newest_checkpoint(output_dir: str, procs: Processes) -> str:
    """Rank 0's answer, which waits until it has written what it trained."""
    path = procs.from_main(find_latest(f"{output_dir}/checkpoints") if procs.is_main else None)
    if path is None:
        raise CheckpointError(
            f"{output_dir}: no checkpoint to test; train first or set TEST.CHECKPOINT_FILE_PATH"
        )
    return path


def settings_of(checkpoint: Checkpoint, overrides: Sequence[str] = ()) -> Any:
    """The config that a checkpoint of this package holds."""
    if not checkpoint.recipe:
        raise CheckpointError(
            f"{checkpoint.path}: holds no settings; name the config of its network with --cfg"
        )
    return config_from_text(checkpoint.recipe, checkpoint.path, overrides)


def _trained_model(cfg: Any, checkpoint: Checkpoint) -> tuple[nn.Module, list[str]]:
    """The network with a checkpoint's weights (their moving average, if there is one), and its class names.

    Raises CheckpointError where the weights were trained with another DATA.MEAN or DATA.STD.
    """
    model = build_model(cfg)
    load_weights(model, checkpoint, new_classes=False)
    Assumptions.of_checkpoint(checkpoint).check_input(cfg.DATA.MEAN, cfg.DATA.STD)
    return model, list(checkpoint.class_names) or build_data.class_names(cfg)


def _protocol(cfg: Any, spec: ViewSpec, checkpoint: str, list_path: str) -> dict[str, Any]:
    """Everything that decides a score, as results.json shows it."""
    return build_data.input_spec(cfg).as_dict() | {
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
