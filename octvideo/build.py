"""From settings to objects: the only reader of a config. Everything it calls takes plain values by name."""

from typing import Any

from torch import nn

from octvideo.models import create_model


def build_model(cfg: Any) -> nn.Module:
    """The network of MODEL, RESNET, OCTCONV, NONLOCAL and SLOWFAST, with fresh weights."""
    resnet, octave, attention, two = cfg.RESNET, cfg.OCTCONV, cfg.NONLOCAL, cfg.SLOWFAST
    options: dict[str, Any] = {
        "stages": octave.STAGES or None,
        "width_rule": octave.WIDTH_RULE or None,
        "downsample": octave.DOWNSAMPLE or None,
        "block": resnet.BLOCK,
        "width_per_group": resnet.WIDTH_PER_GROUP,
        "num_groups": resnet.NUM_GROUPS,
        "stride_1x1": resnet.STRIDE_1X1,
        "stem_pool_padding": resnet.STEM_POOL_PADDING,
        "zero_init_final_bn": resnet.ZERO_INIT_FINAL_BN,
        "nonlocal_location": [stage[0] for stage in attention.LOCATION],
        "nonlocal_on": octave.NONLOCAL,
        "nonlocal_pool": attention.POOL[0][0],
        "nonlocal_instantiation": attention.INSTANTIATION,
        "speed_ratio": two.ALPHA,
        "beta_inv": two.BETA_INV,
        "fusion_kernel_size": two.FUSION_KERNEL_SZ,
        "fusion_conv_channel_ratio": two.FUSION_CONV_CHANNEL_RATIO,
        "dropout_rate": cfg.MODEL.DROPOUT_RATE,
        "fc_init_std": cfg.MODEL.FC_INIT_STD,
        "crop_size": cfg.DATA.TRAIN_CROP_SIZE,
    }
    if resnet.NUM_BLOCK_TEMP_KERNEL:
        options["num_block_temp_kernel"] = [stage[0] for stage in resnet.NUM_BLOCK_TEMP_KERNEL]
    name = f"{cfg.MODEL.ARCH}_r{resnet.DEPTH}"
    return create_model(name, alpha=octave.ALPHA, num_classes=cfg.MODEL.NUM_CLASSES, **options)
