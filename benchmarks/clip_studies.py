"""What benchmarks/clips.py compares: small video networks on small sets of clips. A study is a table
of docs/results_clips.md."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from cifar_studies import MEAN, STD
from torch import nn

# From a checkout that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from octvideo import create_model

Start = Literal["scratch", "image", "divided", "pooled_divided", "imagenet"]
OCTAVE = (0.1, 0.25, 0.5)
# In which the frames of test clips are shown, beside their own.
ORDERS = ("reversed", "shuffled", "one frame")
# In the form of their image network, the study "miniature" of cifar_studies.py.
SMALL = {
    "width_per_group": 32,
    "stages": (2, 3, 4, 5),
    "width_rule": "int",
    "dropout_rate": 0.0,
    "fc_init_std": 0.01,
}
# In the form of the ImageNet ResNet-50.
LARGE = {"stride_1x1": True, "dropout_rate": 0.0, "fc_init_std": 0.01}
SLOWFAST = {"stages": (2, 3, 4), "speed_ratio": 4}
X3D = {"dropout_rate": 0.0, "num_frames": 8, "crop_size": 64}


@dataclass(frozen=True)
class Network:
    """name: of `create_model`. frames: that the network sees, evenly spaced over the video."""

    name: str
    frames: int = 8
    options: dict[str, Any] = field(default_factory=dict)


NETWORKS = {
    "I3D": Network("i3d_r26", options=SMALL),
    "I3D, pooled": Network("i3d_r26", options=SMALL | {"downsample": "pool"}),
    "C2D": Network("c2d_r26", options=SMALL),
    # Without the pool in time, which takes two frames together.
    "C2D, one frame": Network("c2d_nopool_r26", frames=1, options=SMALL),
    "SlowFast": Network("slowfast_r26", frames=16, options=SMALL | SLOWFAST),
    "SlowFast, pooled": Network(
        "slowfast_r26", frames=16, options=SMALL | SLOWFAST | {"downsample": "pool"}
    ),
    "X3D-XS": Network("ptv:x3d_xs", options=X3D),
    "X3D-XS, pooled": Network("ptv:x3d_xs", options=X3D | {"downsample": "pool"}),
    "I3D-50": Network("i3d_r50", options=LARGE),
    "C2D-50": Network("c2d_r50", options=LARGE),
    "SlowFast-50": Network("slowfast_r50", frames=16, options=LARGE | SLOWFAST),
}


@dataclass(frozen=True)
class Row:
    """start: "scratch"; "image", the weights of an image network of the same alpha (trained as an
    octave network, where it is one); "divided", those of the vanilla image network, whose smoothest
    channels become low, with strides where it has them; "pooled_divided", those of the vanilla image
    network with the octave's pools; "imagenet", the ImageNet ResNet-50, divided for alpha > 0."""

    network: str
    alpha: float = 0.0
    start: Start = "scratch"

    @property
    def label(self) -> str:
        """Oct-I3D .5"""
        octave = f"Oct-{self.network} {self.alpha:g}".replace("0.", ".")
        return octave if self.alpha else self.network

    @property
    def name(self) -> str:
        return f"{self.label}, {self.start}"

    @property
    def is_divided(self) -> bool:
        from_vanilla = self.start in ("divided", "pooled_divided")
        return from_vanilla or (self.start == "imagenet" and self.alpha > 0)

    @property
    def has_strides(self) -> bool:
        """Whether an octave network strides as the vanilla one does, instead of pooling."""
        return self.is_divided and self.start != "pooled_divided"

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the pictures that the weights were trained on."""
        return ((0.45,) * 3, (0.225,) * 3) if self.start == "imagenet" else (MEAN, STD)

    @property
    def image_row(self) -> str:
        """The row of the study "miniature" that it starts from; "" for other starts."""
        if self.start in ("scratch", "imagenet"):
            return ""
        if self.network == "I3D, pooled" or self.start == "pooled_divided":
            return "ResNet-26, pooled"
        octave = f"Oct-ResNet-26 {self.alpha:g}".replace("0.", ".")
        return octave if self.alpha and self.start == "image" else "ResNet-26"

    @property
    def vanilla(self) -> "Row":
        """What it is held against."""
        start: Start = "image" if self.image_row else self.start
        return Row(self.network.partition(",")[0], 0.0, start)

    @property
    def pooled(self) -> "Row":
        """The vanilla network with the octave's average pools before its strides."""
        return Row(f"{self.vanilla.network}, pooled", 0.0, self.vanilla.start)


@dataclass(frozen=True)
class Study:
    """videos: a set that `clips.py pack` packs. crop: side of what a network sees.

    parts: the groups of recordings that are tested on, one after the other, by a network trained on
    the others. AdamW at `lr` with a half-period cosine, one epoch of warm-up.
    """

    name: str
    videos: str
    rows: tuple[Row, ...]
    epochs: int
    parts: tuple[int, ...] = (1,)
    crop: int = 64
    lr: float = 1e-3
    batch: int = 8
    weight_decay: float = 1e-4
    seeds: tuple[int, ...] = (1, 2, 3)


TRANSFER = (
    Row("I3D", 0.0, "image"),
    Row("I3D, pooled", 0.0, "image"),
    *(Row("I3D", alpha, "image") for alpha in OCTAVE),
    *(Row("I3D", alpha, "divided") for alpha in OCTAVE),
    *(Row("I3D", alpha, "pooled_divided") for alpha in OCTAVE),
    Row("I3D"),
    Row("I3D, pooled"),
    *(Row("I3D", alpha) for alpha in OCTAVE),
)
FOLDS = (1, 2, 3, 4)
# I3D of the same recipe is in the study "egogestar".
ORDER = (
    Row("C2D"),
    Row("C2D, one frame"),
    Row("SlowFast"),
    Row("SlowFast, pooled"),
    Row("SlowFast", 0.1),
    Row("SlowFast", 0.5),
)
IMAGENET = (
    Row("I3D-50", 0.0, "imagenet"),
    Row("I3D-50", 0.1, "imagenet"),
    Row("I3D-50", 0.5, "imagenet"),
    Row("C2D-50", 0.0, "imagenet"),
    Row("SlowFast-50", 0.0, "imagenet"),
    Row("SlowFast-50", 0.1, "imagenet"),
)
LONG = (Row("I3D"), Row("I3D, pooled"), *(Row("I3D", alpha) for alpha in OCTAVE))
OTHERS = (Row("X3D-XS"), Row("X3D-XS, pooled"), Row("X3D-XS", 0.25), Row("X3D-XS", 0.5))
_STUDIES = (
    Study("gestures", "hand_gesture", TRANSFER, epochs=12),
    Study("egogestar", "egogestar", TRANSFER, epochs=60, parts=FOLDS),
    Study("order", "egogestar", ORDER, epochs=60, parts=FOLDS, seeds=(1, 2)),
    Study("imagenet", "egogestar", IMAGENET, epochs=20, parts=FOLDS, lr=3e-4, seeds=(1, 2)),
    Study("long", "hand_gesture", LONG, epochs=60),
    Study("long_imagenet", "hand_gesture", IMAGENET, epochs=30, lr=3e-4),
    Study("others", "egogestar", OTHERS, epochs=60, parts=FOLDS, seeds=(1, 2)),
)
STUDIES = {study.name: study for study in _STUDIES}


def build(row: Row, classes: int, device: torch.device) -> nn.Module:
    """The network of a row, with fresh weights."""
    network = NETWORKS[row.network]
    options = dict(network.options)
    if row.has_strides:
        options["downsample"] = "stride"
    return create_model(network.name, alpha=row.alpha, num_classes=classes, **options).to(device)
