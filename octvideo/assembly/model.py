"""The network that a config describes, and the settings that describe a network."""

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, Literal

from octvideo.config.check import BY_NAME
from octvideo.config.defaults import DEFAULTS, Tree
from octvideo.config.limits import value_of
from octvideo.config.yaml_text import parse_value, value_text
from octvideo.errors import ConfigError, did_you_mean
from octvideo.layers import compute_in_2d, fuse, stem_by_space_to_depth
from octvideo.models import create_model
from octvideo.models.network import Network
from octvideo.models.registry import MODELS, family_of, find_name, full_name, is_own
from octvideo.models.video_options import BLOCKS
from octvideo.octavize.convert import plain

# How PySlowFast writes a C2D without the pool in time that others have after res2.
NOPOOL = ("c2d", "ResNet_nopool")

CHOICE: dict[str, bool | Literal["auto"]] = {"auto": "auto", "true": True, "false": False}

# Option of a family -> the setting that it is read from.
SETTINGS = BY_NAME | {
    "alpha": "OCTCONV.ALPHA",
    "stages": "OCTCONV.STAGES",
    "width_rule": "OCTCONV.WIDTH_RULE",
    "downsample": "OCTCONV.DOWNSAMPLE",
    "num_classes": "MODEL.NUM_CLASSES",
    "dropout_rate": "MODEL.DROPOUT_RATE",
    "fc_init_std": "MODEL.FC_INIT_STD",
    "stride_1x1": "RESNET.STRIDE_1X1",
    "stem_pool_padding": "RESNET.STEM_POOL_PADDING",
    "zero_init_final_bn": "RESNET.ZERO_INIT_FINAL_BN",
    "num_block_temp_kernel": "RESNET.NUM_BLOCK_TEMP_KERNEL",
    "num_block_temp_kernel_fast": "RESNET.NUM_BLOCK_TEMP_KERNEL",
    "nonlocal_location_fast": "NONLOCAL.LOCATION",
    "nonlocal_on": "OCTCONV.NONLOCAL",
    "nonlocal_pool": "NONLOCAL.POOL",
    "nonlocal_instantiation": "NONLOCAL.INSTANTIATION",
    "speed_ratio": "SLOWFAST.ALPHA",
    "beta_inv": "SLOWFAST.BETA_INV",
    "fusion_kernel_size": "SLOWFAST.FUSION_KERNEL_SZ",
    "fusion_conv_channel_ratio": "SLOWFAST.FUSION_CONV_CHANNEL_RATIO",
    "crop_size": "DATA.TRAIN_CROP_SIZE",
    "num_frames": "DATA.NUM_FRAMES",
}

# Arguments of `create_model` beside the options of a family -> what they are read from.
ARGUMENTS = {"name": "MODEL.ARCH", "memory_saving": "OCTCONV.MEMORY_SAVING"}
# Sections that describe the network alone. DATA and SLOWFAST are about the clips as well: an option
# of the network, such as crop_size, may differ from them.
SECTIONS = ("MODEL.", "RESNET.", "OCTCONV.", "NONLOCAL.")


def build_model(cfg: Any) -> Network:
    """The network of MODEL, RESNET, OCTCONV, NONLOCAL and SLOWFAST, with fresh weights.

    Raises ConfigError for a setting of RESNET, OCTCONV or NONLOCAL that the network has no option
    for, and for an option of MODEL.OPTIONS that it does not have or that has a setting.
    """
    arch = "c2d_nopool" if (cfg.MODEL.ARCH, cfg.MODEL.MODEL_NAME) == NOPOOL else cfg.MODEL.ARCH
    name = find_name(arch, cfg.RESNET.DEPTH)
    family = family_of(name)
    known = {option.name for option in fields(family.options)}
    _refuse_unused(cfg, name, known)
    options: dict[str, Any] = {}
    for option, key in SETTINGS.items():
        # What the name decides stays, unless a setting says otherwise.
        if option in known and not (option in family.fixed and _is_default(cfg, key)):
            value = _value(cfg, option, key)
            if value is not None:
                options[option] = value
    options |= _given(cfg, name, known)
    network = create_model(name, memory_saving=cfg.OCTCONV.MEMORY_SAVING, **options)
    compute_in_2d(network, CHOICE[cfg.MODEL.COMPUTE_IN_2D])
    stem_by_space_to_depth(network, CHOICE[cfg.MODEL.STEM_SPACE_TO_DEPTH])
    fuse(network, CHOICE[cfg.OCTCONV.FUSED])
    return network


def name_settings(model: str) -> Tree:
    """ "i3d_r50" -> MODEL.ARCH i3d, RESNET.DEPTH 50; any other name stands for itself."""
    name, found = full_name(model), re.fullmatch(r"(.+)_r(\d+)", model)
    if found and int(found[2]) in BLOCKS and name in MODELS and not name.startswith("ptv:"):
        return {"MODEL": {"ARCH": found[1]}, "RESNET": {"DEPTH": int(found[2])}}
    return {"MODEL": {"ARCH": name}}


def network_settings(network: Mapping[str, Any]) -> Tree:
    """The settings with which `build_model` builds the network of a `model.config`. Options without
    a setting stand in MODEL.OPTIONS."""
    name = str(network["name"])
    tree, fixed = name_settings(name), family_of(name).fixed
    others = tree["MODEL"]["OPTIONS"] = []
    for option in network.keys() - ARGUMENTS.keys() - {"octavize"}:
        value, key = network[option], SETTINGS.get(option, "DATA.")
        if option in fixed and value == plain(fixed[option]):
            continue
        if key.startswith("DATA.") or option in fixed or _is_free(name, option):
            others.append(f"{option}={value_text(value)}")
        elif value is not None:
            section, _, setting = key.partition(".")
            tree.setdefault(section, {})[setting] = _as_setting(network, option)
    others.sort()
    return tree


def _as_setting(network: Mapping[str, Any], option: str) -> Any:
    """The value of an option in the form of its setting: the opposite of `_value`."""
    option = option.removesuffix("_fast")
    if option == "nonlocal_pool":
        return [[network[option]]] * 4
    if option not in ("nonlocal_location", "num_block_temp_kernel"):
        return network[option]
    pathways = [network[option] or [[]] * 4]
    if fast := network.get(f"{option}_fast"):
        pathways.append(fast)
    return [list(stage) for stage in zip(*pathways, strict=True)]


def _refuse_unused(cfg: Any, name: str, known: set[str]) -> None:
    # How weights are initialized changes no network: a family without the option has nothing to
    # leave out.
    used = {key for option, key in SETTINGS.items() if option in known} | {
        "RESNET.ZERO_INIT_FINAL_BN"
    }
    for option, key in SETTINGS.items():
        own_section = key.startswith(("RESNET.", "OCTCONV.", "NONLOCAL."))
        if own_section and key not in used and not _is_default(cfg, key):
            value = value_of(cfg, key)
            raise ConfigError(f"{key} is {value!r}; {name} has no option {option!r}: leave it out")


def _given(cfg: Any, name: str, known: Collection[str]) -> dict[str, Any]:
    """Options by their own names: MODEL.OPTIONS ["growth_rate=32"]. One that a setting decides is
    refused: what reads the setting, the labels, a resumed run, would not know of it."""
    fixed = family_of(name).fixed
    options = {}
    for entry in cfg.MODEL.OPTIONS:
        option, equals, value = entry.partition("=")
        if not (equals and value.strip()):
            raise ConfigError(f"MODEL.OPTIONS has {entry!r}; an option of {name} is NAME=VALUE")
        option = option.strip()
        key = ARGUMENTS.get(option) or SETTINGS.get(option, "")
        if key.startswith(SECTIONS) and not (option in fixed or _is_free(name, option)):
            raise ConfigError(f"MODEL.OPTIONS has {entry!r}; set {key} instead")
        if option not in known:
            hint = did_you_mean(option, known)
            raise ConfigError(f"MODEL.OPTIONS has {entry!r}; {name} has no such option; {hint}")
        options[option] = parse_value(value)
    return options


def _is_free(name: str, option: str) -> bool:
    """What a family of one's own calls by the name of a setting may be out of the setting's
    range."""
    return is_own(name) and option != "num_classes"


def _value(cfg: Any, option: str, key: str) -> Any:
    """The setting in the form of the option; None if it leaves the choice to the family."""
    value = value_of(cfg, key)
    if option == "num_classes":
        return value or value_of(DEFAULTS, key)
    if option == "nonlocal_pool":
        return value[0][0]
    pathway = int(option.endswith("_fast"))
    if key == "NONLOCAL.LOCATION":
        return [stage[pathway] if len(stage) > pathway else [] for stage in value]
    if key == "RESNET.NUM_BLOCK_TEMP_KERNEL":
        named = bool(value) and all(len(stage) > pathway for stage in value)
        return [stage[pathway] for stage in value] if named else None
    return None if value in ("", []) else value


def _is_default(cfg: Any, key: str) -> bool:
    return bool(value_of(cfg, key) == value_of(DEFAULTS, key))
