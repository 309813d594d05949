"""C2D, I3D and Slow with a ResNet backbone: vanilla (alpha = 0), octave, with non-local blocks.

layer   kernel                    output of 3 x 8 x 224 x 224 (I3D-50)
stem    5x7x7 / 1,2,2               64 x 8 x 112 x 112
        max pool 1x3x3 / 1,2,2      64 x 8 x 56 x 56
res2    3 bottlenecks              256 x 8 x 56 x 56
pool2   2x1x1 / 2,1,1              256 x 4 x 56 x 56
res3-5  4, 6, 3 bottlenecks       2048 x 4 x 7 x 7
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, repeat
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctTensor, merge
from octvideo.layers.conv3d_as_2d import Conv3d, MaxPool3d
from octvideo.layers.initialize import he_normal_
from octvideo.layers.nonlocal_block import NonLocalCross, NonLocalHigh
from octvideo.models.blocks import init_weights, make_stage
from octvideo.models.network import CLIP, Family, Head, Network
from octvideo.models.video_options import BLOCKS, OctavePlan, VideoOptions


@dataclass(frozen=True, slots=True)
class ResNetSpec:
    """A family: its kernels in time.

    temporal: per stage, the pattern of kt of the first 1x1 in each block, repeated over the stage's
    blocks.
    pool2_temporal: frames that the pool after res2 takes together.
    """

    stem_temporal: int
    temporal: tuple[tuple[int, ...], ...]
    pool2_temporal: int = 1


C2D = ResNetSpec(stem_temporal=1, temporal=((1,), (1,), (1,), (1,)), pool2_temporal=2)
C2D_NOPOOL = ResNetSpec(stem_temporal=1, temporal=((1,), (1,), (1,), (1,)))
I3D = ResNetSpec(stem_temporal=5, temporal=((3,), (3, 1), (3, 1), (1, 3)), pool2_temporal=2)
I3D_HEAVY = ResNetSpec(stem_temporal=5, temporal=((3,), (3,), (3,), (3,)), pool2_temporal=2)
SLOW = ResNetSpec(stem_temporal=1, temporal=((1,), (1,), (3,), (3,)))
FAST = ResNetSpec(stem_temporal=5, temporal=((3,), (3,), (3,), (3,)))
Location = Sequence[Collection[int]] | None
NO_NONLOCAL: Sequence[Collection[int]] = ((), (), (), ())


class Stem(nn.Module):
    """Convolution kt x 7 x 7 / 1,2,2, BN, ReLU, max pool 1 x 3 x 3 / 1,2,2.

    `strides_t` are other strides in time, of the convolution and of the pool (mmaction2's I3D: 2
    and 2). `pool_padding` 0 is video-nonlocal-net's, and Table 6's C2D / I3D baselines; 1 is
    PySlowFast's and pytorchvideo's.
    """

    norm_follows: ClassVar = {"bn": "conv"}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_t: int,
        pool_padding: int,
        bn_eps: float,
        strides_t: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        self.conv = Conv3d(
            in_channels,
            out_channels,
            (kernel_t, 7, 7),
            (strides_t[0], 2, 2),
            (kernel_t // 2, 3, 3),
            bias=False,
        )
        self.bn = nn.BatchNorm3d(out_channels, eps=bn_eps)
        self.pool = MaxPool3d((1, 3, 3), (strides_t[1], 2, 2), (0, pool_padding, pool_padding))
        he_normal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(self.bn(self.conv(x))))


class VideoResNet(Network):
    """A one-pathway network; `VideoOptions` says what the options are."""

    takes = "clips"

    def __init__(self, spec: ResNetSpec, depth: int, options: VideoOptions) -> None:
        # The stem rounds up what its strides leave, the pool after res2 rounds down.
        min_frames = (spec.pool2_temporal - 1) * math.prod(options.stem_strides_t) + 1
        super().__init__(options.in_channels, min_frames=min_frames, min_size=options.min_size)
        octave, style = options.octave((2, 3, 4, 5), "round16"), options.style
        kernels_t = temporal_kernels(spec, BLOCKS[depth], options.num_block_temp_kernel)

        def stage(number: int, in_channels: Channels) -> tuple[nn.Sequential, Channels]:
            i = number - 2
            mid, out = stage_channels(octave, options.width_per_group, options.num_groups, number)
            after = make_nonlocal(
                out, number, len(kernels_t[i]), options, options.nonlocal_location
            )
            stride = 1 if number == 2 else 2
            return (
                make_stage(
                    style, in_channels, mid, out, kernels_t=kernels_t[i], stride=stride, after=after
                ),
                out,
            )

        c = Channels(options.width_per_group)
        self.stem = Stem(
            options.in_channels,
            c.high,
            spec.stem_temporal,
            options.stem_pool_padding,
            style.bn_eps,
            options.stem_strides_t,
        )
        self.res2, c = stage(2, c)
        self.pool2 = MaxPool3d((spec.pool2_temporal, 1, 1), (spec.pool2_temporal, 1, 1))
        self.res3, c = stage(3, c)
        self.res4, c = stage(4, c)
        self.res5, c = stage(5, c)
        self.tail = style.norm(c) if style.kind == "preact" else None
        self.head = Head(c.total, options.num_classes, options.dropout_rate, options.window)
        init_weights(
            self, zero_init_final_bn=options.zero_init_final_bn, fc_init_std=options.fc_init_std
        )

    def features(self, x: Tensor) -> list[Tensor]:
        out = self.res2(OctTensor(self.stem(x)))
        out = self.res3(out.map(self.pool2))
        out = self.res5(self.res4(out))
        if self.tail is not None:
            out = self.tail(out).map(F.relu)
        return [merge(out)]


def stage_channels(
    octave: OctavePlan, width: int, groups: int, number: int
) -> tuple[Channels, Channels]:
    """Inner and outer channels of res`number`: 64 and 256 in res2 of a ResNet, doubling from stage
    to stage."""
    scale = 2 ** (number - 2)
    return octave.split(width * groups * scale, number), octave.split(4 * width * scale, number)


def temporal_kernels(
    spec: ResNetSpec, blocks: Sequence[int], num_block_temp_kernel: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """kt of every block: the stage's pattern over its first `num_block_temp_kernel` blocks, 1 in
    the others."""
    kernels = []
    for pattern, count, limit in zip(spec.temporal, blocks, num_block_temp_kernel, strict=True):
        repeated = islice(cycle(pattern), min(limit, count))
        kernels.append((*repeated, *repeat(1, max(0, count - limit))))
    return tuple(kernels)


def make_nonlocal(
    channels: Channels, number: int, num_blocks: int, options: VideoOptions, where: Location
) -> dict[int, nn.Module]:
    """The non-local blocks of res`number` by the block that they follow; without a low group
    "cross" is "high"."""
    location = tuple((where or NO_NONLOCAL)[number - 2])
    if any(not 0 <= i < num_blocks for i in location):
        raise ConfigError(
            f"nonlocal_location names blocks {location} of res{number}; it has blocks"
            f" 0..{num_blocks - 1}"
        )
    block = NonLocalCross if options.nonlocal_on == "cross" and channels.low else NonLocalHigh
    arguments: dict[str, Any] = {
        "pool": options.nonlocal_pool,
        "instantiation": options.nonlocal_instantiation,
        "pool_after": options.nonlocal_pool_after,
    }
    return {i: block(channels, **arguments) for i in location}


# res3 blocks 1, 3 and res4 blocks 1, 3, 5: where the stage has them.
NONLOCAL_5 = {
    26: ((), (1,), (1,), ()),
    50: ((), (1, 3), (1, 3, 5), ()),
    101: ((), (1, 3), (1, 3, 5), ()),
}


def _rows(depth: int) -> dict[str, Family]:
    def family(spec: ResNetSpec, **fixed: Any) -> Family:
        return Family(partial(VideoResNet, spec, depth), VideoOptions, CLIP, fixed)

    return {
        f"c2d_r{depth}": family(C2D),
        f"c2d_nopool_r{depth}": family(C2D_NOPOOL),
        f"i3d_r{depth}": family(I3D),
        f"i3d_heavy_r{depth}": family(I3D_HEAVY),
        f"slow_r{depth}": family(SLOW),
        f"c2d_nln_r{depth}": family(C2D, nonlocal_location=NONLOCAL_5[depth]),
        f"i3d_nln_r{depth}": family(I3D, nonlocal_location=NONLOCAL_5[depth]),
    }


MODELS = {name: row for depth in BLOCKS for name, row in _rows(depth).items()}
