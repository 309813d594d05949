"""Image networks as a config asks for them: the centre crop of every validation picture, in the same engine."""

import json
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from octvideo.assembly.data import preparation
from octvideo.data.images.dataset import ImageDataset, open_images
from octvideo.data.images.transforms import CentreCrop
from octvideo.data.loading.loader import Dataset, Loader
from octvideo.engine.distributed import Processes
from octvideo.engine.training.losses import hits
from octvideo.files import write_atomically

logger = logging.getLogger("octvideo")


def validation_images(cfg: Any, crop_size: int = 0) -> ImageDataset:
    """DATA.TEST_CROP_SIZE in the middle of a short side of DATA.TRAIN_JITTER_SCALES[0]; another crop in proportion."""
    data = cfg.DATA
    size = crop_size or data.TEST_CROP_SIZE
    crop = CentreCrop(
        size, short_side=round(size * data.TRAIN_JITTER_SCALES[0] / data.TEST_CROP_SIZE)
    )
    return ImageDataset(
        open_images(data.PATH_TO_DATA_DIR, "val", cfg.MODEL.NUM_CLASSES), crop, seed=cfg.RNG_SEED
    )


def image_validator(
    cfg: Any, dataset: Dataset, procs: Processes
) -> Callable[[nn.Module], dict[str, float]]:
    """validate(model) -> errors in per cent. Another picture stands in for one that cannot be read.

    Several processes repeat up to one picture each, where they do not divide the last batch.
    """
    loader = Loader(
        dataset,
        batch_size=cfg.TEST.BATCH_SIZE,
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        shuffle=False,
        drop_last=False,
        rank=procs.rank,
        world_size=procs.world_size,
        timeout_seconds=cfg.DATA_LOADER.TIMEOUT,
        max_bad_ratio=cfg.DATA.MAX_BAD_RATIO,
    )
    prepare = preparation(cfg)

    @torch.inference_mode()
    def validate(model: nn.Module) -> dict[str, float]:
        sums = torch.zeros(3, device=procs.device)
        for batch in loader.epoch(0):
            placed = batch.to(procs.device)
            logits = model(prepare(placed.inputs))
            counts = [hits(logits, placed.targets, k) for k in (1, 5)]
            sums += torch.stack([*counts, torch.full_like(counts[0], len(batch))])
        loader.close()
        top1, top5, count = procs.total(sums).tolist()
        return {"top1_err": 100 * (1 - top1 / count), "top5_err": 100 * (1 - top5 / count)}

    return validate


def final_image_test(cfg: Any, procs: Processes, model: nn.Module) -> dict[str, Any]:
    """Accuracy at each of TEST.IMAGE_CROP_SIZES, in OUTPUT_DIR/results.json; the log's last line is the first's."""
    results = {str(size): _accuracy(cfg, procs, model, size) for size in cfg.TEST.IMAGE_CROP_SIZES}
    line = {"split": "test_final", **next(iter(results.values()))}
    summary = {**line, "crop_sizes": results}
    if procs.is_main:
        content = json.dumps(summary).encode() + b"\n"
        write_atomically(f"{cfg.OUTPUT_DIR}/results.json", lambda file: file.write(content))
        for size, accuracy in results.items():
            logger.info(
                "centre crops of %s: top-1 %s %%, top-5 %s %%",
                size,
                accuracy["top1_acc"],
                accuracy["top5_acc"],
            )
        logger.info(json.dumps(line))
    return summary


def _accuracy(cfg: Any, procs: Processes, model: nn.Module, crop_size: int) -> dict[str, str]:
    errors = image_validator(cfg, validation_images(cfg, crop_size), procs)(model)
    return {name.replace("_err", "_acc"): f"{100 - error:.2f}" for name, error in errors.items()}
