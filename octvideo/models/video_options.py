"""The options of video networks, and the octave stages and widths that follow from them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from octvideo.errors import ConfigError
from octvideo.layers import WIDTH_RULES, Channels, check_alpha
from octvideo.layers.nonlocal_block import Instantiation
from octvideo.layers.octave import Downsample
from octvideo.models.blocks import BlockStyle
from octvideo.models.option_rules import check_choices, check_numbers

DOWNSAMPLE = (None, "stride", "pool")
BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@dataclass(frozen=True, slots=True)
class OctavePlan:
    """The octave stages, and the widths of their groups."""

    alpha: float
    stages: tuple[int, ...]
    width_rule: str

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.width_rule not in WIDTH_RULES:
            raise ConfigError(
                f"width_rule is {self.width_rule!r}; it is one of {', '.join(WIDTH_RULES)}"
            )
        expected = (
            tuple(range(self.stages[0], self.stages[0] + len(self.stages))) if self.stages else None
        )
        if self.stages != expected or not set(self.stages) <= {2, 3, 4, 5}:
            raise ConfigError(
                f"octave stages are {self.stages}; a pair begins and ends once: give neighbors from"
                " 2 to 5"
            )

    def split(self, channels: int, stage: int) -> Channels:
        """The groups of a layer with `channels` in `stage`; undivided in a plain stage."""
        if stage not in self.stages:
            return Channels(channels)
        return WIDTH_RULES[self.width_rule](channels, self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOptions:
    """The keyword arguments of `create_model` for video networks. None stands for the family's
    default.

    alpha: share of low-frequency channels, in [0, 1); 0 is the vanilla network.
    num_classes: width of the classifier.
    stages, width_rule: which stages are octave ((2, 3, 4, 5); SlowFast (2, 3, 4)) and how widths
    are split: "int",
        "round16" (default), "round16_min16" (SlowFast's default).
    block: "post" or "preact" (C2D and I3D only; as the published 2D weights: stages 2-4, "int", BN
    eps 1e-4).
    downsample: "stride" or "pool" before a strided convolution; by default "stride" at alpha 0,
    else "pool".
    width_per_group, num_groups: 64 and 1 are the ResNet; 16 or 32 and 1 a small one.
    stride_1x1: the stride sits at the first 1x1 of a block (PySlowFast's RESNET.STRIDE_1X1).
    stem_pool_padding: 1, or 0 as in video-nonlocal-net.
    stem_strides_t: in time, of the stem's convolution and of its pool; mmaction2's I3D has (2, 2).
    Not for SlowFast.
    num_block_temp_kernel: per stage, in how many blocks the family's temporal kernels appear.
    nonlocal_location: per stage res2..res5, the blocks (from 0) that a non-local block follows.
    nonlocal_on: "high" (on the high group) or "cross" (high attends to low); nonlocal_pool,
    nonlocal_instantiation
        ("softmax", "dot_product"): as in PySlowFast. nonlocal_pool_after: the pool stands behind
        phi and g, not before them (mmaction2).
    dropout_rate, fc_init_std, zero_init_final_bn: as in the recipe of video-nonlocal-net.
    crop_size: training crop; its 32nd is the window of `window_scores`.
    """

    alpha: float = 0.0
    num_classes: int = 400
    in_channels: int = 3
    stages: Sequence[int] | None = None
    width_rule: str | None = None
    block: Literal["post", "preact"] = "post"
    downsample: Downsample | None = None
    width_per_group: int = 64
    num_groups: int = 1
    stride_1x1: bool = False
    stem_pool_padding: int = 1
    stem_strides_t: tuple[int, int] = (1, 1)
    num_block_temp_kernel: Sequence[int] = (3, 4, 6, 3)
    nonlocal_location: Sequence[Collection[int]] | None = None
    nonlocal_on: Literal["high", "cross"] = "high"
    nonlocal_pool: tuple[int, int, int] = (1, 2, 2)
    nonlocal_pool_after: bool = False
    nonlocal_instantiation: Instantiation = "softmax"
    dropout_rate: float = 0.5
    fc_init_std: float = 0.01
    zero_init_final_bn: bool = True
    crop_size: int = 224

    def __post_init__(self) -> None:
        check_numbers(self)
        choices: dict[str, Sequence[object]] = {
            "block": ("post", "preact"),
            "downsample": DOWNSAMPLE,
            "nonlocal_on": ("high", "cross"),
            "nonlocal_instantiation": ("softmax", "dot_product"),
            "stem_pool_padding": (0, 1),
        }
        check_choices(self, choices)
        if self.block == "preact" and self.stride_1x1:
            raise ConfigError("block='preact' has its stride at the 3x3; leave stride_1x1 out")

    def octave(self, stages: Sequence[int], width_rule: str) -> OctavePlan:
        """The plan; the arguments are what the family does where the options are silent."""
        if self.block == "preact":
            stages, width_rule = (2, 3, 4), "int"
        return OctavePlan(
            self.alpha,
            tuple(stages if self.stages is None else self.stages),
            self.width_rule or width_rule,
        )

    @property
    def window(self) -> int:
        """The window of the sliding head: the size of the final feature map of a training crop."""
        return max(self.crop_size // 32, 1)

    @property
    def min_size(self) -> int:
        """Height and width of the smallest input that an unpadded pool leaves something of."""
        return 1 if self.stem_pool_padding else 5

    @property
    def style(self) -> BlockStyle:
        preact = self.block == "preact"
        return BlockStyle(
            kind=self.block,
            groups=self.num_groups,
            downsample=self.downsample or ("pool" if self.alpha or preact else "stride"),
            stride_1x1=self.stride_1x1,
            bn_eps=1e-4 if preact else 1e-5,
        )
