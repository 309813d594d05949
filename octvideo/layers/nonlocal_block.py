"""Non-local blocks on an octave pair (Wang et al. 2018; attached as in Table 6)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import import_optional
from octvideo.layers.conv3d_as_2d import Conv3d
from octvideo.layers.initialize import normal_
from octvideo.layers.oct_tensor import Channels, OctTensor

Instantiation = Literal["softmax", "dot_product"]


class NonLocalHigh(nn.Module):
    """A non-local block on the high group; the low group passes unchanged. On a plain feature it is
    the usual block.

    Inner width C_high / 2, at least 1; theta, phi, g, out are 1x1x1 with bias; phi and g see a
    max-pooled input, or with `pool_after` are max-pooled themselves (mmaction2); the output BN
    starts at gamma 0, so that the block starts as the identity.
    """

    norm_follows: ClassVar = {"attend.norm": "attend.conv_out"}

    def __init__(
        self,
        channels: Channels,
        *,
        pool: tuple[int, int, int] = (1, 2, 2),
        instantiation: Instantiation = "softmax",
        pool_after: bool = False,
    ) -> None:
        super().__init__()
        # Importing pytorchvideo costs a second that only non-local networks should pay.
        nonlocal_net = import_optional(
            "pytorchvideo.layers.nonlocal_net", "non-local blocks", "pip install pytorchvideo"
        )

        inner = _inner_width(channels)
        self.attend = nonlocal_net.create_nonlocal(
            dim_in=channels.high,
            dim_inner=inner,
            pool_size=pool,
            instantiation=instantiation,
        )
        self.attend.pool = None if pool_after else PoolWhatIsThere(pool)
        if pool_after:
            self.attend.conv_phi, self.attend.conv_g = (
                PooledConv(channels.high, inner, pool) for _ in range(2)
            )
        _init(self, self.attend.norm)

    def forward(self, x: OctTensor) -> OctTensor:
        return OctTensor(self.attend(x.high), x.low)


class NonLocalCross(nn.Module):
    """The high group attends to the max-pooled low group: theta and out on X_H, phi and g on X_L.

    This interpretation of the paper reproduces the 28.9 GFLOPs printed for Oct-I3D + NL. Needs a
    low group.
    """

    norm_follows: ClassVar = {"norm": "out"}

    def __init__(
        self,
        channels: Channels,
        *,
        pool: tuple[int, int, int] = (1, 2, 2),
        instantiation: Instantiation = "softmax",
        pool_after: bool = False,
    ) -> None:
        super().__init__()
        inner = _inner_width(channels)
        self.instantiation = instantiation
        self.theta = nn.Conv3d(channels.high, inner, 1)
        self.phi, self.g = (
            PooledConv(channels.low, inner, pool)
            if pool_after
            else nn.Conv3d(channels.low, inner, 1)
            for _ in range(2)
        )
        self.out = nn.Conv3d(inner, channels.high, 1)
        self.norm = nn.BatchNorm3d(channels.high)
        self.pool = nn.Identity() if pool_after else PoolWhatIsThere(pool)
        _init(self, self.norm)

    def forward(self, x: OctTensor) -> OctTensor:
        assert x.low is not None
        pooled = self.pool(x.low)
        theta, phi, g = (
            part.flatten(2) for part in (self.theta(x.high), self.phi(pooled), self.g(pooled))
        )
        affinity = torch.einsum("nci,ncj->nij", theta, phi)
        if self.instantiation == "softmax":
            affinity = torch.softmax(affinity * theta.shape[1] ** -0.5, dim=-1)
        else:
            affinity = affinity / affinity.shape[-1]
        gathered = torch.einsum("nij,ncj->nci", affinity, g).reshape(
            theta.shape[:2] + x.high.shape[2:]
        )
        return OctTensor(x.high + self.norm(self.out(gathered)), x.low)


class PoolWhatIsThere(nn.MaxPool3d):
    """Max pool whose window shrinks with a map smaller than itself, so that one position stays."""

    def __init__(self, size: tuple[int, int, int]) -> None:
        super().__init__(size)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        window = tuple(min(k, n) for k, n in zip(self.size, x.shape[2:], strict=True))
        return F.max_pool3d(x, window)


class PooledConv(Conv3d):
    """A 1x1x1 convolution, followed by a max pool; its multiply-adds are those of its input's
    positions."""

    def __init__(self, in_channels: int, out_channels: int, pool: tuple[int, int, int]) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.pool = PoolWhatIsThere(pool)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(super().forward(x))
        return out


def _inner_width(channels: Channels) -> int:
    return max(channels.high // 2, 1)


def _init(block: nn.Module, norm: nn.BatchNorm3d) -> None:
    """Gaussian(.01) as in video-nonlocal-net; gamma 0, so that it starts as the identity."""
    for module in block.modules():
        if isinstance(module, nn.Conv3d):
            normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    nn.init.zeros_(norm.weight)
