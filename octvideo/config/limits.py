"""What a setting may be whatever the others are: the values of numbers, the lengths of lists. The
words of a rule follow "it" or "each"."""

from collections.abc import Iterator
from typing import Any

from octvideo.models.option_rules import Rule


def at_least(least: int, then: str = "") -> Rule:
    return Rule(f"is at least {least}{then}", lambda value: value >= least)


def of_length(words: str, *lengths: int) -> Rule:
    return Rule(words, lambda length: length in lengths)


ABOVE_0 = Rule("is above 0", lambda value: value > 0)
SHARE = Rule("lies in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_1 = Rule("lies in [0, 1)", lambda value: 0 <= value < 1)

# Of a number, or of each number in a list. Only DATA.MEAN has none.
NUMBERS: dict[str, Rule] = {
    "TRAIN.BATCH_SIZE": at_least(1),
    "TRAIN.EVAL_PERIOD": at_least(1),
    "TRAIN.CHECKPOINT_PERIOD": at_least(1),
    "TRAIN.CHECKPOINT_MINUTES": at_least(0),
    "TRAIN.KEEP_CHECKPOINTS": at_least(1),
    "TRAIN.EMA_DECAY": BELOW_1,
    "TRAIN.MAX_SKIPPED": at_least(0),
    "TEST.BATCH_SIZE": at_least(1),
    "TEST.NUM_ENSEMBLE_VIEWS": at_least(1),
    "TEST.IMAGE_CROP_SIZES": at_least(1),
    "TEST.VIEW_CHUNK": at_least(0),
    "DATA.SHARD_CACHE_GB": at_least(0),
    "DATA.NUM_FRAMES": at_least(1),
    "DATA.SAMPLING_RATE": at_least(1),
    "DATA.TARGET_FPS": at_least(1),
    "DATA.STD": ABOVE_0,
    "DATA.TRAIN_JITTER_SCALES": at_least(1),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": Rule(
        "is above 0 and at most 1", lambda value: 0 < value <= 1
    ),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ABOVE_0,
    "DATA.TRAIN_CROP_SIZE": at_least(1),
    "DATA.TEST_CROP_SIZE": at_least(1),
    "DATA.TEST_SHORT_SIDE": at_least(0),
    "DATA.PCA_NOISE": at_least(0),
    "DATA.COLOR_JITTER": SHARE,
    "DATA.MAX_BAD_RATIO": SHARE,
    "DATA_LOADER.NUM_WORKERS": at_least(0),
    "DATA_LOADER.TIMEOUT": Rule(
        "is above 0: a file that hangs has to be given up at some time", lambda value: value > 0
    ),
    "MODEL.NUM_CLASSES": at_least(0),
    "MODEL.CLASS_WEIGHTS": at_least(0),
    "MODEL.DROPOUT_RATE": BELOW_1,
    "MODEL.FC_INIT_STD": at_least(0),
    "MODEL.FREEZE_STAGES": Rule(
        "is 1 (the stem), 2, 3, 4 or 5 (res2..res5)", lambda value: 1 <= value <= 5
    ),
    "RESNET.NUM_GROUPS": at_least(1),
    "RESNET.WIDTH_PER_GROUP": at_least(1),
    "RESNET.NUM_BLOCK_TEMP_KERNEL": at_least(0),
    "OCTCONV.ALPHA": Rule("lies in [0, 1); 0 is the vanilla network", BELOW_1.fits),
    "OCTCONV.STAGES": Rule("is 2, 3, 4 or 5 (res2..res5)", lambda value: 2 <= value <= 5),
    "NONLOCAL.LOCATION": at_least(0),
    "NONLOCAL.GROUP": Rule(
        "is 1: attention over groups of frames is not built", lambda value: value == 1
    ),
    "NONLOCAL.POOL": at_least(1),
    "SLOWFAST.ALPHA": at_least(1),
    "SLOWFAST.BETA_INV": at_least(1),
    "SLOWFAST.FUSION_CONV_CHANNEL_RATIO": at_least(1),
    "SLOWFAST.FUSION_KERNEL_SZ": at_least(1),
    "BN.NUM_BATCHES_PRECISE": at_least(1),
    "BN.WEIGHT_DECAY": at_least(0),
    "SOLVER.BASE_LR": at_least(0),
    "SOLVER.BASE_BATCH_SIZE": at_least(0),
    "SOLVER.COSINE_END_LR": at_least(0),
    "SOLVER.STEPS": at_least(0),
    "SOLVER.STEP_ITERS": at_least(0),
    "SOLVER.LRS": at_least(0),
    "SOLVER.MAX_EPOCH": at_least(1),
    "SOLVER.MAX_ITER": at_least(0),
    "SOLVER.WARMUP_EPOCHS": at_least(0),
    "SOLVER.WARMUP_START_LR": at_least(0),
    "SOLVER.MOMENTUM": BELOW_1,
    "SOLVER.DAMPENING": BELOW_1,
    "SOLVER.WEIGHT_DECAY": at_least(0),
    "SOLVER.BETAS": BELOW_1,
    "SOLVER.CLIP_GRAD_VAL": at_least(0, "; 0 clips nothing"),
    "SOLVER.CLIP_GRAD_L2NORM": at_least(0, "; 0 clips nothing"),
    "SOLVER.ACCUM_STEPS": at_least(1),
    "MIXUP.ALPHA": at_least(0),
    "MIXUP.CUTMIX_ALPHA": at_least(0),
    "MIXUP.PROB": SHARE,
    "MIXUP.SWITCH_PROB": SHARE,
    "MIXUP.LABEL_SMOOTH_VALUE": BELOW_1,
    "RNG_SEED": at_least(0),
    "LOG_PERIOD": at_least(1),
}

RGB = of_length("has one number for each of red, green and blue", 3)
ENDS = of_length("is [smallest, largest], or []", 0, 2)

# Of lists that may not have any length.
LENGTHS: dict[str, Rule] = {
    "TEST.IMAGE_CROP_SIZES": Rule("has at least one size", lambda length: length >= 1),
    "DATA.MEAN": RGB,
    "DATA.STD": RGB,
    "DATA.TRAIN_JITTER_SCALES": of_length("is [shortest, longest] of the short side", 2),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": ENDS,
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": ENDS,
    "RESNET.NUM_BLOCK_TEMP_KERNEL": of_length("has an entry for each of res2..res5, or none", 0, 4),
    "NONLOCAL.LOCATION": of_length("has an entry for each of res2..res5", 4),
    "SOLVER.BETAS": of_length("has two numbers: for gradients and for their squares", 2),
}


def beyond_limits(cfg: Any) -> Iterator[str]:
    """Lists of a wrong length, then numbers that are not allowed: what was got, and the rule."""
    for key, rule in LENGTHS.items():
        value = value_of(cfg, key)
        if not rule.fits(len(value)):
            yield f"{key} is {value}; it {rule.words}"
    for key, rule in NUMBERS.items():
        value = value_of(cfg, key)
        numbers = list(_numbers(value))
        if not all(map(rule.fits, numbers)):
            said = f"{value}; each" if isinstance(value, list) else f"{value:g}; it"
            yield f"{key} is {said} {rule.words}"
        if any(type(number) is int and abs(number) >= 2**31 for number in numbers):
            yield f"{key} is {value}; whole numbers stay below 2 ** 31"


def value_of(cfg: Any, key: str) -> Any:
    """The setting of this name, as DATA.MEAN."""
    section, _, name = key.rpartition(".")
    return (cfg[section] if section else cfg)[name]


def _numbers(value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        yield value
        return
    for entry in value:
        yield from _numbers(entry)
