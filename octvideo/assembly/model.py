"""The network that a config describes."""

from typing import Any, Literal

from torch import nn

from octvideo.assembly.data import VIDEO
from octvideo.config.defaults import DEFAULTS
from octvideo.layers import compute_in_2d, stem_by_space_to_depth
from octvideo.models import create_model
from octvideo.models.image_options import ImageResNetOptions
from octvideo.models.registry import MODELS

Choice = bool | Literal["auto"]
# How PySlowFast writes a C2D without the pool in time that others have after res2.
NOPOOL = ("c2d", "ResNet_nopool")

CHOICE: dict[str, Choice] = {"auto": "auto", "true": True, "false": False}


def build_model(cfg: Any) -> nn.Module:
    """The network of MODEL, RESNET, OCTCONV, NONLOCAL and SLOWFAST, with fresh weights."""
    octave, model = cfg.OCTCONV, cfg.MODEL
    options: dict[str, Any] = {
        "alpha": octave.ALPHA,
        "num_classes": model.NUM_CLASSES or DEFAULTS["MODEL"]["NUM_CLASSES"],
        "dropout_rate": model.DROPOUT_RATE,
        "fc_init_std": model.FC_INIT_STD,
    }
    given = {
        "stages": octave.STAGES,
        "width_rule": octave.WIDTH_RULE,
        "downsample": octave.DOWNSAMPLE,
        "memory_saving": octave.MEMORY_SAVING,
    }
    options |= {name: value for name, value in given.items() if value}
    if cfg.TRAIN.DATASET != VIDEO:
        network = create_model(model.ARCH, **options, **_image_options(cfg))
    else:
        arch = "c2d_nopool" if (model.ARCH, model.MODEL_NAME) == NOPOOL else model.ARCH
        name = f"{arch}_r{cfg.RESNET.DEPTH}"
        network = create_model(name, **options, **_video_options(cfg))
    compute_in_2d(network, CHOICE[model.COMPUTE_IN_2D])
    return stem_by_space_to_depth(network, CHOICE[model.STEM_SPACE_TO_DEPTH])


def _image_options(cfg: Any) -> dict[str, Any]:
    """Of a ResNet what the settings change; its name decides the rest. Other families have no such options."""
    family, resnet = MODELS.get(cfg.MODEL.ARCH), cfg.RESNET
    if family is None or not issubclass(family.options, ImageResNetOptions):
        return {}
    names = ("WIDTH_PER_GROUP", "STRIDE_1X1", "STEM", "STEM_POOL")
    changed = {
        name.lower(): resnet[name] for name in names if resnet[name] != DEFAULTS["RESNET"][name]
    }
    return {"zero_init_final_bn": resnet.ZERO_INIT_FINAL_BN, **changed}


def _video_options(cfg: Any) -> dict[str, Any]:
    resnet, attention, two = cfg.RESNET, cfg.NONLOCAL, cfg.SLOWFAST
    options = {
        "block": resnet.BLOCK,
        "width_per_group": resnet.WIDTH_PER_GROUP,
        "num_groups": resnet.NUM_GROUPS,
        "stride_1x1": resnet.STRIDE_1X1,
        "stem_pool_padding": resnet.STEM_POOL_PADDING,
        "zero_init_final_bn": resnet.ZERO_INIT_FINAL_BN,
        "nonlocal_location": [stage[0] for stage in attention.LOCATION],
        "nonlocal_location_fast": [next(iter(stage[1:]), []) for stage in attention.LOCATION],
        "nonlocal_on": cfg.OCTCONV.NONLOCAL,
        "nonlocal_pool": attention.POOL[0][0],
        "nonlocal_instantiation": attention.INSTANTIATION,
        "speed_ratio": two.ALPHA,
        "beta_inv": two.BETA_INV,
        "fusion_kernel_size": two.FUSION_KERNEL_SZ,
        "fusion_conv_channel_ratio": two.FUSION_CONV_CHANNEL_RATIO,
        "crop_size": cfg.DATA.TRAIN_CROP_SIZE,
    }
    if kernels := resnet.NUM_BLOCK_TEMP_KERNEL:
        options["num_block_temp_kernel"] = [stage[0] for stage in kernels]
        if all(len(stage) > 1 for stage in kernels):
            options["num_block_temp_kernel_fast"] = [stage[1] for stage in kernels]
    return options
