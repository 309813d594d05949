"""The networks that are compared: options of `create_model`, and modules of a created network that
are replaced.

The package has no flags for what is only an ablation. A replaced module keeps the kernels it was
made with.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from octvideo import create_model
from octvideo.layers import OctConv3d, OctTensor, compute_in_2d
from octvideo.layers.resize import up_to

Change = Callable[[nn.Module], nn.Module]


class StridedOctConv3d(OctConv3d):
    """Goes down by strided convolutions alone: h2l has twice the stride of h2h instead of a pool
    before it."""

    def __init__(self, *layer: Any, **options: Any) -> None:
        super().__init__(*layer, **options, downsample="stride")
        if self.h2l is not None:
            frames, *space = self.h2l.stride
            self.h2l.stride = (frames, *(2 * s for s in space))

    def _from_high(self, high: Tensor) -> Tensor:
        assert self.h2l is not None
        return self.h2l(high)


class MaxPooledOctConv3d(OctConv3d):
    """Goes down by max pools of the same windows, before the stride of a stage and from high to
    low."""

    def forward(self, x: OctTensor) -> OctTensor:
        stride = self.stride[-1]
        pooled = max_down(x.high, stride)
        high, low = self.h2h(pooled), None
        if self.h2l is not None:
            low = self.h2l(max_down(pooled, 2))
        if x.low is not None:
            if self.l2h is not None:
                from_low = self.l2h(x.low)
                high = high + (up_to(from_low, high) if stride == 1 else from_low)
            if self.l2l is not None:
                from_low = self.l2l(max_down(x.low, stride))
                low = from_low if low is None else low + from_low
        return OctTensor(high, low)


def max_down(x: Tensor, factor: int) -> Tensor:
    """The maximum of `factor` x `factor` pixels; a last odd row or column has its own."""
    return x if factor == 1 else F.max_pool3d(x, (1, factor, factor), ceil_mode=True)


def replaced_by(kind: type[OctConv3d]) -> Change:
    """Every octave convolution with a low group becomes a `kind` with the same kernels."""

    def change(model: nn.Module) -> nn.Module:
        for name, old in list(model.named_modules()):
            if isinstance(old, OctConv3d) and (old.in_channels.low or old.out_channels.low):
                new = kind(
                    old.in_channels,
                    old.out_channels,
                    old.kernel_size,
                    old.stride,
                    old.padding,
                    groups=old.groups,
                    bias=False,
                )
                new.load_state_dict(old.state_dict())
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, new)
        return compute_in_2d(model)

    return change


def without(*paths: str) -> Change:
    """No `paths` ("h2l", "l2h") where l2l is: the layers in which a pair begins or ends need what
    they have."""

    def change(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, OctConv3d) and module.l2l is not None:
                for path in paths:
                    setattr(module, path, None)
        return model

    return change


def unchanged(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Variant:
    """A network of the comparison.

    options: those of `create_model` beside the ones that all share. change: what is done to the
    network then.
    against: the variant from which it differs in one thing.
    """

    options: dict[str, Any] = field(default_factory=dict)
    change: Change = unchanged
    name: str = "i3d_r26"
    against: str = "octave"

    def build(self, **shared: Any) -> nn.Module:
        return self.change(create_model(self.name, **{**shared, **self.options}))


# What a variant does not say: alpha .5, where an effect of the octave is largest, and low =
# int(alpha * C).
VARIANTS = {
    "octave": Variant(),
    "without h2l": Variant(change=without("h2l")),
    "without l2h": Variant(change=without("l2h")),
    "without both": Variant(change=without("h2l", "l2h")),
    "strided convolution": Variant(change=replaced_by(StridedOctConv3d), against="strided stages"),
    "strided stages": Variant(
        {"downsample": "stride"}
    ),  # strided convolutions between stages, averages to the low group
    "max pool": Variant(change=replaced_by(MaxPooledOctConv3d)),
    "alpha 0": Variant({"alpha": 0.0}, against="strided stages"),
    "alpha 0, pooled": Variant({"alpha": 0.0, "downsample": "pool"}),
    "alpha .125": Variant({"alpha": 0.125}),
    "alpha .25": Variant({"alpha": 0.25}),
    "alpha .75": Variant({"alpha": 0.75}),
    "res2-res4": Variant({"stages": (2, 3, 4)}),
    "alpha .25, round16": Variant({"alpha": 0.25, "width_rule": "round16"}, against="alpha .25"),
    "non-local on high": Variant({"nonlocal_on": "high"}, name="i3d_nln_r26"),
    "non-local across": Variant(
        {"nonlocal_on": "cross"}, name="i3d_nln_r26", against="non-local on high"
    ),
}
SHARED = {"alpha": 0.5, "width_rule": "int"}


def build(variant: str, num_classes: int) -> nn.Module:
    """The small I3D-26 that a study trains."""
    return VARIANTS[variant].build(
        **SHARED, width_per_group=16, num_classes=num_classes, dropout_rate=0.0
    )
