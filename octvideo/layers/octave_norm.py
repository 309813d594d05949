"""Batch normalization of the two groups of a feature."""

from typing import ClassVar, Self

from torch import Tensor, nn

from octvideo.layers.arguments import check_pair
from octvideo.layers.oct_tensor import Channels, OctTensor, as_channels, as_pair


class _OctBatchNorm(nn.Module):
    """Batch normalization of each group by itself; it has as many parameters as the undivided
    layer."""

    dims: ClassVar[int]
    norm: ClassVar[type[nn.BatchNorm2d] | type[nn.BatchNorm3d]]

    def __init__(
        self,
        channels: int | Channels,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.channels = as_channels(channels, None)
        self.high = self.norm(self.channels.high, eps, momentum, affine)
        self.low = (
            self.norm(self.channels.low, eps, momentum, affine) if self.channels.low else None
        )

    def forward(self, x: OctTensor | Tensor) -> OctTensor | Tensor:
        """A plain tensor is normalized as a pair without a low group, and stays plain."""
        pair = as_pair(x)
        check_pair(pair, self.channels, self.dims, type(self).__name__)
        high = self.high(pair.high)
        if isinstance(x, Tensor):
            return high
        return OctTensor(high, x.low if self.low is None else self.low(x.low))

    @property
    def groups(self) -> list[nn.Module]:
        """The normalizations that exist: high, or high and low."""
        return [self.high] if self.low is None else [self.high, self.low]

    def zero_init(self) -> Self:
        """Start a residual branch at zero: both gammas are set to 0 (Goyal et al. 2017)."""
        for group in self.groups:
            nn.init.zeros_(group.weight)  # type: ignore[arg-type]
        return self


class OctBatchNorm2d(_OctBatchNorm):
    __doc__ = _OctBatchNorm.__doc__
    dims = 2
    norm = nn.BatchNorm2d


class OctBatchNorm3d(_OctBatchNorm):
    __doc__ = _OctBatchNorm.__doc__
    dims = 3
    norm = nn.BatchNorm3d
