"""SlowFast (Feichtenhofer et al. 2019), vanilla and with an octave slow pathway.

clip (N, 3, T, H, W) --+-- every 8th frame -- slow: stem -+- res2 -+- res3 -+- res4 -+- res5 --+--
head
                       |                                  ^        ^        ^        ^         |
                       +-- all frames ------- fast: stem -+- res2 -+- res3 -+- res4 -+- res5 --+
                                                 laterals: 5x1x1, temporal stride 8
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctBatchNorm3d, OctConv3d, OctTensor, merge
from octvideo.models.blocks import BlockStyle, concatenate, init_weights, make_stage
from octvideo.models.network import FAST_CLIP, Family, Head, Network, spread_frames
from octvideo.models.option_rules import check_choices
from octvideo.models.video_options import BLOCKS, OctavePlan, VideoOptions
from octvideo.models.video_resnet import (
    FAST,
    SLOW,
    Location,
    ResNetSpec,
    Stem,
    make_nonlocal,
    stage_channels,
    temporal_kernels,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowFastOptions(VideoOptions):
    """The keyword arguments of `create_model` for SlowFast, beside those of `VideoOptions` (the
    slow pathway's).

    num_block_temp_kernel_fast: of the fast pathway, by default as many. nonlocal_location_fast: of
    the fast pathway.
    speed_ratio: frames of the fast pathway per frame of the slow one, PySlowFast's alpha.
    beta_inv: width of the slow pathway per width of the fast one.
    fusion_kernel_size, fusion_conv_channel_ratio: of the laterals, in time and in channels.
    depth_fast: of the fast pathway, by default that of the name.
    fusion_norm: laterals end with BN and ReLU; mmaction2's are bare convolutions.
    slow_frames: frames of the slow pathway: "spread" evenly from the first to the last one
    (PySlowFast), or "every"
        `speed_ratio`th from the first one on (mmaction2).
    """

    num_block_temp_kernel_fast: Sequence[int] | None = None
    nonlocal_location_fast: Sequence[Collection[int]] | None = None
    speed_ratio: int = 8
    beta_inv: int = 8
    fusion_kernel_size: int = 5
    fusion_conv_channel_ratio: int = 2
    depth_fast: int | None = None
    fusion_norm: bool = True
    slow_frames: Literal["spread", "every"] = "spread"

    def __post_init__(self) -> None:
        VideoOptions.__post_init__(self)
        _check(self)


class Lateral(nn.Module):
    """Fast to slow: convolution kt x 1 x 1 with the temporal stride `speed_ratio`, BN, ReLU,
    concatenated per group.

    Without `norm` the convolution is all. Frames of the fast pathway beyond a multiple of the
    stride have no slow frame to join, and are left out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Channels,
        kernel_t: int,
        speed_ratio: int,
        norm: bool = True,
    ) -> None:
        super().__init__()
        kernel, stride, padding = (kernel_t, 1, 1), (speed_ratio, 1, 1), (kernel_t // 2, 0, 0)
        self.speed_ratio = speed_ratio
        self.conv = OctConv3d(
            Channels(in_channels), out_channels, kernel, stride, padding, bias=False
        )
        self.bn = OctBatchNorm3d(out_channels) if norm else None

    @property
    def norm_follows(self) -> dict[str, str]:
        """None without a norm."""
        return {"bn": "conv"} if self.bn is not None else {}

    def forward(self, slow: OctTensor, fast: OctTensor) -> OctTensor:
        frames = slow.high.shape[2] * self.speed_ratio
        seen = fast.map(lambda t: t[:, :, :frames])
        out = self.conv(seen)
        if self.bn is not None:
            out = self.bn(out).map(F.relu)
        return concatenate(slow, out)


class Pathway(nn.Module):
    """Stem and four stages; `lateral[i]` channels join the input of res2 + i.

    num_block_temp_kernel, nonlocal_location: the pathway's own, as `VideoOptions` describes them.
    """

    def __init__(
        self,
        spec: ResNetSpec,
        depth: int,
        width: int,
        octave: OctavePlan,
        style: BlockStyle,
        options: VideoOptions,
        *,
        lateral: Sequence[Channels],
        num_block_temp_kernel: Sequence[int],
        nonlocal_location: Location,
    ) -> None:
        super().__init__()
        kernels_t = temporal_kernels(spec, BLOCKS[depth], num_block_temp_kernel)
        self.laterals = tuple(lateral)
        self.stem = Stem(
            options.in_channels, width, spec.stem_temporal, options.stem_pool_padding, style.bn_eps
        )
        c = Channels(width)
        for i, number in enumerate((2, 3, 4, 5)):
            joined = Channels(c.high + lateral[i].high, c.low + lateral[i].low)
            mid, c = stage_channels(octave, width, options.num_groups, number)
            stage = make_stage(
                style,
                joined,
                mid,
                c,
                kernels_t=kernels_t[i],
                stride=1 if number == 2 else 2,
                after=make_nonlocal(c, number, len(kernels_t[i]), options, nonlocal_location),
            )
            self.add_module(f"res{number}", stage)
        self.out_channels = c.total

    def stage(self, number: int) -> nn.Module:
        return self.get_submodule(f"res{number}")


class SlowFast(Network):
    """Two pathways over one clip; `SlowFastOptions` says what the options are.

    T is the number of frames of the *fast* pathway; the slow one takes T // speed_ratio of them, by
    default evenly spread from the first to the last (PySlowFast's rule). Octave convolutions are in
    the slow pathway and in the laterals that enter it behind an octave stage.
    """

    takes = "clips"

    def __init__(self, depth: int, options: SlowFastOptions) -> None:
        super().__init__(
            options.in_channels, min_frames=options.speed_ratio, min_size=options.min_size
        )
        self.speed_ratio, self.slow_frames = options.speed_ratio, options.slow_frames
        octave, style = options.octave((2, 3, 4), "round16_min16"), options.style
        plain = OctavePlan(0.0, octave.stages, octave.width_rule)
        fast_style = BlockStyle(stride_1x1=style.stride_1x1, groups=style.groups)
        width, fast_width = options.width_per_group, options.width_per_group // options.beta_inv
        # What the fast pathway offers before res2..res5: the output of its stem, then of its res2,
        # res3, res4.
        fast = [fast_width, *(4 * fast_width * 2**i for i in range(3))]
        lateral = [
            octave.split(c * options.fusion_conv_channel_ratio, i + 1) for i, c in enumerate(fast)
        ]
        kernels = options.num_block_temp_kernel
        self.slow = Pathway(
            SLOW,
            depth,
            width,
            octave,
            style,
            options,
            lateral=lateral,
            num_block_temp_kernel=kernels,
            nonlocal_location=options.nonlocal_location,
        )
        self.fast = Pathway(
            FAST,
            options.depth_fast or depth,
            fast_width,
            plain,
            fast_style,
            options,
            lateral=[Channels(0)] * 4,
            num_block_temp_kernel=options.num_block_temp_kernel_fast or kernels,
            nonlocal_location=options.nonlocal_location_fast,
        )
        self.laterals = nn.ModuleList(
            Lateral(c, out, options.fusion_kernel_size, self.speed_ratio, options.fusion_norm)
            for c, out in zip(fast, lateral, strict=True)
        )
        features = self.slow.out_channels + self.fast.out_channels
        self.head = Head(features, options.num_classes, options.dropout_rate, options.window)
        init_weights(
            self, zero_init_final_bn=options.zero_init_final_bn, fc_init_std=options.fc_init_std
        )

    def features(self, x: Tensor) -> list[Tensor]:
        slow, fast = OctTensor(self.slow.stem(self._slow_frames(x))), OctTensor(self.fast.stem(x))
        for number, lateral in enumerate(self.laterals, start=2):
            slow = lateral(slow, fast)
            slow, fast = self.slow.stage(number)(slow), self.fast.stage(number)(fast)
        return [merge(slow), merge(fast)]

    def _slow_frames(self, x: Tensor) -> Tensor:
        if self.slow_frames == "spread":
            return spread_frames(x, self.speed_ratio)
        frames = x.shape[2] // self.speed_ratio * self.speed_ratio
        return x[:, :, : frames : self.speed_ratio]


def _check(options: SlowFastOptions) -> None:
    if options.width_per_group % options.beta_inv:
        raise ConfigError(
            f"beta_inv is {options.beta_inv}; it divides the slow width, here"
            f" {options.width_per_group}"
        )
    if options.depth_fast not in (None, *BLOCKS):
        raise ConfigError(
            f"depth_fast is {options.depth_fast!r}; it is one of {', '.join(map(str, BLOCKS))}"
        )
    check_choices(options, {"slow_frames": ("spread", "every")})
    if tuple(options.stem_strides_t) != (1, 1):
        raise ConfigError(
            f"stem_strides_t is {options.stem_strides_t}; SlowFast has no strides in time: leave"
            " it out"
        )
    if options.fusion_kernel_size % 2 == 0:
        raise ConfigError(
            f"fusion_kernel_size is {options.fusion_kernel_size}; it is odd, to be centered on a"
            " frame"
        )
    if options.block == "preact":
        raise ConfigError(
            "SlowFast has post-activation blocks only; block='preact' is for C2D and I3D"
        )


MODELS = {
    f"slowfast_r{depth}": Family(partial(SlowFast, depth), SlowFastOptions, FAST_CLIP)
    for depth in BLOCKS
}
