"""Tables 1-6 of the paper: the printed values, and the counts of the networks here.

Only the printed values are constants. Where the paper leaves something open, `reading` states the
interpretation that is used here.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.complexity import Complexity, count, count_twice
from octvideo.errors import ConfigError
from octvideo.layers import OctConv2d, OctTensor, down
from octvideo.models import create_model

TABLES = (1, 2, 3, 4, 5, 6)
PARAMETERS, MACS_G, MACS_M = "parameters (M)", "MACs (G)", "MACs (M)"
QUANTITIES: dict[str, Callable[[Complexity], float]] = {
    PARAMETERS: lambda cost: cost.parameters / 1e6,
    MACS_G: lambda cost: cost.macs / 1e9,
    MACS_M: lambda cost: cost.macs / 1e6,
}


@dataclass(frozen=True, slots=True)
class Network:
    """A row: `create_model(model, **options)` on an input of `shape`, and what is printed."""

    table: int
    row: str
    model: str
    options: Mapping[str, Any]
    printed: Mapping[str, float]
    reading: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One printed value beside ours; `computed` is None if there is no such network, and `reading`
    says why."""

    table: int
    row: str
    quantity: str
    printed: float
    computed: float | None
    reading: str

    @property
    def error(self) -> float | None:
        """Relative to the printed value."""
        return None if self.computed is None else self.computed / self.printed - 1

    def plain(self) -> dict[str, Any]:
        """The row as plain values, for JSON."""
        return {name: getattr(self, name) for name in (*self.__slots__, "error")}


# --- Table 1: alpha -> multiply-adds and memory of one layer, in percent of the undivided one

TABLE_1 = {
    0.0: (100, 100),
    0.125: (82, 91),
    0.25: (67, 81),
    0.5: (44, 63),
    0.75: (30, 44),
    0.875: (26, 35),
    1.0: (25, 25),
}

# --- Table 2: alpha -> G multiply-adds of ResNet-50

TABLE_2 = {0.0: 4.1, 0.125: 3.6, 0.25: 3.1, 0.5: 2.4, 0.75: 1.9}
PREACT = "pre-activation, octave in res2-res4, int widths"

# --- Table 3: small networks; row, model, options, parameters, M multiply-adds

TABLE_3: tuple[tuple[str, str, dict[str, Any], float, float], ...] = (
    ("0.75 MobileNet v1, alpha .375", "mobilenet_v1", {"width": 0.75, "alpha": 0.375}, 2.6, 213),
    ("1.0 MobileNet v1, alpha .5", "mobilenet_v1", {"width": 1.0, "alpha": 0.5}, 4.2, 321),
    ("1.0 MobileNet v2, alpha .375", "mobilenet_v2", {"width": 1.0, "alpha": 0.375}, 3.5, 256),
    ("1.125 MobileNet v2, alpha .5", "mobilenet_v2", {"width": 1.125, "alpha": 0.5}, 4.2, 295),
)
POOLING_INCLUDED = "the printed count has pooling and ReLU in it"

# --- Table 4: medium networks; row, model, options, parameters, G multiply-adds, reading

RESNEXT = {"num_groups": 32, "bottleneck_width": 128}
CONV_POOL, DEEP_STEM, BALANCED = {"stem_pool": "conv"}, {"stem": "deep8"}, {"blocks": (4, 9, 18, 3)}
TABLE_4: tuple[tuple[str, str, dict[str, Any], float, float, str], ...] = (
    ("ResNet-26, alpha .25", "preact_resnet26", {"alpha": 0.25}, 16.0, 1.9, PREACT),
    ("ResNet-50, alpha .5", "preact_resnet50", {"alpha": 0.5}, 25.6, 2.4, PREACT),
    ("ResNeXt-50, alpha .25", "preact_resnext50_32x4d", {"alpha": 0.25}, 25.0, 3.2, PREACT),
    ("ResNeXt-50, alpha .5", "preact_resnext50_32x4d", {"alpha": 0.5}, 25.0, 2.4, PREACT),
    ("ResNeXt-101, alpha .25", "preact_resnext101_32x4d", {"alpha": 0.25}, 44.2, 5.7, PREACT),
    ("ResNeXt-101, alpha .5", "preact_resnext101_32x4d", {"alpha": 0.5}, 44.2, 4.0, PREACT),
    ("ResNet-50 + GloRe", "resnet50_glore", {}, 30.5, 5.2, "GloRe after res4 blocks 1, 3, 5; no graph products"),
    ("ResNet-50 + GloRe, alpha .5", "resnet50_glore", {"alpha": 0.5}, 30.5, 3.1, "the same, its 1x1 octave"),
    ("ResNet-50++, alpha .5", "resnet50", {"alpha": 0.5, **CONV_POOL}, 25.6, 2.5, "3x3 / 2 for the max pool"),
    (
        "ResNeXt-50++, alpha .5", "resnet50", {"alpha": 0.5, **RESNEXT, **DEEP_STEM, **CONV_POOL}, 25.1, 2.7,
        "stem of three 3x3, 3x3 / 2 for the max pool",
    ),
    (
        "ResNeXt-101++, alpha .5", "resnet101", {"alpha": 0.5, **RESNEXT, **DEEP_STEM, "stem_pool": "bottleneck"},
        44.2, 4.2, "stem of three 3x3, 1-3-1 / 2 for the max pool",
    ),
    (
        "ResNeXt-101++ balanced, alpha .5", "resnet101", {"alpha": 0.5, **RESNEXT, **CONV_POOL, **BALANCED},
        40.1, 4.2, "blocks 4-9-18-3, 3x3 / 2 for the max pool",
    ),
)  # fmt: skip

# --- Table 5: large networks; row, model, options, parameters, G multiply-adds at 224 and 320

TABLE_5: tuple[tuple[str, str, dict[str, Any], float, float, float], ...] = (
    ("ResNet-152, alpha .125", "resnet152_v1f", {"alpha": 0.125}, 60.2, 10.9, 22.2),
    (
        "ResNet-152 + SE, alpha .125",
        "resnet152_v1e",
        {"alpha": 0.125, "se": True},
        66.8,
        10.9,
        22.2,
    ),
)

# --- Table 6: clips; row, model, options, (T, H, W), G multiply-adds, reading

CLIP, FAST_CLIP, LARGE_FAST_CLIP = (8, 224, 224), (32, 224, 224), (32, 256, 256)
UNPADDED: dict[str, Any] = {"stem_pool_padding": 0}
RESNET_RULE = "octave in res2-res5, widths in multiples of 16, pool1 padded"
SLOWFAST_RULE = (
    "octave in res2-res4 of the slow pathway and the laterals behind them, low widths at least 16"
)
TABLE_6: tuple[tuple[str, str, dict[str, Any], tuple[int, int, int], float, str], ...] = (
    ("C2D", "c2d_r50", UNPADDED, CLIP, 19.3, "pool1 unpadded"),
    ("I3D", "i3d_r50", UNPADDED, CLIP, 28.1, "pool1 unpadded"),
    ("I3D + NL", "i3d_nln_r50", UNPADDED, CLIP, 33.3, "pool1 unpadded, five blocks, no attention products"),
    ("SlowFast-R50", "slowfast_r50", {}, FAST_CLIP, 27.6, "4 x 16 and 32 x 2 frames, pool1 padded"),
    ("SlowFast-R50, 256 px", "slowfast_r50", {}, LARGE_FAST_CLIP, 36.1, "as its own paper counts it"),
    ("Oct-C2D, alpha .1", "c2d_r50", {"alpha": 0.1}, CLIP, 17.4, RESNET_RULE),
    ("Oct-I3D, alpha .1", "i3d_r50", {"alpha": 0.1}, CLIP, 25.6, RESNET_RULE),
    ("Oct-I3D, alpha .2", "i3d_r50", {"alpha": 0.2}, CLIP, 22.1, RESNET_RULE),
    ("Oct-I3D, alpha .5", "i3d_r50", {"alpha": 0.5}, CLIP, 15.3, f"{RESNET_RULE}; no interpretation of the paper reproduces 15.3"),
    (
        "Oct-I3D + NL, alpha .1", "i3d_nln_r50", {"alpha": 0.1, "nonlocal_on": "cross"}, CLIP, 28.9,
        f"{RESNET_RULE}; high attends to low",
    ),
    (
        "Oct-I3D + NL, alpha .1", "i3d_nln_r50", {"alpha": 0.1, "nonlocal_on": "high"}, CLIP, 28.9,
        f"{RESNET_RULE}; high attends to itself, low passes (the default)",
    ),
    ("Oct-SlowFast, alpha .1", "slowfast_r50", {"alpha": 0.1}, FAST_CLIP, 24.5, SLOWFAST_RULE),
    ("Oct-SlowFast, alpha .2", "slowfast_r50", {"alpha": 0.2}, FAST_CLIP, 22.9, SLOWFAST_RULE),
)  # fmt: skip


def networks() -> Iterator[Network]:
    """The rows of Tables 2-6, in their order."""
    image, large = (3, 224, 224), (3, 320, 320)
    for alpha, macs in TABLE_2.items():
        yield Network(
            2,
            f"ResNet-50, alpha {alpha}",
            "preact_resnet50",
            {"alpha": alpha},
            {MACS_G: macs},
            PREACT,
            image,
        )
    for row, model, options, parameters, macs in TABLE_3:
        yield Network(
            3, row, model, options, {PARAMETERS: parameters, MACS_M: macs}, POOLING_INCLUDED, image
        )
    for row, model, options, parameters, macs, reading in TABLE_4:
        yield Network(
            4, row, model, options, {PARAMETERS: parameters, MACS_G: macs}, reading, image
        )
    for row, model, options, parameters, macs, large_macs in TABLE_5:
        printed = {PARAMETERS: parameters, MACS_G: macs}
        yield Network(5, row, model, options, printed, POOLING_INCLUDED, image)
        yield Network(
            5, f"{row}, 320 px", model, options, {MACS_G: large_macs}, POOLING_INCLUDED, large
        )
    for row, model, options, size, macs, reading in TABLE_6:
        yield Network(6, row, model, options, {MACS_G: macs}, reading, (3, *size))


def layer_results() -> Iterator[Result]:
    """Table 1, counted on a 3x3 layer of 64 channels; the row of alpha = 1 is the formula."""
    reading = "a 3x3 layer of 64 channels"
    plain = count(_Layer(0), (64, 56, 56))
    for alpha, printed in TABLE_1.items():
        computed: Sequence[float] = (
            100 * (1 - 3 / 4 * alpha * (2 - alpha)),
            100 * (1 - 3 / 4 * alpha),
        )
        if alpha < 1:
            cost = count(_Layer(alpha), (64, 56, 56))
            computed = 100 * cost.macs / plain.macs, 100 * cost.activations / plain.activations
        for quantity, value, ours in zip(
            ("MACs (%)", "memory (%)"), printed, computed, strict=True
        ):
            note = reading if alpha < 1 else "formula; networks have alpha < 1"
            yield Result(1, f"alpha {alpha}", quantity, value, ours, note)


def network_results(network: Network, *, traced: bool) -> Iterator[Result]:
    """A row's printed quantities beside ours; `traced`: torch's count must agree."""
    reading = network.reading
    cost = None
    try:
        with torch.device("meta"):
            model = create_model(network.model, **network.options)
        cost = (
            count_twice(model, network.shape, compute=False)[0]
            if traced
            else count(model, network.shape)
        )
    except ConfigError as error:
        reading = f"not built: {error}"
    for quantity, printed in network.printed.items():
        computed = None if cost is None else QUANTITIES[quantity](cost)
        yield Result(network.table, network.row, quantity, printed, computed, reading)


def results(*, traced: bool, tables: Collection[int] = TABLES) -> Iterator[Result]:
    """Every printed value of these tables, one after another. `traced`: torch counts too."""
    if 1 in tables:
        yield from layer_results()
    for network in networks():
        if network.table in tables:
            yield from network_results(network, traced=traced)


def format_results(rows: Iterable[Result]) -> Iterator[str]:
    """Lines of columns, a line as soon as there is a row."""
    names = [network.row for network in networks()]
    widths = (5, max(map(len, names)), max(map(len, QUANTITIES)), 7, 8, 8)
    header = ("table", "row", "quantity", "printed", "computed", "error", "reading")
    yield _line(header, widths)
    for row in rows:
        yield _line(_cells(row), widths)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    numbers = (3, 4, 5)
    columns = [
        cell.rjust(width) if i in numbers else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ]
    return "  ".join([*columns, *cells[len(widths) :]])


def _cells(row: Result) -> tuple[str, ...]:
    computed = "-" if row.computed is None else f"{row.computed:.3f}"
    error = "-" if row.error is None else f"{100 * row.error:+.2f} %"
    return f"{row.table}", row.row, row.quantity, f"{row.printed:g}", computed, error, row.reading


class _Layer(nn.Module):
    """One octave layer with the same alpha before and behind it."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.conv = OctConv2d(64, 64, 3, padding=1, bias=False, alpha=(alpha, alpha))

    def forward(self, x: Tensor) -> OctTensor:
        width, has_low = self.conv.in_channels.high, self.conv.in_channels.low > 0
        return self.conv(OctTensor(x[:, :width], down(x[:, width:], 2) if has_low else None))
