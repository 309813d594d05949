"""`create_model`: every network by its name."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import torch
from torch import nn

from octvideo.errors import ConfigError, did_you_mean
from octvideo.layers import (
    channels_last,
    compute_in_2d,
    fuse,
    save_memory,
    stem_by_space_to_depth,
)
from octvideo.models import densenet, image_resnet, mobilenet, pytorchvideo, slowfast, video_resnet
from octvideo.models.blocks import BlockStyle
from octvideo.models.network import Family, Network
from octvideo.models.video_options import VideoOptions
from octvideo.octavize.convert import plain, rebuilt

MODELS: dict[str, Family] = {
    name: family
    for module in (video_resnet, slowfast, image_resnet, densenet, mobilenet, pytorchvideo)
    for name, family in module.MODELS.items()
}
ARGUMENTS = ("name", "memory_saving", "octavize")  # of `create_model`, beside a family's options
_OF_PACKAGE = frozenset(MODELS)
REGISTERED_FIRST = "register one of your own first, with octvideo.models.registry.register"
Built = TypeVar("Built", bound=nn.Module)


def register(name: str, family: Family) -> None:
    """Add a network of your own, so that `create_model` and the settings know its name. Raises
    ConfigError for a name that is taken."""
    if name in MODELS:
        raise ConfigError(f"there is a model {name!r} already; choose another name")
    MODELS[name] = family


def find_name(arch: str, depth: int) -> str:
    """MODEL.ARCH as the name of a network: "i3d" of depth 50 is i3d_r50, "resnet50" is itself."""
    name = full_name(arch)
    return name if name in MODELS else f"{arch}_r{depth}"


def full_name(name: str) -> str:
    """`name`, or with "ptv:" before it where only pytorchvideo has such a network."""
    return f"ptv:{name}" if name not in MODELS and f"ptv:{name}" in MODELS else name


# What version 0.1.0 wrote into the config of every video network, and only SlowFast has.
_SLOWFAST_ONLY = {f.name for f in fields(slowfast.SlowFastOptions)} - {
    f.name for f in fields(VideoOptions)
}


def from_config(config: Mapping[str, Any]) -> Network:
    """`create_model(**config)` of a `model.config`, those that version 0.1.0 wrote included."""
    name = full_name(str(config.get("name", "")))
    known = {f.name for f in fields(family_of(name).options)}
    return create_model(
        **{k: v for k, v in config.items() if k in known or k not in _SLOWFAST_ONLY}
    )


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A `model.config` that survives a change of defaults: how its blocks downsample and the
    epsilon of their batch norms where it leaves them to the family."""
    known = {key: value for key, value in config.items() if key not in ARGUMENTS}
    style = getattr(family_of(config["name"]).options(**known), "style", None)
    if not isinstance(style, BlockStyle):
        return dict(config)
    decided = {"downsample": style.downsample, "bn_eps": style.bn_eps}
    return {**config, **{key: decided[key] for key in decided.keys() & config.keys()}}


def family_in(config: Mapping[str, Any]) -> Family | None:
    """The row of the network that a `config` names, as a checkpoint's does; None if it is not
    known."""
    return MODELS.get(full_name(str(config.get("name", ""))))


def is_own(name: str) -> bool:
    """Whether `name` is a family of one's own, of `register`."""
    return name in MODELS and name not in _OF_PACKAGE


def on_meta(name: str, build: Callable[[], Built]) -> Built:
    """What `build` builds of the family `name`, on the meta device: names and sizes without memory.

    A family of one's own that cannot be built there, as one that reads a number from a tensor, is
    built really.
    """
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:
        if not is_own(name):
            raise
    return build()


def create_model(
    name: str,
    *,
    memory_saving: bool = False,
    octavize: Mapping[str, Any] | None = None,
    **options: Any,
) -> Network:
    """Build a network: `create_model("i3d_r50", alpha=0.1)`, `create_model("resnet50", alpha=0.5)`.

    name: one of `octvideo.list_models()`.
        Video: c2d, i3d, slow, slowfast with _r26, _r50 or _r101; c2d_nln, i3d_nln with five
        non-local blocks (Wang et al. 2018); c2d_nopool, which keeps all frames up to the head.
        Images: resnet18, 26, 34, 50, 101, 152 and resnext50_32x4d, 101 (post-activation);
        preact_resnet26, 50, 101, 152, 200, preact_resnext50_32x4d, 101, preact_se_resnet50 (Tables
        2, 4); resnet152_v1e, v1f (Table 5); resnet50_glore; resnet20_cifar, 44, 56; densenet121;
        mobilenet_v1, v2 (Table 3). pytorchvideo's, by the names of its hub: ptv:x3d_m (or x3d_m),
        ptv:csn_r101, ptv:r2plus1d_r50, ...; at alpha > 0 `octvideo.octavize` makes them octave.
    options: the fields of `VideoOptions` or `SlowFastOptions`, or for images of
    `ImageResNetOptions` and its like:
        stem="deep8" and stem_pool="conv" or "bottleneck" are the stems of Table 4's ++ rows,
        stem="3x3" and stem_pool="none" the CIFAR form of any ResNet. All have
        alpha: share of low-frequency channels, in [0, 1); 0 (default) is the vanilla network.
        num_classes: 400 for video, 1000 for images, 10 for CIFAR by default.
    memory_saving: octave convolutions pool again in the backward pass instead of keeping what they
    pooled; the
        gradients are the same, bit for bit. At alpha 0 this changes nothing, and a line says so.
    octavize: the arguments with which `octvideo.octavize` made this network octave, as its `config`
    has them.

    A video network takes float (N, 3, T, H, W), SlowFast the frames of its fast pathway; an image
    network (N, 3, H, W). Both return logits (N, num_classes). `model.config` holds plain values
    with which `create_model(**model.config)` builds it again.

    Raises ConfigError (a ValueError) for an unknown name or option and for values out of range or
    of the wrong type.
    """
    name = full_name(name)
    family = family_of(name)
    known = [f.name for f in fields(family.options)]
    for option in options:
        if option not in known:
            raise ConfigError(f"{name} has no option {option!r}; {did_you_mean(option, known)}")
    chosen = family.options(**{**family.fixed, **options})
    model = family.builder(chosen)
    fuse(stem_by_space_to_depth(compute_in_2d(channels_last(model))), "auto")
    model.config = plain({"name": name, **asdict(chosen)})
    model.input_shape = family.input_shape
    network: Network = rebuilt(model, octavize) if octavize else model
    save_memory(network, memory_saving)
    return network


def input_shape_of(name: str) -> tuple[int, ...]:
    """(3, T, H, W) or (3, H, W): the input of the model `name` in the paper. Raises ConfigError for
    an unknown name."""
    return family_of(full_name(name)).input_shape


def family_of(name: str) -> Family:
    """The row of the table of networks. Raises ConfigError for an unknown name."""
    if name not in MODELS:
        advice = did_you_mean(name, MODELS, "octvideo.list_models() names them")
        raise ConfigError(f"there is no model {name!r:.42}; {advice} ({REGISTERED_FIRST})")
    return MODELS[name]
