"""Small networks in the manner of common image and video networks; written here, for these
tests."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two 3x3 and an identity or a 1x1, with in-place operations."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """groups: of all 3x3 convolutions, as in a RegNet."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Residual(32, 32, 1, groups), Residual(32, 32, 1, groups))
        self.layer2 = nn.Sequential(Residual(32, 64, 2, groups), Residual(64, 64, 1, groups))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VGG(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding="same"), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(256, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


class DropPath(nn.Module):
    """Drops whole samples of a branch in training."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.8)
        return x * keep / 0.8


class MBConv(nn.Module):
    """Expand, depthwise, squeeze-excite, project: an EfficientNet's block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        mid = 4 * inputs
        self.expand = nn.Sequential(
            nn.Conv2d(inputs, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.SiLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(mid, mid, 5, stride, 2, groups=mid, bias=False),
            nn.BatchNorm2d(mid),
            nn.SiLU(),
        )
        self.fc1, self.fc2 = nn.Conv2d(mid, 8, 1), nn.Conv2d(8, mid, 1)
        self.project = nn.Sequential(
            nn.Conv2d(mid, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.drop_path = DropPath()
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.depthwise(self.expand(x))
        out = torch.sigmoid(self.fc2(F.silu(self.fc1(F.adaptive_avg_pool2d(out, 1))))) * out
        out = self.project(out)
        return self.drop_path(out) + x if self.shortcut else out


class EfficientNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU()
        )
        self.blocks = nn.Sequential(MBConv(16, 32, 1), MBConv(32, 32, 1), MBConv(32, 48, 2))
        self.head = nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean([2, 3]))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then layer norm and linear layers over the channels behind, scaled by
    gamma."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.fc1, self.fc2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(0.1 * torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        out = self.fc2(F.gelu(self.fc1(out))).permute(0, 3, 1, 2)
        return x + self.gamma * out


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, 4)
        self.down = nn.Sequential(nn.GroupNorm(1, 32), nn.Conv2d(32, 64, 2, 2))
        self.blocks = nn.Sequential(ConvNeXtBlock(64), ConvNeXtBlock(64))
        self.mix = nn.Conv2d(64, 64, 1)
        self.block = ConvNeXtBlock(64)
        self.last = nn.Conv2d(64, 64, 1)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.down(self.stem(x)))
        return self.head(self.last(self.block(self.mix(x))).mean((-2, -1)))


class DoubleConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, 1, 1), nn.GroupNorm(4, outputs), nn.LeakyReLU(0.1),
            nn.Conv2d(outputs, outputs, 3, 1, 1), nn.GroupNorm(4, outputs), nn.LeakyReLU(0.1),
        )  # fmt: skip


class UNet(nn.Module):
    """Skip connections by concatenation; `transposed` upsamples by transposed convolutions."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        self.enter, self.down1, self.down2 = (
            DoubleConv(3, 32),
            DoubleConv(32, 64),
            DoubleConv(64, 64),
        )
        self.pool = nn.MaxPool2d(2)
        if transposed:
            self.up2, self.up1 = nn.ConvTranspose2d(64, 64, 2, 2), nn.ConvTranspose2d(64, 64, 2, 2)
        else:
            self.up2 = self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.merge2, self.merge1 = DoubleConv(128, 64), DoubleConv(96, 32)
        self.out = nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.enter(x)
        two = self.down1(self.pool(one))
        three = self.down2(self.pool(two))
        two = self.merge2(torch.cat([two, self.up2(three)], dim=1))
        return self.out(self.merge1(torch.cat([one, self.up1(two)], dim=1)))


class DenseBlocks(nn.Module):
    """Each layer's output is concatenated behind its input; then an average pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 1, 1)
        self.layers = nn.ModuleList(nn.Conv2d(32 + 32 * i, 32, 3, 1, 1) for i in range(3))
        self.transition = nn.Conv2d(128, 64, 1)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Conv2d(64, 32, 3, 1, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat((x, torch.relu(layer(x))), 1)
        x = self.last(self.pool(self.transition(x)))
        return self.head(x.amax(dim=(2, 3)))


class Separable3d(nn.Module):
    """1x3x3 and 3x1x1 by turns, a slice of time, a dilation and a sum of branches: an R(2+1)D in
    small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 32, (1, 7, 7), (1, 2, 2), (0, 3, 3))
        self.space = nn.Conv3d(32, 64, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.time = nn.Conv3d(64, 64, (3, 1, 1), (2, 1, 1), (1, 0, 0))
        self.wide = nn.Conv3d(64, 64, (1, 3, 3), 1, (0, 2, 2), dilation=(1, 2, 2))
        self.bn = nn.BatchNorm3d(64, momentum=None)
        self.pool = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
        self.act = nn.PReLU(64)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.time(torch.relu(self.space(torch.relu(self.stem(x)))))
        x = self.act(self.bn(self.wide(x) + x))
        x = self.pool(x[:, :, : x.shape[2] // 2 * 2])
        return self.head(F.adaptive_avg_pool3d(x, 1).flatten(1))


IMAGE, CLIP = (2, 3, 32, 32), (2, 3, 8, 32, 32)
STAND_INS = {
    "resnet": (ResNet, IMAGE),
    "regnet": (lambda: ResNet(groups=8), IMAGE),
    "vgg": (VGG, IMAGE),
    "efficientnet": (EfficientNet, IMAGE),
    "convnext": (ConvNeXt, IMAGE),
    "unet": (UNet, IMAGE),
    "unet_transposed": (lambda: UNet(transposed=True), IMAGE),
    "dense": (DenseBlocks, IMAGE),
    "separable": (Separable3d, CLIP),
}
