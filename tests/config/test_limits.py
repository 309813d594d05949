"""What a setting may be whatever the others are."""

import pytest

from octvideo.config import leaves, load_config
from octvideo.config.defaults import CHOICES, DEFAULTS, ITEMS
from octvideo.config.limits import LENGTHS, NUMBERS
from octvideo.errors import ConfigError

IMAGES = "cifar10/resnet50"


def innermost(example):
    return innermost(example[0]) if isinstance(example, list) else example


def test_every_number_has_limits_but_the_mean_of_pixels():
    examples = dict(leaves(DEFAULTS)) | ITEMS
    numbers = {key for key, example in examples.items() if type(innermost(example)) in (int, float)}

    assert numbers - set(CHOICES) - set(NUMBERS) == {"DATA.MEAN"}
    assert set(NUMBERS) <= numbers
    assert set(LENGTHS) <= {key for key, example in examples.items() if isinstance(example, list)}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("DATA_LOADER.TIMEOUT=0", "DATA_LOADER.TIMEOUT is 0; it is above 0"),
        ("DATA_LOADER.TIMEOUT=-1", "DATA_LOADER.TIMEOUT is -1; it is above 0"),
        ("SOLVER.CLIP_GRAD_L2NORM=-1", "L2NORM is -1; it is at least 0; 0 clips nothing"),
        ("SOLVER.CLIP_GRAD_VAL=-1", "CLIP_GRAD_VAL is -1; it is at least 0; 0 clips nothing"),
        ("SOLVER.WEIGHT_DECAY=-1e-4", "SOLVER.WEIGHT_DECAY is -0.0001; it is at least 0"),
        ("SOLVER.WARMUP_EPOCHS=-1", "SOLVER.WARMUP_EPOCHS is -1; it is at least 0"),
        ("SOLVER.COSINE_END_LR=-1", "SOLVER.COSINE_END_LR is -1; it is at least 0"),
        ("SOLVER.LRS=[1,-1]", "SOLVER.LRS is [1.0, -1.0]; each is at least 0"),
        ("SOLVER.MOMENTUM=1", "SOLVER.MOMENTUM is 1; it lies in [0, 1)"),
        ("SOLVER.BETAS=[0.9]", "SOLVER.BETAS is [0.9]; it has two numbers"),
        ("SOLVER.BETAS=[0.9,1]", "SOLVER.BETAS is [0.9, 1.0]; each lies in [0, 1)"),
        ("BN.WEIGHT_DECAY=-1", "BN.WEIGHT_DECAY is -1; it is at least 0"),
        ("DATA.TEST_CROP_SIZE=0", "DATA.TEST_CROP_SIZE is 0; it is at least 1"),
        ("DATA.MAX_BAD_RATIO=5", "DATA.MAX_BAD_RATIO is 5; it lies in [0, 1]"),
        ("DATA.COLOR_JITTER=2", "DATA.COLOR_JITTER is 2; it lies in [0, 1]"),
        ("DATA.MEAN=[]", "DATA.MEAN is []; it has one number for each of red, green and blue"),
        ("DATA.STD=[]", "DATA.STD is []; it has one number for each of red, green and blue"),
        ("DATA.STD=[1,1,0]", "DATA.STD is [1.0, 1.0, 0.0]; each is above 0"),
        ("DATA.TRAIN_JITTER_SCALES=[]", "it is [shortest, longest] of the short side"),
        ("TEST.IMAGE_CROP_SIZES=[]", "TEST.IMAGE_CROP_SIZES is []; it has at least one size"),
        ("TEST.IMAGE_CROP_SIZES=[0]", "TEST.IMAGE_CROP_SIZES is [0]; each is at least 1"),
        ("TEST.IMAGE_CROP_SIZES=[9999999999]", "whole numbers stay below 2 ** 31"),
        ("RNG_SEED=9999999999", "whole numbers stay below 2 ** 31"),
        ("MODEL.CLASS_WEIGHTS=[-1]", "MODEL.CLASS_WEIGHTS is [-1.0]; each is at least 0"),
        ("MODEL.FREEZE_STAGES=[0]", "FREEZE_STAGES is [0]; each is 1 (the stem), 2, 3, 4 or 5"),
        ("MODEL.FREEZE_STAGES=[6]", "FREEZE_STAGES is [6]; each is 1 (the stem), 2, 3, 4 or 5"),
        ("RESNET.NUM_BLOCK_TEMP_KERNEL=[[3]]", "an entry for each of res2..res5, or none"),
        ("RESNET.NUM_BLOCK_TEMP_KERNEL=[[-1],[4],[6],[3]]", "each is at least 0"),
        ("SLOWFAST.FUSION_CONV_CHANNEL_RATIO=0", "it is at least 1"),
    ],
)
def test_what_is_beyond_a_limit_is_named_with_it_on_images_too(setting, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(IMAGES, [setting])

    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_switches_a_part_off_is_within_the_limits():
    off = (
        "SOLVER.CLIP_GRAD_VAL=0 SOLVER.CLIP_GRAD_L2NORM=0 SOLVER.WEIGHT_DECAY=0 SOLVER.BETAS=[0,0]"
        " SOLVER.MOMENTUM=0 SOLVER.NESTEROV=false TRAIN.CHECKPOINT_MINUTES=0 DATA.MAX_BAD_RATIO=1"
        " DATA.PCA_NOISE=0 TRAIN.EMA_DECAY=0 MODEL.NUM_CLASSES=0 MODEL.FREEZE_STAGES=[]"
    )

    assert load_config(IMAGES, off.split()).SOLVER.MOMENTUM == 0
