"""The options of image networks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from octvideo.errors import ConfigError
from octvideo.layers.octave import Downsample
from octvideo.models.blocks import BlockStyle
from octvideo.models.option_rules import check_choices, check_numbers
from octvideo.models.video_options import DOWNSAMPLE, OctavePlan

# Convolutions of the stem: (channels, kernel, stride) each, with BN and ReLU.
STEMS = {
    "7x7": ((64, 7, 2),),
    "3x3": ((64, 3, 1),),
    "deep32": ((32, 3, 2), (32, 3, 1), (64, 3, 1)),
    "deep8": ((8, 3, 1), (32, 3, 2), (64, 3, 1)),
}
STEM_POOLS = ("max", "conv", "bottleneck", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """The keyword arguments of `create_model` for all image networks. None stands for the family's
    default.

    alpha: share of low-frequency channels, in [0, 1); 0 is the vanilla network.
    num_classes: width of the classifier.
    width_rule: how widths are split: "int" (the official networks), "round16", "round16_min16".
    downsample: "stride" or "pool" before a strided convolution; by default "stride" at alpha 0,
    else "pool".
    bn_eps: 1e-5; pre-activation ResNets have the official 1e-4.
    dropout_rate, fc_init_std: of the classifier.
    """

    alpha: float = 0.0
    num_classes: int = 1000
    in_channels: int = 3
    width_rule: str = "int"
    downsample: Downsample | None = None
    bn_eps: float | None = None
    dropout_rate: float = 0.0
    fc_init_std: float = 0.01

    def __post_init__(self) -> None:
        check_numbers(self)
        check_choices(self, {"downsample": DOWNSAMPLE})

    def octave(self, stages: Sequence[int] = (2, 3, 4)) -> OctavePlan:
        """The octave stages among res2..res5: by default all but the last ("a 3x3 on a 3.5x3.5 map
        makes no sense")."""
        return OctavePlan(self.alpha, tuple(stages), self.width_rule)

    @property
    def downsampling(self) -> Downsample:
        return self.downsample or ("pool" if self.alpha else "stride")

    @property
    def style(self) -> BlockStyle:
        return BlockStyle(dims=2, downsample=self.downsampling, bn_eps=self.bn_eps or 1e-5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResNetOptions(ImageOptions):
    """The keyword arguments of `create_model` for residual image networks, beside those of
    `ImageOptions`.

    blocks: blocks of each stage, from res2 on.
    basic: blocks of two 3x3 instead of bottlenecks, without num_groups, bottleneck_width,
    stride_1x1 and stride_last.
    block: "post" or "preact".
    stages: which stages are octave.
    width_per_group: 64 is the ResNet; 16 or 32 a small one; the widths of the stem scale along.
    num_groups, bottleneck_width: groups of the 3x3 and their width in res2 (32 and 128 in a ResNeXt
    32x4d).
    stem: "7x7"; "3x3" (for CIFAR, stride 1); "deep32", "deep8" (three 3x3 beginning with 32 or 8
    channels).
    stem_pool: "max"; "conv" (3x3 / 2), "bottleneck" (1-3-1 / 2) in its place; or "none".
    stride_1x1, stride_last: the stride of a stage at the first or the last 1x1 instead of the 3x3.
    se: squeeze-excite.
    glore_location: blocks of res4 (from 0) that a GloRe unit follows.
    zero_init_final_bn: residual branches start at zero (post-activation).
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    basic: bool = False
    block: Literal["post", "preact"] = "post"
    stages: Sequence[int] = (2, 3, 4)
    width_per_group: int = 64
    num_groups: int = 1
    bottleneck_width: int | None = None
    stem: str = "7x7"
    stem_pool: str = "max"
    stride_1x1: bool = False
    stride_last: bool = False
    se: bool = False
    glore_location: Collection[int] = ()
    zero_init_final_bn: bool = True

    def __post_init__(self) -> None:
        ImageOptions.__post_init__(self)
        choices = {"block": ("post", "preact"), "stem": tuple(STEMS), "stem_pool": STEM_POOLS}
        check_choices(self, choices)
        if self.stride_1x1 and self.stride_last:
            raise ConfigError(
                "stride_1x1 and stride_last are both set; a block has its stride in one place"
            )
        if self.basic:
            _check_basic(self)
        count = self.blocks[2] if len(self.blocks) > 2 else 0
        for block in self.glore_location:
            if block >= count:
                has = f"it has blocks 0..{count - 1}" if count else "there is no res4: leave it out"
                raise ConfigError(f"glore_location names block {block} of res4; {has}")

    @property
    def style(self) -> BlockStyle:
        return BlockStyle(
            dims=2,
            kind=self.block,
            groups=self.num_groups,
            downsample=self.downsampling,
            stride_1x1=self.stride_1x1,
            stride_last=self.stride_last,
            basic=self.basic,
            se=self.se,
            bn_eps=self.bn_eps or (1e-4 if self.block == "preact" else 1e-5),
        )


def _check_basic(options: ImageResNetOptions) -> None:
    """Raise ConfigError for an option that only bottlenecks have."""
    plain = {"num_groups": 1, "bottleneck_width": None, "stride_1x1": False, "stride_last": False}
    for name, default in plain.items():
        if (found := getattr(options, name)) != default:
            raise ConfigError(
                f"{name} is {found!r}; it is an option of bottlenecks, and blocks of two 3x3"
                " (basic) have none: leave it out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseNetOptions(ImageOptions):
    """The keyword arguments of `create_model` for DenseNets, beside those of `ImageOptions`.

    layers: dense layers of each stage; growth_rate: channels that each adds.
    octave_stem: the first convolution begins the pair, as in the official gluon network; the
    official symbol network
        has a plain stem (and bn_eps 1e-4).
    """

    layers: Sequence[int] = (6, 12, 24, 16)
    growth_rate: int = 32
    stem_width: int = 64
    octave_stem: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetOptions(ImageOptions):
    """The keyword arguments of `create_model` for MobileNets, beside those of `ImageOptions`.

    width: multiplies all channels but the classifier's.
    """

    width: float = 1.0
