"""MobileNet v1 (Howard et al. 2017) and v2 (Sandler et al. 2018), vanilla and octave.

v1: the pair begins in block 1's pointwise convolution and ends in block 11's.
v2: the residual path stays plain; inside blocks 1-13 the expanded width is split.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctTensor
from octvideo.models.blocks import BlockStyle, ConvNorm, init_weights
from octvideo.models.image_options import MobileNetOptions
from octvideo.models.image_resnet import ConvNormRelu
from octvideo.models.network import IMAGE, Family, Head, Network
from octvideo.models.option_rules import scaled

# Output channels and stride of each block.
BLOCKS_V1 = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
BLOCKS_V2 = (
    *((16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1)),
)
LAST_OCTAVE_V1, LAST_OCTAVE_V2 = 10, 13  # whose output, and whose expanded width, is split


class SeparableBlock(nn.Module):
    """Depthwise 3x3 with the stride, pointwise 1x1; each followed by BN and ReLU."""

    may_be_recomputed = True

    def __init__(
        self, style: BlockStyle, in_channels: Channels, out_channels: Channels, stride: int
    ) -> None:
        super().__init__()
        self.depthwise = ConvNorm(
            style, in_channels, in_channels, (1, 3), stride, in_channels.total
        )
        self.pointwise = ConvNorm(style, in_channels, out_channels, (1, 1))

    def forward(self, x: OctTensor) -> OctTensor:
        out = self.depthwise(x).map(F.relu)
        return self.pointwise(out).map(F.relu)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3 with the stride, project 1x1, a shortcut where the shape stays."""

    may_be_recomputed = True

    def __init__(
        self,
        style: BlockStyle,
        in_channels: int,
        mid_channels: Channels,
        out_channels: int,
        stride: int,
    ):
        super().__init__()
        self.expand = ConvNorm(style, Channels(in_channels), mid_channels, (1, 1))
        self.depthwise = ConvNorm(
            style, mid_channels, mid_channels, (1, 3), stride, mid_channels.total
        )
        self.project = ConvNorm(style, mid_channels, Channels(out_channels), (1, 1))
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: OctTensor) -> OctTensor:
        out = self.expand(x).map(F.relu6)
        out = self.depthwise(out).map(F.relu6)
        out = self.project(out)
        return x + out if self.has_shortcut else out


class MobileNetV1(Network):
    """MobileNet v1; `MobileNetOptions` says what the options are."""

    takes = "images"

    def __init__(self, options: MobileNetOptions) -> None:
        super().__init__(options.in_channels)
        style, octave = options.style, options.octave()
        c = Channels(_scaled(32, options))
        self.stem = ConvNormRelu(options.in_channels, c.high, 3, 2, style.bn_eps)
        self.blocks = nn.Sequential()
        for number, (width, stride) in enumerate(BLOCKS_V1, start=1):
            out = octave.split(_scaled(width, options), 2 if number <= LAST_OCTAVE_V1 else 5)
            self.blocks.add_module(f"block{number}", SeparableBlock(style, c, out, stride))
            c = out
        self.head = Head(c.total, options.num_classes, options.dropout_rate)
        init_weights(self, zero_init_final_bn=False, fc_init_std=options.fc_init_std)

    def features(self, x: Tensor) -> list[Tensor]:
        return [self.blocks(OctTensor(self.stem(x))).high]


class MobileNetV2(Network):
    """MobileNet v2; `MobileNetOptions` says what the options are. The block of expansion 1 keeps
    its 1x1."""

    takes = "images"

    def __init__(self, options: MobileNetOptions) -> None:
        super().__init__(options.in_channels)
        style, octave = options.style, options.octave()
        c, last = _scaled(32, options), int(1280 * max(options.width, 1.0))
        self.stem = ConvNormRelu(options.in_channels, c, 3, 2, style.bn_eps, nn.ReLU6)
        self.blocks = nn.Sequential()
        for number, (width, stride) in enumerate(BLOCKS_V2, start=1):
            mid = octave.split(c * (1 if number == 1 else 6), 2 if number <= LAST_OCTAVE_V2 else 5)
            out = _scaled(width, options)
            self.blocks.add_module(f"block{number}", InvertedResidual(style, c, mid, out, stride))
            c = out
        self.tail = ConvNormRelu(c, last, 1, 1, style.bn_eps, nn.ReLU6)
        self.head = Head(last, options.num_classes, options.dropout_rate)
        init_weights(self, zero_init_final_bn=False, fc_init_std=options.fc_init_std)

    def features(self, x: Tensor) -> list[Tensor]:
        return [self.tail(self.blocks(OctTensor(self.stem(x))).high)]


def _scaled(channels: int, options: MobileNetOptions) -> int:
    return scaled(channels, options.width, f"width is {options.width}")


MODELS = {
    "mobilenet_v1": Family(MobileNetV1, MobileNetOptions, IMAGE),
    "mobilenet_v2": Family(MobileNetV2, MobileNetOptions, IMAGE),
}
