"""Image networks with residual blocks: ResNet, ResNeXt, SE-ResNet, their pre-activation and CIFAR
forms.

layer   ResNet-50                 output of 3 x 224 x 224
stem    7x7 / 2                     64 x 112 x 112
        max pool 3x3 / 2            64 x 56 x 56
res2    3 blocks                   256 x 56 x 56         octave at alpha > 0:
res3    4 blocks                   512 x 28 x 28           the pair begins in res2's first block
res4    6 blocks                  1024 x 14 x 14
res5    3 blocks                  2048 x 7 x 7             and ends in res5's first block

Modules are named as in `VideoResNet`, so that a checkpoint inflates key by key.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctTensor, merge
from octvideo.layers.initialize import he_normal_
from octvideo.layers.space_to_depth import Conv2d
from octvideo.models.blocks import BlockStyle, Bottleneck, init_weights, make_stage
from octvideo.models.glore import GloRe
from octvideo.models.image_options import STEMS, ImageResNetOptions
from octvideo.models.network import CIFAR, IMAGE, Family, Head, Network
from octvideo.models.option_rules import scaled
from octvideo.models.video_options import BLOCKS


class ConvNormRelu(nn.Sequential):
    """Plain convolution without bias, BN, ReLU: what stands before the first octave layer."""

    norm_follows: ClassVar = {"bn": "conv"}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        bn_eps: float,
        relu: type[nn.ReLU | nn.ReLU6] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=bn_eps)
        self.relu = relu()
        he_normal_(self.conv.weight)


class BottleneckPool(nn.Module):
    """A 1-3-1 bottleneck / 2 in place of a max pool (Big-Little Net). C to C channels."""

    def __init__(self, channels: int, bn_eps: float) -> None:
        super().__init__()
        c, mid = Channels(channels), Channels(max(channels // 2, 1))
        self.block = Bottleneck(BlockStyle(dims=2, bn_eps=bn_eps), c, mid, c, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(OctTensor(x)).high


class Stem(nn.Module):
    """Plain convolutions, the last named `conv` and `bn`, earlier ones `before`; then the pool of
    `stem_pool`."""

    norm_follows: ClassVar = {"bn": "conv"}

    def __init__(self, options: ImageResNetOptions, bn_eps: float) -> None:
        super().__init__()
        scale = options.width_per_group / 64
        cause = f"width_per_group is {options.width_per_group}"
        layers = []
        c = options.in_channels
        for channels, kernel, stride in STEMS[options.stem]:
            width = scaled(channels, scale, cause)
            layers.append(ConvNormRelu(c, width, kernel, stride, bn_eps))
            c = width
        self.before = nn.Sequential(*layers[:-1])
        self.conv, self.bn = layers[-1].conv, layers[-1].bn
        self.pool = make_stem_pool(options.stem_pool, c, bn_eps)
        self.out_channels = c

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(self.bn(self.conv(self.before(x)))))


def make_stem_pool(kind: str, channels: int, bn_eps: float) -> nn.Module:
    """(N, C, H, W) to (N, C, H/2, W/2), or the identity for "none"."""
    if kind == "conv":
        return ConvNormRelu(channels, channels, 3, 2, bn_eps)
    if kind == "bottleneck":
        return BottleneckPool(channels, bn_eps)
    return nn.MaxPool2d(3, 2, 1) if kind == "max" else nn.Identity()


class ImageResNet(Network):
    """A residual network; `ImageResNetOptions` says what the options are."""

    takes = "images"

    def __init__(self, options: ImageResNetOptions) -> None:
        super().__init__(options.in_channels)
        style, octave = options.style, options.octave(options.stages)
        self.stem = Stem(options, style.bn_eps)
        c = Channels(self.stem.out_channels)
        self.stages = [f"res{number}" for number in range(2, 2 + len(options.blocks))]
        for number, count in enumerate(options.blocks, start=2):
            mid, out = (octave.split(width, number) for width in stage_widths(options, number))
            after = make_glore(out, options) if number == 4 else None
            stage = make_stage(
                style,
                c,
                mid,
                out,
                kernels_t=(1,) * count,
                stride=1 if number == 2 else 2,
                after=after,
                after_name="glore",
            )
            self.add_module(f"res{number}", stage)
            c = out
        self.tail = style.norm(c) if style.kind == "preact" else None
        self.head = Head(c.total, options.num_classes, options.dropout_rate)
        init_weights(
            self, zero_init_final_bn=options.zero_init_final_bn, fc_init_std=options.fc_init_std
        )

    def features(self, x: Tensor) -> list[Tensor]:
        out = OctTensor(self.stem(x))
        for stage in self.stages:
            out = self.get_submodule(stage)(out)
        if self.tail is not None:
            out = self.tail(out).map(F.relu)
        return [merge(out)]


def make_glore(channels: Channels, options: ImageResNetOptions) -> dict[int, nn.Module]:
    """The GloRe units of res4 by the block that they follow."""
    return {
        i: GloRe(channels, options.width_per_group * 8, options.style.bn_eps)
        for i in options.glore_location
    }


def stage_widths(options: ImageResNetOptions, number: int) -> tuple[int, int]:
    """Inner and outer channels of res`number`, both groups: 64 and 256 in res2 of a ResNet-50, then
    doubling."""
    scale = 2 ** (number - 2)
    if options.basic:
        return options.width_per_group * scale, options.width_per_group * scale
    mid = options.bottleneck_width or options.width_per_group * options.num_groups
    return mid * scale, 4 * options.width_per_group * scale


ALL_BLOCKS = {**BLOCKS, 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}


def _row(depth: int = 0, input_shape: tuple[int, ...] = IMAGE, **fixed: Any) -> Family:
    """depth: that of the name; without it the row has the blocks of the options, which are those of
    depth 50."""
    if depth in ALL_BLOCKS:
        fixed["blocks"] = ALL_BLOCKS[depth]
    return Family(ImageResNet, ImageResNetOptions, input_shape, fixed)


def _rows() -> Iterator[tuple[str, Family]]:
    for depth in (18, 34):
        yield f"resnet{depth}", _row(depth, basic=True)
    for depth in (26, 50, 101, 152):
        yield f"resnet{depth}", _row(depth)
    for depth in (26, 50, 101, 152, 200):
        yield f"preact_resnet{depth}", _row(depth, block="preact")
    for depth in (50, 101):
        resnext: dict[str, Any] = {"num_groups": 32, "bottleneck_width": 128}
        yield f"resnext{depth}_32x4d", _row(depth, **resnext)
        yield f"preact_resnext{depth}_32x4d", _row(depth, **resnext, block="preact")
    yield "preact_se_resnet50", _row(block="preact", se=True)
    yield "resnet50_glore", _row(block="preact", glore_location=(1, 3, 5))
    yield "resnet152_v1e", _row(152, stem="deep32", stride_last=True)
    yield "resnet152_v1f", _row(152, stem="deep8", stem_pool="bottleneck", stride_last=True)
    small: dict[str, Any] = {"basic": True, "width_per_group": 16, "stages": (2, 3)}
    stem: dict[str, Any] = {"stem": "3x3", "stem_pool": "none", "num_classes": 10}
    for depth in (20, 44, 56):
        yield (
            f"resnet{depth}_cifar",
            _row(depth, CIFAR, blocks=((depth - 2) // 6,) * 3, **small, **stem),
        )


MODELS = dict(_rows())
