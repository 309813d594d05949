"""Settings that contradict each other, found before anything is built. One rule is one short
function."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from octvideo.models.registry import MODELS, find_name

Problems = Iterator[str]


def first_problem(cfg: Any) -> str:
    """The first contradiction: what was got, the rule, the next step; "" where there is none."""
    return next((problem for rule in RULES for problem in rule(cfg)), "")


def _arch(cfg: Any) -> Problems:
    arch = cfg.MODEL.ARCH
    family = MODELS.get(find_name(arch, cfg.RESNET.DEPTH))
    if cfg.TRAIN.DATASET == "video" and not (family and family.takes_clips):
        names = (re.sub(r"_r\d+$", "", name) for name, row in MODELS.items() if row.takes_clips)
        archs = " or ".join(dict.fromkeys(names))
        yield f"MODEL.ARCH is {arch!r}; on videos it is {archs}, with RESNET.DEPTH"
    if cfg.TRAIN.DATASET != cfg.TEST.DATASET:
        yield (
            f"TEST.DATASET is {cfg.TEST.DATASET} with TRAIN.DATASET {cfg.TRAIN.DATASET}; make them"
            " equal"
        )


def _octave(cfg: Any) -> Problems:
    alpha, stages = cfg.OCTCONV.ALPHA, cfg.OCTCONV.STAGES
    if not 0 <= alpha < 1:
        yield f"OCTCONV.ALPHA is {alpha:g}; it lies in [0, 1). 0 is the vanilla network"
    if stages and stages != list(range(min(stages), max(stages) + 1)):
        yield (
            f"OCTCONV.STAGES is {stages}; octave stages follow each other without a gap, as in [2,"
            " 3, 4]"
        )
    if stages and not (min(stages) >= 2 and max(stages) <= 5):
        yield f"OCTCONV.STAGES is {stages}; the stages are 2, 3, 4 and 5 (res2..res5)"


def _sizes(cfg: Any) -> Problems:
    data = cfg.DATA
    for name in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE"):
        if cfg.TRAIN.DATASET == "video" and data[name] < 32:
            yield (
                f"DATA.{name} is {data[name]}; the network halves it five times, so it is at"
                " least 32"
            )
    if (
        len(data.TRAIN_JITTER_SCALES) != 2
        or data.TRAIN_JITTER_SCALES[0] > data.TRAIN_JITTER_SCALES[1]
    ):
        yield (
            f"DATA.TRAIN_JITTER_SCALES is {data.TRAIN_JITTER_SCALES}; it is [shortest, longest] of"
            " the short side"
        )
    elif data.TRAIN_JITTER_SCALES[0] < data.TRAIN_CROP_SIZE:
        yield (
            f"DATA.TRAIN_JITTER_SCALES starts at {data.TRAIN_JITTER_SCALES[0]}, below"
            f" DATA.TRAIN_CROP_SIZE {data.TRAIN_CROP_SIZE}; no crop would fit: raise the first or"
            " lower the second"
        )
    for name in ("MEAN", "STD"):
        if len(data[name]) != 3:
            yield f"DATA.{name} is {data[name]}; it has one number for each of red, green and blue"
    if min(data.STD) <= 0:
        yield f"DATA.STD is {data.STD}; each is above 0"


def _frames(cfg: Any) -> Problems:
    frames, speed = cfg.DATA.NUM_FRAMES, cfg.SLOWFAST.ALPHA
    if cfg.MODEL.ARCH == "slowfast" and (frames < speed or frames % speed):
        yield (
            f"DATA.NUM_FRAMES is {frames} with SLOWFAST.ALPHA {speed}; the slow pathway takes every"
            f" {speed}th frame: use a multiple of {speed}"
        )


def _schedule(cfg: Any) -> Problems:
    solver = cfg.SOLVER
    by_iterations = solver.MAX_ITER > 0
    if solver.LR_POLICY == "steps_with_relative_lrs":
        name = "STEP_ITERS" if by_iterations else "STEPS"
        steps, end = solver[name], solver.MAX_ITER if by_iterations else solver.MAX_EPOCH
        if len(steps) > len(solver.LRS) or not steps:
            yield (
                f"SOLVER.{name} has {len(steps)} entries and SOLVER.LRS {len(solver.LRS)}; "
                "each step has one factor of BASE_LR"
            )
        elif steps[0] != 0 or steps != sorted(set(steps)) or steps[-1] > end:
            yield f"SOLVER.{name} is {steps}; it starts at 0 and rises to at most {end}"
    if not by_iterations and solver.WARMUP_EPOCHS > solver.MAX_EPOCH:
        yield (
            f"SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS:g}, beyond MAX_EPOCH"
            f" {solver.MAX_EPOCH}; shorten it"
        )
    if (
        solver.NESTEROV
        and solver.OPTIMIZING_METHOD == "sgd"
        and (solver.MOMENTUM <= 0 or solver.DAMPENING)
    ):
        yield "SOLVER.NESTEROV needs MOMENTUM above 0 and DAMPENING 0; set NESTEROV to false"


def _batches(cfg: Any) -> Problems:
    accum, batch = cfg.SOLVER.ACCUM_STEPS, cfg.TRAIN.BATCH_SIZE
    if accum >= 1 and batch % accum:
        yield (
            f"TRAIN.BATCH_SIZE {batch} is not divisible by SOLVER.ACCUM_STEPS {accum}; the batch is"
            " what they sum to"
        )


def _jitter(cfg: Any) -> Problems:
    area, aspect = cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE, cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE
    for name, ends, most in (("SCALES", area, 1.0), ("ASPECT", aspect, float("inf"))):
        if ends and not (len(ends) == 2 and 0 < ends[0] <= ends[1] <= most):
            yield (
                f"DATA.TRAIN_JITTER_{name}_RELATIVE is {ends}; it is [smallest, largest] above 0"
                + (" and at most 1" if name == "SCALES" else "")
            )
    if aspect and not area and cfg.TRAIN.DATASET == "video":
        yield (
            f"DATA.TRAIN_JITTER_ASPECT_RELATIVE is {aspect} without"
            " DATA.TRAIN_JITTER_SCALES_RELATIVE; set both, or neither to jitter the short side"
        )


def _test(cfg: Any) -> Problems:
    data, test, is_video = cfg.DATA, cfg.TEST, cfg.TRAIN.DATASET == "video"
    one_crop = is_video and test.ENABLE and test.NUM_SPATIAL_CROPS == 1
    if one_crop and data.TRAIN_JITTER_SCALES[0] < data.TEST_CROP_SIZE:
        yield (
            f"DATA.TEST_CROP_SIZE is {data.TEST_CROP_SIZE} with TEST.NUM_SPATIAL_CROPS 1; one crop"
            " is the middle of a short side of DATA.TRAIN_JITTER_SCALES[0],"
            f" {data.TRAIN_JITTER_SCALES[0]}: lower DATA.TEST_CROP_SIZE"
        )
    if test.DIAGNOSE and not is_video:
        yield (
            f"TEST.DIAGNOSE is True with TRAIN.DATASET {cfg.TRAIN.DATASET}; an image has no frames"
            " to shuffle"
        )
    if test.PRECISION != "fp32" and not test.OPTIMIZE:
        yield (
            f"TEST.PRECISION is {test.PRECISION} without TEST.OPTIMIZE, which prepares it; set"
            " that True"
        )


def _mixing(cfg: Any) -> Problems:
    mixup = cfg.MIXUP
    if mixup.ENABLE and cfg.DATA.MULTI_LABEL and mixup.LABEL_SMOOTH_VALUE:
        yield (
            f"MIXUP.LABEL_SMOOTH_VALUE is {mixup.LABEL_SMOOTH_VALUE:g} with DATA.MULTI_LABEL; "
            "several labels per video are mixed but not smoothed: set it to 0"
        )


def _loss(cfg: Any) -> Problems:
    if (cfg.MODEL.LOSS_FUNC == "bce_logit") != cfg.DATA.MULTI_LABEL:
        yield (
            f"DATA.MULTI_LABEL is {cfg.DATA.MULTI_LABEL} with MODEL.LOSS_FUNC"
            f" {cfg.MODEL.LOSS_FUNC}; several labels per video go with bce_logit, and only they"
        )
    weights, classes = cfg.MODEL.CLASS_WEIGHTS, cfg.MODEL.NUM_CLASSES
    if weights and len(weights) != classes:
        yield (
            f"MODEL.CLASS_WEIGHTS has {len(weights)} entries; it has one for each of"
            f" MODEL.NUM_CLASSES {classes}"
        )


def _nonlocal(cfg: Any) -> Problems:
    location = cfg.NONLOCAL.LOCATION
    if len(location) != 4:
        yield f"NONLOCAL.LOCATION has {len(location)} entries; it has one for each of res2..res5"
    pathways = 2 if cfg.MODEL.ARCH == "slowfast" else 1
    if any(blocks for stage in location for blocks in stage[pathways:]):
        yield (
            f"NONLOCAL.LOCATION is {location} with MODEL.ARCH {cfg.MODEL.ARCH}; "
            f"each stage has the blocks of {pathways} pathway{'s' if pathways > 1 else ''}"
        )
    if len({str(pool) for stage in cfg.NONLOCAL.POOL for pool in stage}) != 1:
        yield f"NONLOCAL.POOL is {cfg.NONLOCAL.POOL}; one pool serves all stages and pathways"
    if any(group != 1 for stage in cfg.NONLOCAL.GROUP for group in stage):
        yield (
            f"NONLOCAL.GROUP is {cfg.NONLOCAL.GROUP}; attention over groups of frames is not built:"
            " use 1"
        )


def _blocks(cfg: Any) -> Problems:
    kernels = cfg.RESNET.NUM_BLOCK_TEMP_KERNEL
    if kernels and (len(kernels) != 4 or any(len(stage) not in (1, 2) for stage in kernels)):
        yield (
            f"RESNET.NUM_BLOCK_TEMP_KERNEL is {kernels}; it has one number per pathway for each"
            " stage"
        )


def _ranges(cfg: Any) -> Problems:
    """Numbers that have a smallest value, wherever they stand."""
    for key, least in MINIMUM.items():
        section, _, name = key.rpartition(".")
        value = (cfg[section] if section else cfg)[name]
        if value < least:
            yield f"{key} is {value:g}; it is at least {least}"
    for section, settings in cfg.items():
        for name, value in settings.items() if isinstance(settings, dict) else [("", settings)]:
            if type(value) is int and abs(value) >= 2**31:
                yield f"{section}{name and '.'}{name} is {value}; whole numbers stay below 2 ** 31"
    for name in ("PROB", "SWITCH_PROB"):
        if not 0 <= cfg.MIXUP[name] <= 1:
            yield f"MIXUP.{name} is {cfg.MIXUP[name]:g}; it lies in [0, 1]"
    for section, name in (
        ("MODEL", "DROPOUT_RATE"),
        ("TRAIN", "EMA_DECAY"),
        ("MIXUP", "LABEL_SMOOTH_VALUE"),
    ):
        if not 0 <= cfg[section][name] < 1:
            yield f"{section}.{name} is {cfg[section][name]:g}; it lies in [0, 1)"


MINIMUM = {
    "TRAIN.BATCH_SIZE": 1,
    "TRAIN.EVAL_PERIOD": 1,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "TRAIN.KEEP_CHECKPOINTS": 1,
    "TEST.BATCH_SIZE": 1,
    "TEST.NUM_ENSEMBLE_VIEWS": 1,
    "TEST.VIEW_CHUNK": 0,
    "DATA.NUM_FRAMES": 1,
    "DATA.SAMPLING_RATE": 1,
    "DATA.TARGET_FPS": 1,
    "DATA.MAX_BAD_RATIO": 0,
    "DATA.SHARD_CACHE_GB": 0,
    "DATA_LOADER.NUM_WORKERS": 0,
    "MODEL.NUM_CLASSES": 0,
    "BN.NUM_BATCHES_PRECISE": 1,
    "RESNET.WIDTH_PER_GROUP": 1,
    "RESNET.NUM_GROUPS": 1,
    "SLOWFAST.ALPHA": 1,
    "SLOWFAST.BETA_INV": 1,
    "MIXUP.ALPHA": 0,
    "MIXUP.CUTMIX_ALPHA": 0,
    "SOLVER.BASE_LR": 0,
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.MAX_ITER": 0,
    "SOLVER.ACCUM_STEPS": 1,
    "RNG_SEED": 0,
    "LOG_PERIOD": 1,
}


RULES: tuple[Callable[[Any], Problems], ...] = (
    _arch,
    _ranges,
    _octave,
    _sizes,
    _frames,
    _schedule,
    _batches,
    _jitter,
    _test,
    _mixing,
    _loss,
    _nonlocal,
    _blocks,
)
