"""`create_model`: every network by its name."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

from torch import nn

from octvideo.errors import ConfigError
from octvideo.layers import channels_last, compute_in_2d, save_memory, stem_by_space_to_depth
from octvideo.models.densenet import DenseNet
from octvideo.models.image_options import DenseNetOptions, ImageResNetOptions, MobileNetOptions
from octvideo.models.image_resnet import ImageResNet
from octvideo.models.mobilenet import MobileNetV1, MobileNetV2
from octvideo.models.slowfast import SlowFast
from octvideo.models.video_options import BLOCKS, VideoOptions
from octvideo.models.video_resnet import C2D, C2D_NOPOOL, I3D, SLOW, VideoResNet

CLIP, FAST_CLIP, IMAGE, CIFAR = (3, 8, 224, 224), (3, 32, 224, 224), (3, 224, 224), (3, 32, 32)

# res3 blocks 1, 3 and res4 blocks 1, 3, 5: where the stage has them.
NONLOCAL_5 = {
    26: ((), (1,), (1,), ()),
    50: ((), (1, 3), (1, 3, 5), ()),
    101: ((), (1, 3), (1, 3, 5), ()),
}


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table of networks.

    options: the dataclass whose fields `create_model` takes.
    input_shape: what it is made for: (C, T, H, W) of a clip or (C, H, W) of an image.
    fixed: the options that the name itself decides; a caller may still override them.
    """

    builder: Callable[[Any], nn.Module]
    options: type
    input_shape: tuple[int, ...]
    fixed: dict[str, Any] = field(default_factory=dict)


def _video_models() -> Iterator[tuple[str, Family]]:
    for depth in BLOCKS:
        for name, spec in (("c2d", C2D), ("c2d_nopool", C2D_NOPOOL), ("i3d", I3D), ("slow", SLOW)):
            yield f"{name}_r{depth}", Family(partial(VideoResNet, spec, depth), VideoOptions, CLIP)
        for name, spec in (("c2d_nln", C2D), ("i3d_nln", I3D)):
            nonlocal_5 = {"nonlocal_location": NONLOCAL_5[depth]}
            yield (
                f"{name}_r{depth}",
                Family(partial(VideoResNet, spec, depth), VideoOptions, CLIP, nonlocal_5),
            )
        yield f"slowfast_r{depth}", Family(partial(SlowFast, depth), VideoOptions, FAST_CLIP)


def _image_resnet(input_shape: tuple[int, ...] = IMAGE, **fixed: Any) -> Family:
    return Family(ImageResNet, ImageResNetOptions, input_shape, fixed)


def _image_models() -> Iterator[tuple[str, Family]]:
    blocks = {**BLOCKS, 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
    for depth in (18, 34):
        yield f"resnet{depth}", _image_resnet(blocks=blocks[depth], basic=True)
    for depth in (26, 50, 101, 152):
        yield f"resnet{depth}", _image_resnet(blocks=blocks[depth])
    for depth in (26, 50, 101, 152, 200):
        yield f"preact_resnet{depth}", _image_resnet(blocks=blocks[depth], block="preact")
    for depth in (50, 101):
        resnext: dict[str, Any] = {
            "blocks": blocks[depth],
            "num_groups": 32,
            "bottleneck_width": 128,
        }
        yield f"resnext{depth}_32x4d", _image_resnet(**resnext)
        yield f"preact_resnext{depth}_32x4d", _image_resnet(**resnext, block="preact")
    yield "preact_se_resnet50", _image_resnet(block="preact", se=True)
    yield "resnet50_glore", _image_resnet(block="preact", glore_location=(1, 3, 5))
    yield "resnet152_v1e", _image_resnet(blocks=blocks[152], stem="deep32", stride_last=True)
    yield (
        "resnet152_v1f",
        _image_resnet(blocks=blocks[152], stem="deep8", stem_pool="bottleneck", stride_last=True),
    )
    for depth in (20, 44, 56):
        cifar: dict[str, Any] = {
            "blocks": ((depth - 2) // 6,) * 3,
            "basic": True,
            "width_per_group": 16,
            "stages": (2, 3),
        }
        yield (
            f"resnet{depth}_cifar",
            _image_resnet(CIFAR, **cifar, stem="3x3", stem_pool="none", num_classes=10),
        )
    yield "densenet121", Family(DenseNet, DenseNetOptions, IMAGE)
    yield "mobilenet_v1", Family(MobileNetV1, MobileNetOptions, IMAGE)
    yield "mobilenet_v2", Family(MobileNetV2, MobileNetOptions, IMAGE)


MODELS: dict[str, Family] = dict([*_video_models(), *_image_models()])


def create_model(name: str, *, memory_saving: bool = False, **options: Any) -> nn.Module:
    """Build a network: `create_model("i3d_r50", alpha=0.1)`, `create_model("resnet50", alpha=0.5)`.

    name: one of `octvideo.list_models()`.
        Video: c2d, i3d, slow, slowfast with _r26, _r50 or _r101; c2d_nln, i3d_nln with five non-local blocks
        (Wang et al. 2018); c2d_nopool, which keeps all frames up to the head.
        Images: resnet18, 26, 34, 50, 101, 152 and resnext50_32x4d, 101 (post-activation); preact_resnet26, 50, 101,
        152, 200, preact_resnext50_32x4d, 101, preact_se_resnet50 (Tables 2, 4); resnet152_v1e, v1f (Table 5);
        resnet50_glore; resnet20_cifar, 44, 56; densenet121; mobilenet_v1, v2 (Table 3).
    options: the fields of `VideoOptions`, or for images of `ImageResNetOptions` and its like: stem="deep8" and
        stem_pool="conv" or "bottleneck" are the stems of Table 4's ++ rows, stem="3x3" and stem_pool="none" the
        CIFAR form of any ResNet. All have
        alpha: share of low-frequency channels, in [0, 1); 0 (default) is the vanilla network.
        num_classes: 400 for video, 1000 for images, 10 for CIFAR by default.
    memory_saving: octave convolutions pool again in the backward pass instead of keeping what they pooled; the
        gradients are the same, bit for bit.

    A video network takes float (N, 3, T, H, W), SlowFast the frames of its fast pathway; an image network (N, 3, H, W).
    Both return logits (N, num_classes). `model.config` holds plain values with which `create_model(**model.config)`
    builds it again.

    Raises ConfigError (a ValueError) for an unknown name or option and for values out of range.
    """
    family = _family(name)
    known = [f.name for f in fields(family.options)]
    for option in options:
        if option not in known:
            raise ConfigError(f"{name} has no option {option!r}{_suggest(option, known)}")
    chosen = family.options(**{**family.fixed, **options})
    model = stem_by_space_to_depth(compute_in_2d(channels_last(family.builder(chosen))))
    save_memory(model, memory_saving)
    model.config = {"name": name, **_plain(asdict(chosen))}  # type: ignore[assignment]
    return model


def input_shape(name: str) -> tuple[int, ...]:
    """(3, T, H, W) or (3, H, W): what the model `name` takes in the paper. Raises ConfigError for no such model."""
    return _family(name).input_shape


def _family(name: str) -> Family:
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}{_suggest(name, MODELS)}")
    return MODELS[name]


def _plain(value: Any) -> Any:
    """Tuples and sets as lists, so that a config survives YAML, JSON and a weights-only checkpoint."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return (
        [_plain(v) for v in value] if isinstance(value, list | tuple | set | frozenset) else value
    )


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
