"""The base class of every network, its head, a row of the table of networks, and what modules
declare.

A module whose batch norms directly follow convolutions declares `norm_follows`, {norm: convolution}
by their names within it. A module whose activations should be recomputed rather than saved declares
`may_be_recomputed = True`. So folding and activation checkpointing need not know the modules of any
family.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octvideo.errors import ConfigError

# From logits at every window position to one score per class: the function, then the mean over
# positions, or the function of the mean logits (pytorchvideo's networks).
HeadAct = Literal["softmax", "sigmoid", "softmax_of_mean", "sigmoid_of_mean"]


def spread_frames(x: Tensor, ratio: int) -> Tensor:
    """(N, C, T, H, W) -> T // ratio of its frames, evenly from the first to the last: SlowFast's
    slow pathway. (PySlowFast.)"""
    frames = x.shape[2]
    index = torch.linspace(0, frames - 1, frames // ratio).long()
    return x.index_select(2, index.to(x.device))


def pooled_features(model: Any, x: Tensor) -> Tensor:
    """(N, D), which the classifier sees, or in an X3D the convolutions of its head: the features of
    each pathway of a video network, averaged over time and space. x: as the network takes it."""
    return pooled(model.features(x))


def pooled(pathways: Sequence[Tensor]) -> Tensor:
    """(N, C_i, T_i, H, W) of each pathway to (N, D)."""
    return torch.cat([pathway.mean((2, 3, 4)) for pathway in pathways], dim=1)


def activate(logits: Tensor, act: HeadAct) -> Tensor:
    """(N, H, W, classes) to probabilities (N, classes)."""
    if act.endswith("_of_mean"):
        logits = logits.mean((1, 2), keepdim=True)
    scores = logits.sigmoid() if act.startswith("sigmoid") else logits.softmax(-1)
    return scores.mean((1, 2))


class Head(nn.Module):
    """Global average, dropout, classifier; or the classifier at each position of a sliding window.

    window: height and width of the window in the final feature map; 0 for the whole map (image
    networks).
    """

    def __init__(
        self, in_channels: int, num_classes: int, dropout_rate: float, window: int = 0
    ) -> None:
        super().__init__()
        self.window = window
        self.dropout = nn.Dropout(dropout_rate)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, pathways: Sequence[Tensor]) -> Tensor:
        """Features (N, C_i, [T_i,] H, W) of each pathway to logits (N, num_classes)."""
        return self.fc(self.dropout(_joined([x.mean(tuple(range(2, x.dim()))) for x in pathways])))

    def window_scores(self, pathways: Sequence[Tensor], act: HeadAct) -> Tensor:
        """Features to probabilities: `act` at every position of the window, and the mean over the
        positions."""
        pooled = _joined([self._slide(x) for x in pathways])
        return activate(self.fc(pooled.permute(0, 2, 3, 1)), act)

    def _slide(self, x: Tensor) -> Tensor:
        """(N, C, [T,] H, W) to averages (N, C, H', W') over the window and all frames."""
        x = x.mean(2) if x.dim() == 5 else x
        height, width = x.shape[-2:]
        window = self.window or max(height, width)
        return F.avg_pool2d(x, (min(window, height), min(window, width)), stride=1)


def _joined(pathways: list[Tensor]) -> Tensor:
    return torch.cat(pathways, dim=1) if len(pathways) > 1 else pathways[0]


class Network(nn.Module, ABC):
    """Clips or images in, logits or test-time probabilities out. A family adds `features` and
    `head`; one of other probabilities has its own `scores_of`.

    config: plain values with which `create_model(**config)` builds it again. input_shape: (C, T, H,
    W) of the clips or (C, H, W) of the images that it is made for. `create_model` sets both.
    """

    head: Head
    config: dict[str, Any]
    input_shape: tuple[int, ...]
    takes: ClassVar[str]
    """ "clips" or "images"."""

    def __init__(self, in_channels: int, *, min_frames: int = 1, min_size: int = 1) -> None:
        """min_frames, min_size: of an input, below which the network's strides leave nothing."""
        super().__init__()
        self.in_channels, self.min_frames, self.min_size = in_channels, min_frames, min_size

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """Inputs to the final feature map (N, C_i, [T_i,] H', W') of each pathway, its low group
        upsampled."""

    def forward(self, x: Tensor) -> Tensor:
        """Float (N, C, T, H, W) or (N, C, H, W), normalized, to logits (N, num_classes), also in
        training."""
        self._check(x)
        return self.head(self.features(x))

    def window_scores(self, x: Tensor, act: HeadAct = "softmax") -> Tensor:
        """Probabilities (N, num_classes) of PySlowFast's test head; at the training size they rank
        as `forward`."""
        self._check(x)
        return self.scores_of(self.features(x), act)

    def scores_of(self, pathways: Sequence[Tensor], act: HeadAct) -> Tensor:
        """The probabilities of `window_scores`, from what `features` gives."""
        return self.head.window_scores(pathways, act)

    def scores_and_features(self, x: Tensor, act: HeadAct = "softmax") -> tuple[Tensor, Tensor]:
        """`window_scores` and `pooled_features` of clips, from one pass."""
        self._check(x)
        pathways = self.features(x)
        return self.scores_of(pathways, act), pooled(pathways)

    def _check(self, x: Tensor) -> None:
        axes = "T, H, W" if self.takes == "clips" else "H, W"
        if x.dim() != (5 if self.takes == "clips" else 4) or x.shape[1] != self.in_channels:
            got, wanted = tuple(x.shape), f"(N, {self.in_channels}, {axes})"
            raise ConfigError(
                f"the network got a tensor of shape {got}; it takes {self.takes} {wanted}"
            )
        if self.takes == "clips" and (
            x.shape[2] < self.min_frames or min(x.shape[3:]) < self.min_size
        ):
            raise ConfigError(
                f"the network got clips of {x.shape[2]} frames of {x.shape[3]} x {x.shape[4]}"
                f" pixels; its strides need at least {self.min_frames} frames of {self.min_size} x"
                f" {self.min_size}"
            )


def config_of(model: nn.Module) -> dict[str, Any]:
    """`model.config` of a network of `create_model`; {} of another one: its `config` may be
    anything."""
    return getattr(model, "config", {}) if isinstance(model, Network) else {}


def alpha_of(config: Mapping[str, Any]) -> float:
    """The octave ratio of a network by its `config`; 0 of a vanilla one, and of a family without
    the option. `octvideo.octavize` notes the ratio beside the options of the network."""
    octavized = config.get("octavize") or {}
    return float(octavized.get("alpha") or config.get("alpha") or 0.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table of networks.

    options: the dataclass whose fields `create_model` takes.
    input_shape: the usual input, (C, T, H, W) of a clip or (C, H, W) of an image.
    fixed: the options that the name itself decides; a caller may still override them.
    """

    builder: Callable[[Any], Network]
    options: type
    input_shape: tuple[int, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def takes_clips(self) -> bool:
        return len(self.input_shape) == 4


CLIP, FAST_CLIP, IMAGE, CIFAR = (3, 8, 224, 224), (3, 32, 224, 224), (3, 224, 224), (3, 32, 32)


def norms_behind_convolutions(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """(module that holds a norm, the norm's name in it, the convolution before it)."""
    for module in model.modules():
        for norm, convolution in getattr(module, "norm_follows", {}).items():
            holder, _, name = norm.rpartition(".")
            yield module.get_submodule(holder), name, module.get_submodule(convolution)


def recomputable_parts(model: nn.Module) -> list[nn.Module]:
    """The outermost modules whose activations may be recomputed in the backward pass."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if getattr(module, "may_be_recomputed", False) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    return found
