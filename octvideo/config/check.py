"""Settings that contradict each other, found before anything is built. One rule is one short
function."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from octvideo.config.limits import beyond_limits, value_of
from octvideo.models.registry import MODELS, REGISTERED_FIRST, find_name

Problems = Iterator[str]

# Options that the names of some networks decide, and their settings.
BY_NAME = {
    "block": "RESNET.BLOCK",
    "stem": "RESNET.STEM",
    "stem_pool": "RESNET.STEM_POOL",
    "num_groups": "RESNET.NUM_GROUPS",
    "width_per_group": "RESNET.WIDTH_PER_GROUP",
    "nonlocal_location": "NONLOCAL.LOCATION",
}

# The classes in MODEL.MODEL_NAME that are no ResNet, as they occur in the names of networks.
OTHER_THAN_RESNET = ("slowfast", "x3d", "csn", "r2plus1d")


def first_problem(cfg: Any) -> str:
    """The first contradiction: what was got, the rule, the next step; "" where there is none."""
    return next((problem for rule in RULES for problem in rule(cfg)), "")


def without_effect(cfg: Any, said: Collection[str], defaults: Mapping[str, Any]) -> str:
    """What is wrong with the first setting in `said` that another one overrules; "" if none is."""
    return _decided_by_name(cfg, said, defaults) or _decided_by_max_iter(cfg.SOLVER, said)


def _decided_by_name(cfg: Any, said: Collection[str], defaults: Mapping[str, Any]) -> str:
    """The first setting in `said` that has its default where the network's name decides otherwise;
    "" where there is none. Without being said, the default is what the name decides."""
    family = MODELS.get(find_name(cfg.MODEL.ARCH, cfg.RESNET.DEPTH))
    fixed = family.fixed if family else {}
    for option, key in BY_NAME.items():
        value = value_of(cfg, key)
        decided = fixed.get(option, value)
        if key in said and value == value_of(defaults, key) and value != decided:
            return (
                f"{key} is {value!r}, and by its name {cfg.MODEL.ARCH} has {option}={decided!r};"
                " choose another MODEL.ARCH, or leave it out"
            )
    return ""


def _decided_by_max_iter(solver: Any, said: Collection[str]) -> str:
    """Of settings that count epochs where iterations count, or the other way around."""
    counted, idle = (
        ("iterations", ("MAX_EPOCH", "STEPS")) if solver.MAX_ITER else ("epochs", ("STEP_ITERS",))
    )
    advice = "set SOLVER.MAX_ITER 0" if solver.MAX_ITER else "set SOLVER.MAX_ITER"
    for name in idle:
        if f"SOLVER.{name}" in said:
            return (
                f"SOLVER.{name} is {solver[name]}, and with SOLVER.MAX_ITER {solver.MAX_ITER} the"
                f" schedule counts {counted}; {advice}, or leave it out"
            )
    return ""


def _arch(cfg: Any) -> Problems:
    arch = cfg.MODEL.ARCH
    family = MODELS.get(find_name(arch, cfg.RESNET.DEPTH))
    if cfg.TRAIN.DATASET == "video" and not (family and family.takes_clips):
        names = (re.sub(r"_r\d+$", "", name) for name, row in MODELS.items() if row.takes_clips)
        archs = " or ".join(dict.fromkeys(names))
        own = "" if family else f"; {REGISTERED_FIRST}"
        yield f"MODEL.ARCH is {arch!r}; on videos it is {archs}, with RESNET.DEPTH{own}"
    if cfg.MODEL.MODEL_NAME == "ResNet_nopool" and arch != "c2d":
        yield (
            f"MODEL.MODEL_NAME is ResNet_nopool with MODEL.ARCH {arch}; only a C2D is built without"
            " its pool: set MODEL.ARCH c2d, or leave MODEL.MODEL_NAME out"
        )
    named = cfg.MODEL.MODEL_NAME.removeprefix("PTV").lower().removesuffix("_nopool")
    if named and named != next((word for word in OTHER_THAN_RESNET if word in arch), "resnet"):
        yield (
            f"MODEL.MODEL_NAME is {cfg.MODEL.MODEL_NAME} with MODEL.ARCH {arch}, which is another"
            " network: MODEL.ARCH with RESNET.DEPTH chooses it, so leave MODEL.MODEL_NAME out"
        )
    if cfg.TRAIN.DATASET != cfg.TEST.DATASET:
        yield (
            f"TEST.DATASET is {cfg.TEST.DATASET} with TRAIN.DATASET {cfg.TRAIN.DATASET}; make them"
            " equal"
        )


def _octave(cfg: Any) -> Problems:
    stages = cfg.OCTCONV.STAGES
    if stages and stages != list(range(min(stages), max(stages) + 1)):
        yield (
            f"OCTCONV.STAGES is {stages}; octave stages follow each other without a gap, as in [2,"
            " 3, 4]"
        )


def _sizes(cfg: Any) -> Problems:
    data = cfg.DATA
    for name in ("TRAIN_CROP_SIZE", "TEST_CROP_SIZE"):
        if cfg.TRAIN.DATASET == "video" and data[name] < 32:
            yield (
                f"DATA.{name} is {data[name]}; the network halves it five times, so it is at"
                " least 32"
            )
    if data.TRAIN_JITTER_SCALES[0] > data.TRAIN_JITTER_SCALES[1]:
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
                "each step needs a factor of BASE_LR"
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
    if batch % accum:
        yield (
            f"TRAIN.BATCH_SIZE {batch} is not divisible by SOLVER.ACCUM_STEPS {accum}; the batch is"
            " what they sum to"
        )


def _jitter(cfg: Any) -> Problems:
    area, aspect = cfg.DATA.TRAIN_JITTER_SCALES_RELATIVE, cfg.DATA.TRAIN_JITTER_ASPECT_RELATIVE
    for name, ends in (("SCALES", area), ("ASPECT", aspect)):
        if ends != sorted(ends):
            yield f"DATA.TRAIN_JITTER_{name}_RELATIVE is {ends}; it is [smallest, largest]"
    if aspect and not area and cfg.TRAIN.DATASET == "video":
        yield (
            f"DATA.TRAIN_JITTER_ASPECT_RELATIVE is {aspect} without"
            " DATA.TRAIN_JITTER_SCALES_RELATIVE; set both, or neither to jitter the short side"
        )
    if cfg.DATA.PCA_NOISE and cfg.TRAIN.DATASET == "video":
        yield (
            f"DATA.PCA_NOISE is {cfg.DATA.PCA_NOISE:g} with TRAIN.DATASET video; only images get"
            " it: leave it 0, DATA.COLOR_JITTER changes the colors of clips"
        )


def _test(cfg: Any) -> Problems:
    data, test, is_video = cfg.DATA, cfg.TEST, cfg.TRAIN.DATASET == "video"
    short_side = data.TEST_SHORT_SIDE
    one_crop = is_video and test.ENABLE and test.NUM_SPATIAL_CROPS == 1 and not short_side
    if one_crop and data.TRAIN_JITTER_SCALES[0] < data.TEST_CROP_SIZE:
        yield (
            f"DATA.TEST_CROP_SIZE is {data.TEST_CROP_SIZE} with TEST.NUM_SPATIAL_CROPS 1; one crop"
            " is the middle of a short side of DATA.TRAIN_JITTER_SCALES[0],"
            f" {data.TRAIN_JITTER_SCALES[0]}: lower DATA.TEST_CROP_SIZE"
        )
    if short_side and not is_video:
        yield (
            f"DATA.TEST_SHORT_SIDE is {short_side} with TRAIN.DATASET {cfg.TRAIN.DATASET}; that of"
            " images is DATA.TRAIN_JITTER_SCALES[0]: leave it 0"
        )
    elif 0 < short_side < data.TEST_CROP_SIZE:
        yield (
            f"DATA.TEST_SHORT_SIDE is {short_side}, below DATA.TEST_CROP_SIZE"
            f" {data.TEST_CROP_SIZE}; no crop would fit: raise it, or set it to 0"
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


def _memory(cfg: Any) -> Problems:
    # torch.compile refuses what holds the statistics of batch norms while they see a batch again.
    if cfg.TRAIN.COMPILE and cfg.MODEL.ACT_CHECKPOINT:
        yield (
            "MODEL.ACT_CHECKPOINT is True with TRAIN.COMPILE True; torch.compile recomputes by its"
            " own choice and cannot compile ours: set one of them False"
        )


def _mixing(cfg: Any) -> Problems:
    mixup = cfg.MIXUP
    if mixup.ENABLE and cfg.DATA.MULTI_LABEL and mixup.LABEL_SMOOTH_VALUE:
        yield (
            f"MIXUP.LABEL_SMOOTH_VALUE is {mixup.LABEL_SMOOTH_VALUE:g} with DATA.MULTI_LABEL; "
            "several labels per video are mixed but not smoothed: set it to 0"
        )


def _loss(cfg: Any) -> Problems:
    if cfg.DATA.MULTI_LABEL and cfg.TRAIN.DATASET != "video":
        yield (
            f"DATA.MULTI_LABEL is True with TRAIN.DATASET {cfg.TRAIN.DATASET}; an image has one"
            " label, its folder: set it False, with MODEL.LOSS_FUNC cross_entropy"
        )
    if (cfg.MODEL.LOSS_FUNC == "bce_logit") != cfg.DATA.MULTI_LABEL:
        yield (
            f"DATA.MULTI_LABEL is {cfg.DATA.MULTI_LABEL} with MODEL.LOSS_FUNC"
            f" {cfg.MODEL.LOSS_FUNC}; several labels per video go with bce_logit, and only they"
        )
    # Of classes that are still to be counted, MODEL.NUM_CLASSES 0, no number is wrong.
    weights, classes = cfg.MODEL.CLASS_WEIGHTS, cfg.MODEL.NUM_CLASSES
    if weights and classes and len(weights) != classes:
        yield (
            f"MODEL.CLASS_WEIGHTS has {len(weights)} entries; it has one for each of"
            f" MODEL.NUM_CLASSES {classes}"
        )
    if weights and not any(weights):
        yield f"MODEL.CLASS_WEIGHTS is {weights}; nothing would be learned: one of them is above 0"


def _nonlocal(cfg: Any) -> Problems:
    location = cfg.NONLOCAL.LOCATION
    pathways = 2 if cfg.MODEL.ARCH == "slowfast" else 1
    if any(blocks for stage in location for blocks in stage[pathways:]):
        yield (
            f"NONLOCAL.LOCATION is {location} with MODEL.ARCH {cfg.MODEL.ARCH}; "
            f"each stage has the blocks of {pathways} pathway{'s' if pathways > 1 else ''}"
        )
    pools = cfg.NONLOCAL.POOL
    if not all(pools) or {len(pool) for stage in pools for pool in stage} != {3}:
        yield f"NONLOCAL.POOL is {pools}; a pool is [frames, height, width], for each stage"
    if len({str(pool) for stage in pools for pool in stage}) != 1:
        yield f"NONLOCAL.POOL is {pools}; one pool serves all stages and pathways"


def _blocks(cfg: Any) -> Problems:
    kernels = cfg.RESNET.NUM_BLOCK_TEMP_KERNEL
    if any(len(stage) not in (1, 2) for stage in kernels):
        yield (
            f"RESNET.NUM_BLOCK_TEMP_KERNEL is {kernels}; it has one number per pathway for each"
            " stage"
        )


RULES: tuple[Callable[[Any], Problems], ...] = (
    _arch,
    beyond_limits,
    _octave,
    _sizes,
    _frames,
    _schedule,
    _batches,
    _jitter,
    _test,
    _memory,
    _mixing,
    _loss,
    _nonlocal,
    _blocks,
)
