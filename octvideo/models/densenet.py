"""DenseNet (Huang et al. 2017), vanilla and octave.

layer         DenseNet-121                   output of 3 x 224 x 224
stem          7x7 / 2, max pool 3x3 / 2         64 x 56 x 56
dense2        6 layers, each + 32 channels     256 x 56 x 56
transition3   1x1, average pool 2x2            128 x 28 x 28
dense3-5      12, 24, 16 layers               1024 x 7 x 7

At alpha > 0 the pair runs from the stem (or from dense2's first layer) to transition5, whose
convolution ends it; with fewer stages it is merged behind the last one.
"""

from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctTensor, down, merge
from octvideo.models.blocks import BlockStyle, ConvNorm, NormConv, concatenate, init_weights
from octvideo.models.image_options import DenseNetOptions
from octvideo.models.network import IMAGE, Family, Head, Network
from octvideo.models.option_rules import scaled


class DenseLayer(nn.Module):
    """1x1 to four times `growth`, 3x3 to `growth`, concatenated behind the input in each group."""

    norm_follows: ClassVar = {"spatial.bn": "reduce.conv"}
    may_be_recomputed = True

    def __init__(
        self, style: BlockStyle, in_channels: Channels, mid_channels: Channels, growth: Channels
    ) -> None:
        super().__init__()
        self.reduce = NormConv(style, in_channels, mid_channels, (1, 1))
        self.spatial = NormConv(style, mid_channels, growth, (1, 3))

    def forward(self, x: OctTensor) -> OctTensor:
        return concatenate(x, self.spatial(self.reduce(x)))


class Transition(NormConv):
    """1x1 at the old size, then a 2x2 average pool of each group."""

    def forward(self, x: OctTensor) -> OctTensor:
        return super().forward(x).map(lambda group: down(group, 2))


class DenseNet(Network):
    """A DenseNet; `DenseNetOptions` says what the options are."""

    takes = "images"

    def __init__(self, options: DenseNetOptions) -> None:
        super().__init__(options.in_channels)
        style, octave = replace(options.style, kind="preact"), options.octave()
        growth, width = options.growth_rate, options.stem_width
        c = octave.split(width, 2) if options.octave_stem else Channels(width)
        stem_style = style if options.octave_stem else replace(style, downsample="stride")
        self.stem = ConvNorm(stem_style, Channels(options.in_channels), c, (1, 7), 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.Sequential()
        for number, count in enumerate(options.layers, start=2):
            if number > 2:
                width = scaled(width, 0.5, f"stem_width is {options.stem_width}")
                self.stages.add_module(
                    f"transition{number}", Transition(style, c, octave.split(width, number), (1, 1))
                )
                c = octave.split(width, number)
            mid, grown = octave.split(4 * growth, number), octave.split(growth, number)
            stage = nn.Sequential()
            for i in range(count):
                stage.add_module(f"layer{i}", DenseLayer(style, c, mid, grown))
                c = Channels(c.high + grown.high, c.low + grown.low)
            self.stages.add_module(f"dense{number}", stage)
            width += count * growth
        self.tail = style.norm(c)
        self.head = Head(c.total, options.num_classes, options.dropout_rate)
        init_weights(self, zero_init_final_bn=False, fc_init_std=options.fc_init_std)

    def features(self, x: Tensor) -> list[Tensor]:
        out = self.stem(OctTensor(x)).map(F.relu).map(self.pool)
        return [merge(self.tail(self.stages(out)).map(F.relu))]


MODELS = {"densenet121": Family(DenseNet, DenseNetOptions, IMAGE)}
