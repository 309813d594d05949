"""The recipe of a config: schedule, optimizer, options; one line for the log; its differences from
the published recipe."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from octvideo.config.limits import value_of
from octvideo.engine.training.optim import Schedule, make_optimizer, scale_lr
from octvideo.engine.training.state import TrainOptions
from octvideo.errors import ConfigError
from octvideo.report.known_problems import known_problems

# What configs/recipes/ say, by LR_POLICY: the settings without which a Kinetics number is not
# comparable.
PUBLISHED: dict[str, dict[str, float]] = {
    "cosine": {
        "TRAIN.BATCH_SIZE": 64,
        "SOLVER.BASE_LR": 0.1,
        "SOLVER.MAX_EPOCH": 196,
        "SOLVER.WARMUP_EPOCHS": 34,
        "SOLVER.MOMENTUM": 0.9,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "MODEL.DROPOUT_RATE": 0.5,
    },
    "steps_with_relative_lrs": {
        "TRAIN.BATCH_SIZE": 64,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.MAX_ITER": 300_000,
        "SOLVER.WARMUP_EPOCHS": 0,
        "SOLVER.MOMENTUM": 0.9,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "MODEL.DROPOUT_RATE": 0.5,
    },
}
LEFT_OF_START = 0.01  # of the weights at the start, in their moving average at the end
KINETICS_CLASSES = (400, 600, 700)


def effective_lr(cfg: Any) -> float:
    """BASE_LR, scaled to the batch size if the config asks for it."""
    return scale_lr(cfg.SOLVER.BASE_LR, cfg.TRAIN.BATCH_SIZE, cfg.SOLVER.BASE_BATCH_SIZE)


def build_schedule(cfg: Any, steps_per_epoch: int) -> Schedule:
    """Positions count epochs, or optimizer steps where SOLVER.MAX_ITER is set. All rates are scaled
    as `effective_lr` is. Raises ConfigError for a warm-up that is longer than SOLVER.MAX_ITER."""
    solver = cfg.SOLVER
    lr = effective_lr(cfg)
    by_iterations = solver.MAX_ITER > 0
    steps = solver.STEP_ITERS if by_iterations else solver.STEPS
    warmup = solver.WARMUP_EPOCHS * (steps_per_epoch if by_iterations else 1)
    if by_iterations and warmup > solver.MAX_ITER:
        raise ConfigError(
            f"SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS:g}, {warmup:g} iterations of this"
            f" data, beyond SOLVER.MAX_ITER {solver.MAX_ITER}; shorten it"
        )
    return Schedule(
        policy=solver.LR_POLICY,
        base_lr=lr,
        length=solver.MAX_ITER if by_iterations else solver.MAX_EPOCH,
        end_lr=scale_lr(solver.COSINE_END_LR, cfg.TRAIN.BATCH_SIZE, solver.BASE_BATCH_SIZE),
        steps=steps or (0,),
        lrs=solver.LRS or (1.0,),
        warmup=warmup,
        warmup_start_lr=solver.WARMUP_START_LR * lr / solver.BASE_LR if solver.BASE_LR else 0.0,
        per_iteration=by_iterations,
    )


def describe_recipe(cfg: Any, steps_per_epoch: int, world_size: int) -> str:
    """batch 64 (8 processes x 8), lr 0.1 cosine, 196 epochs x 3666 iterations, warm-up 34 epochs
    from 0.01, sgd ..."""
    solver, batch = cfg.SOLVER, cfg.TRAIN.BATCH_SIZE
    schedule = build_schedule(cfg, steps_per_epoch)
    processes = "1 process" if world_size == 1 else f"{world_size} processes"
    parts = f"{processes} x {batch // world_size // solver.ACCUM_STEPS}"
    accumulated = f" x {solver.ACCUM_STEPS} accumulated" if solver.ACCUM_STEPS > 1 else ""
    scaled = (
        f" ({solver.BASE_LR:g} scaled from batch {solver.BASE_BATCH_SIZE})"
        if solver.BASE_BATCH_SIZE
        else ""
    )
    if solver.MAX_ITER:
        length = (
            f"{solver.MAX_ITER} iterations ({solver.MAX_ITER / steps_per_epoch:.1f} epochs of"
            f" {steps_per_epoch})"
        )
    else:
        length = (
            f"{solver.MAX_EPOCH} epochs x {steps_per_epoch} iterations"
            f" ({solver.MAX_EPOCH * steps_per_epoch})"
        )
    stepwise = schedule.policy == "steps_with_relative_lrs"
    reached = sum(step < schedule.length for step in schedule.steps)
    idle = list(schedule.lrs[reached:]) if stepwise else []
    unused = f" (never reached: {idle} of SOLVER.LRS)" if idle else ""
    warmup = f"warm-up {solver.WARMUP_EPOCHS:g} epochs from {schedule.warmup_start_lr:.3g}"
    return (
        f"recipe: batch {batch} ({parts}{accumulated}), lr {schedule.base_lr:.4g}{scaled}"
        f" {solver.LR_POLICY}{unused}, {length},"
        f" {warmup if solver.WARMUP_EPOCHS else 'no warm-up'},"
        f" {solver.OPTIMIZING_METHOD}, weight decay {solver.WEIGHT_DECAY:g}"
    )


def recipe_differences(cfg: Any) -> list[str]:
    """`TRAIN.BATCH_SIZE 16 instead of 64`, ... on Kinetics; [] for other data, which has no
    published recipe."""
    if cfg.TRAIN.DATASET != "video" or cfg.MODEL.NUM_CLASSES not in KINETICS_CLASSES:
        return []
    published = PUBLISHED[cfg.SOLVER.LR_POLICY]
    # A rate that follows the batch keeps the recipe.
    follows = published["TRAIN.BATCH_SIZE"] == cfg.SOLVER.BASE_BATCH_SIZE
    different = []
    for key, expected in published.items():
        value = value_of(cfg, key)
        if value != expected and not (follows and key == "TRAIN.BATCH_SIZE"):
            different.append(f"{key} {value:g} instead of {expected:g}")
    return different


def recipe_warning(cfg: Any) -> str:
    """One line, "" when there is nothing to say."""
    different = recipe_differences(cfg)
    if not different:
        return ""
    advice = (
        "; SOLVER.BASE_BATCH_SIZE 64 scales the rate with the batch"
        if "BATCH_SIZE" in different[0]
        else ""
    )
    return f"not the published recipe: {', '.join(different)}{advice}"


def average_warning(cfg: Any, steps_per_epoch: int) -> str:
    """One line where the weights at the start still count in the moving average at the end, ""
    where they do not: validations, tests and exports take the average."""
    decay, solver = cfg.TRAIN.EMA_DECAY, cfg.SOLVER
    steps = solver.MAX_ITER or solver.MAX_EPOCH * steps_per_epoch
    left = decay**steps
    if left < LEFT_OF_START:
        return ""
    return (
        f"TRAIN.EMA_DECAY {decay:g} over {steps} steps: the average, which is validated and tested,"
        f" is still {left:.0%} the weights at the start; {LEFT_OF_START ** (1 / steps):.6f} leaves"
        f" {LEFT_OF_START:.0%} of them"
    )


def schedule_warning(cfg: Any) -> str:
    """One line of a learning rate that falls in the warm-up, or rises to its end; "" where none
    does."""
    solver = cfg.SOLVER
    for name, is_used, what in (
        ("WARMUP_START_LR", solver.WARMUP_EPOCHS > 0, "falls during the warm-up"),
        ("COSINE_END_LR", solver.LR_POLICY == "cosine", "rises to the end"),
    ):
        if is_used and solver[name] > solver.BASE_LR:
            return (
                f"SOLVER.{name} {solver[name]:g} is above SOLVER.BASE_LR {solver.BASE_LR:g}: the"
                f" rate {what}; lower it, or raise SOLVER.BASE_LR"
            )
    return ""


def frozen_warning(cfg: Any) -> str:
    """One line of what is frozen and was never trained, "" where nothing is."""
    model, start = cfg.MODEL, cfg.TRAIN.CHECKPOINT_FILE_PATH
    if start or not (model.FREEZE_STAGES or model.FROZEN_BN):
        return ""
    stages = model.FREEZE_STAGES
    setting = f"MODEL.FREEZE_STAGES {stages}" if stages else "MODEL.FROZEN_BN True"
    return (
        f"training from scratch: {setting} keeps what was never trained as"
        " it is; name weights in TRAIN.CHECKPOINT_FILE_PATH, or leave it out"
    )


def precision_warnings(cfg: Any, device: torch.device) -> list[str]:
    """A line per known problem of half precision on this device; [] in float32."""
    on_gpu = device.type == "cuda"
    # The problems of GPUs are those of conv3d.
    is_3d = cfg.TRAIN.DATASET == "video" and cfg.MODEL.COMPUTE_IN_2D != "true"
    if not cfg.TRAIN.MIXED_PRECISION or (on_gpu and not is_3d):
        return []
    found = known_problems(device=device.type)
    return [f"TRAIN.MIXED_PRECISION is True ({cfg.TRAIN.AMP_DTYPE}); {line}" for line in found]


def build_optimizer(cfg: Any, model: nn.Module) -> Optimizer:
    solver = cfg.SOLVER
    return make_optimizer(
        model,
        method=solver.OPTIMIZING_METHOD,
        lr=effective_lr(cfg),
        momentum=solver.MOMENTUM,
        dampening=solver.DAMPENING,
        nesterov=solver.NESTEROV,
        betas=tuple(solver.BETAS),
        weight_decay=solver.WEIGHT_DECAY,
        bn_weight_decay=cfg.BN.WEIGHT_DECAY,
        zero_decay_1d=solver.ZERO_WD_1D_PARAM,
        fused=solver.FUSED,
    )


def build_options(cfg: Any) -> TrainOptions:
    train, solver = cfg.TRAIN, cfg.SOLVER
    return TrainOptions(
        output_dir=cfg.OUTPUT_DIR,
        max_epoch=solver.MAX_EPOCH,
        max_iter=solver.MAX_ITER,
        eval_period=train.EVAL_PERIOD,
        checkpoint_period=train.CHECKPOINT_PERIOD,
        checkpoint_minutes=train.CHECKPOINT_MINUTES,
        keep_checkpoints=train.KEEP_CHECKPOINTS,
        safetensors=train.SAFETENSORS,
        auto_resume=train.AUTO_RESUME,
        best_metric="map_err" if cfg.DATA.MULTI_LABEL else "top1_err",
        log_period=cfg.LOG_PERIOD,
        tensorboard=cfg.TENSORBOARD.ENABLE,
        accum_steps=solver.ACCUM_STEPS,
        clip_grad_value=solver.CLIP_GRAD_VAL,
        clip_grad_norm=solver.CLIP_GRAD_L2NORM,
        scale_momentum=solver.SCALE_MOMENTUM,
        amp_dtype=getattr(torch, train.AMP_DTYPE) if train.MIXED_PRECISION else None,
        max_skipped=train.MAX_SKIPPED,
        ema_decay=train.EMA_DECAY,
        precise_bn_batches=cfg.BN.NUM_BATCHES_PRECISE if cfg.BN.USE_PRECISE_STATS else 0,
        precise_bn_first=cfg.BN.NUM_BATCHES_PRECISE if cfg.BN.PRECISE_STATS_AT_START else 0,
        channels_last=train.CHANNELS_LAST,
        compile=train.COMPILE,
    )
