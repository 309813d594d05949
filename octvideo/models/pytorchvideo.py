"""pytorchvideo's networks by the names of its hub, and its acoustic ResNet, vanilla or made
octave: `create_model("ptv:x3d_m", alpha=0.25)`.

They keep pytorchvideo's names, so that its files load at alpha 0. Their heads give logits, and
average whatever positions there are. pytorchvideo is imported without torchvision, which has no
wheel beside a CPU build of torch.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from octvideo.errors import ConfigError, import_optional
from octvideo.layers import WIDTH_RULES, check_alpha
from octvideo.layers.initialize import normal_
from octvideo.layers.octave import Downsample
from octvideo.models.network import Family, HeadAct, Network, activate, spread_frames
from octvideo.models.option_rules import check_choices, check_numbers
from octvideo.models.video_options import DOWNSAMPLE
from octvideo.octavize import octavize
from octvideo.octavize.network import GraphMethod, norms_behind
from octvideo.octavize.tracing import trace


@dataclass(frozen=True, slots=True)
class HubRow:
    """module: below pytorchvideo.models. frames, size: of the clip that it is made for.

    speed_ratio: every so many frames the slow pathway takes one; 0 with one pathway.
    builder: the function in the module, by default the name. channels: of the clip.
    is_sound: the clip is a spectrogram, `frames` long, 1 high and `size` frequencies wide.
    """

    module: str
    frames: int
    size: int
    min_frames: int = 1
    speed_ratio: int = 0
    builder: str = ""
    channels: int = 3
    is_sound: bool = False

    def shape(self, frames: int | None = None, size: int | None = None) -> tuple[int, int, int]:
        """(T, H, W) of a clip, of another length or size where these are given."""
        size = size or self.size
        return frames or self.frames, 1 if self.is_sound else size, size


HUB = {
    "c2d_r50": HubRow("hub.resnet", 8, 224, min_frames=2),
    "i3d_r50": HubRow("hub.resnet", 8, 224, min_frames=2),
    "slow_r50": HubRow("hub.resnet", 8, 224),
    "slowfast_r50": HubRow("hub.slowfast", 32, 224, min_frames=4, speed_ratio=4),
    "csn_r101": HubRow("hub.csn", 32, 224),
    "r2plus1d_r50": HubRow("hub.r2plus1d", 16, 224),
    "x3d_xs": HubRow("hub.x3d", 4, 160),
    "x3d_s": HubRow("hub.x3d", 13, 160),
    "x3d_m": HubRow("hub.x3d", 16, 224),
    "x3d_l": HubRow("hub.x3d", 16, 312),
    "acoustic_resnet": HubRow(
        "resnet", 128, 80, builder="create_acoustic_resnet", channels=1, is_sound=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PytorchvideoOptions:
    """The keyword arguments of `create_model` for pytorchvideo's networks.

    alpha, width_rule, downsample, include, exclude: as `octavize` takes them.
    num_classes, dropout_rate, fc_init_std: of the classifier.
    low_channels: the "last" ones, or the "smoothest" ones: then the network keeps the orders of its
    sorted channels.
    builder_options: further arguments of pytorchvideo's builder, as {"stem_dim_out": 16}.
    num_frames, crop_size: of the clip for which the network is made octave; others work too.
    """

    alpha: float = 0.0
    num_classes: int = 400
    in_channels: int = 3
    width_rule: str = "round16"
    downsample: Downsample | None = None
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    low_channels: Literal["last", "smoothest"] = "last"
    dropout_rate: float = 0.5
    fc_init_std: float = 0.01
    builder_options: Mapping[str, Any] = field(default_factory=dict)
    num_frames: int | None = None
    crop_size: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        check_alpha(self.alpha)
        low = ("last", "smoothest")
        choices = {"width_rule": tuple(WIDTH_RULES), "downsample": DOWNSAMPLE, "low_channels": low}
        check_choices(self, choices)
        if not isinstance(self.builder_options, Mapping):
            raise ConfigError(
                f"builder_options is {self.builder_options!r}; it maps names of arguments of"
                " pytorchvideo's builder to values, as {'stem_dim_out': 16}"
            )


class GlobalAverage(nn.Module):
    """(N, C, T, H, W) to (N, C, 1, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4), keepdim=True)


class PytorchvideoNet(Network):
    """A network of pytorchvideo with this package's interface; `blocks`: theirs, head included."""

    takes = "clips"

    def __init__(self, name: str, options: PytorchvideoOptions) -> None:
        row, channels = HUB[name], options.in_channels
        super().__init__(channels, min_frames=row.min_frames)
        self.clip_shape = row.shape(max(row.min_frames, 4), 64)
        self.blocks: Any = _build_theirs(name, options).blocks
        self.speed_ratio = row.speed_ratio
        # SlowFast's last block but one pools and joins its pathways.
        self.num_body = len(self.blocks) - (2 if row.speed_ratio else 1)
        for module in self.modules():
            if type(module).__name__ == "ResBlock":
                module.may_be_recomputed = True  # type: ignore[assignment]
        self._free_the_head(options)

    def _free_the_head(self, options: PytorchvideoOptions) -> None:
        """Logits of whatever positions there are: no softmax, and no pool of one size."""
        head = self.blocks[-1]
        head.activation, head.dropout = None, nn.Dropout(options.dropout_rate)
        head.output_pool = GlobalAverage()
        if self.speed_ratio:
            self.blocks[-2].pool = nn.ModuleList([GlobalAverage(), GlobalAverage()])
        elif isinstance(head.pool, nn.AvgPool3d):
            head.pool = GlobalAverage()
        else:
            head.pool.pool = GlobalAverage()
        normal_(head.proj.weight, std=options.fc_init_std)

    def features(self, x: Tensor) -> list[Tensor]:
        out: Any = [spread_frames(x, self.speed_ratio), x] if self.speed_ratio else x
        for i in range(self.num_body):
            out = self.blocks[i](out)
        return list(out) if self.speed_ratio else [out]

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, C, T, H, W), normalized, to logits (N, num_classes)."""
        self._check(x)
        return self._logits_of(self.features(x))

    def _logits_of(self, pathways: Sequence[Tensor]) -> Tensor:
        # A list of its own: their block writes what it pools into it.
        joined = self.blocks[-2](list(pathways)) if self.speed_ratio else pathways[0]
        return self.blocks[-1](joined)

    def scores_of(self, pathways: Sequence[Tensor], act: HeadAct) -> Tensor:
        """Probabilities (N, num_classes), of the features' mean over all positions."""
        return activate(self._logits_of(pathways)[:, None, None], act)

    @property
    def norm_follows(self) -> dict[str, str]:
        """Batch norm -> the convolution before it, found in a trace."""
        features: Any = self.features
        if isinstance(features, GraphMethod):
            graph = features.graph
        else:
            shape = (1, self.in_channels, *self.clip_shape)
            example = torch.empty(shape, device=next(self.parameters()).device)
            graph = trace(self, example, "features").graph
        found = norms_behind(graph, self)
        # X3D's head has a convolution and a norm before its pool.
        if getattr(self.blocks[-1].pool, "pre_norm", None) is not None:
            pool = f"blocks.{len(self.blocks) - 1}.pool"
            found = {**found, f"{pool}.pre_norm": f"{pool}.pre_conv"}
        return found


def _build_theirs(name: str, options: PytorchvideoOptions) -> Any:
    """pytorchvideo's own network. Raises ConfigError where it cannot be built with
    `builder_options`."""
    row, channels = HUB[name], options.in_channels
    builder = getattr(import_pytorchvideo(row.module), row.builder or name)
    arguments = (
        {"input_channels": (channels,) * 2} if row.speed_ratio else {"input_channel": channels}
    )
    try:
        return builder(model_num_class=options.num_classes, **arguments, **options.builder_options)
    except Exception as error:
        if not options.builder_options:
            raise
        says = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"builder_options is {dict(options.builder_options)}; pytorchvideo's {name} cannot be"
            f" built with it ({says}): give arguments of its builder, in its ranges"
        ) from error


def build(name: str, options: PytorchvideoOptions) -> Network:
    """The network `name` of pytorchvideo's hub, octave at alpha > 0, pooled where it strides if
    `downsample` asks for that."""
    model = PytorchvideoNet(name, options)
    if not options.alpha and options.downsample != "pool":
        return model
    arguments = octave_arguments(name, options)
    example = torch.empty(arguments.pop("example"), device="meta")
    octave: Any = octavize(model, example=example, **arguments)
    return octave


def octave_arguments(name: str, options: PytorchvideoOptions) -> dict[str, Any]:
    """The arguments of `octavize` for the network `name`; example: a shape."""
    shape = HUB[name].shape(options.num_frames, options.crop_size)
    return {
        "alpha": options.alpha,
        "include": options.include,
        "exclude": options.exclude,
        "width_rule": options.width_rule,
        "downsample": options.downsample,
        "weights": "sorted" if options.low_channels == "smoothest" else "as_is",
        "example": [1, options.in_channels, *shape],
    }


MODELS = {
    f"ptv:{name}": Family(
        partial(build, name),
        PytorchvideoOptions,
        (row.channels, *row.shape()),
        {"in_channels": row.channels} if row.is_sound else {},
    )
    for name, row in HUB.items()
}


def import_pytorchvideo(module: str) -> Any:
    """pytorchvideo.models.`module`, imported with a stub of the two names of torchvision that it
    imports."""
    stub = {} if "torchvision" in sys.modules else _stub_torchvision()
    sys.modules.update(stub)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.jit, on which its dependencies stand
            return import_optional(
                f"pytorchvideo.models.{module}",
                "pytorchvideo's networks",
                "pip install pytorchvideo",
            )
    finally:
        for name in stub:
            del sys.modules[name]


def _stub_torchvision() -> dict[str, ModuleType]:
    names = (
        "torchvision",
        "torchvision.ops",
        "torchvision.datasets",
        "torchvision.datasets.folder",
    )
    modules = {name: ModuleType(name) for name in names}
    modules["torchvision.ops"].RoIAlign = nn.Identity  # type: ignore[attr-defined]
    modules["torchvision.datasets.folder"].make_dataset = None  # type: ignore[attr-defined]
    return modules
