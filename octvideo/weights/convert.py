"""Convert image weights of other projects to checkpoints of this package: their network, and their
assumptions.

It reads the official OctConv files (MXNet), torchvision's and timm's ResNets, and d-li14's
Oct-ResNets.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import CheckpointError, ConfigError
from octvideo.models import create_model
from octvideo.models.image_options import (
    DenseNetOptions,
    ImageOptions,
    ImageResNetOptions,
    MobileNetOptions,
)
from octvideo.models.network import config_of
from octvideo.models.registry import MODELS, resolved
from octvideo.weights.assumptions import warn_of_another_input
from octvideo.weights.image_weights import read_image_weights
from octvideo.weights.load import is_classifier
from octvideo.weights.official import read_official
from octvideo.weights.source import State, check_shapes, shapes_of

TORCHVISION_MEAN, TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class ConvertedWeights:
    """state: in this package's names, float32. model: the arguments with which
    `create_model(**model)` builds the network.

    layout: the project that the file comes from. mean, std: of the input in 0..1, in the order that
    the network sees: of RGB, or with reverse_channels of BGR; `assumed` if the file's kind, not the
    file, says so.
    """

    state: dict[str, Tensor]
    model: dict[str, Any]
    layout: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    assumed: bool = False
    reverse_channels: bool = False

    def checkpoint(self, class_names: Sequence[str] = (), path: str = "") -> Checkpoint:
        """The weights as a checkpoint of this package. path: their origin, for messages.

        class_names: () if they are not known. Raises CheckpointError for another number of names
        than classes.
        """
        if class_names:
            require_names(class_names, self.model, path or "the weights")
        seen = InputSpec(self.mean, self.std, self.reverse_channels, crop_size=224, short_side=256)
        return Checkpoint(path, self.state, None, self.model, tuple(class_names), seen)

    def with_input(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> "ConvertedWeights":
        """A copy with a known normalization; one number stands for all three channels. Warns where
        the file says another one, and raises ConfigError for numbers that cannot be."""
        known = mean is not None and std is not None
        seen = InputSpec(self.mean, self.std).with_normalization(mean, std)
        if not self.assumed:
            given = {"mean": seen.mean, "std": seen.std}
            warn_of_another_input({"mean": self.mean, "std": self.std}, given, self.layout)
        return replace(
            self,
            mean=seen.mean or self.mean,
            std=seen.std or self.std,
            assumed=self.assumed and not known,
        )


def convert_weights(path: str | Path, *, stride_1x1: bool = False) -> ConvertedWeights:
    """Read a file and find its network among `list_models()`.

    stride_1x1: the stride of a stage sits at the first 1x1, which shapes cannot tell (Caffe's
    ResNets). Raises CheckpointError for a file that is damaged, of no known layout, or of no known
    network, and ConfigError for a stride of an official file, whose networks have theirs.
    """
    if Path(path).suffix in (".params", ".tar"):
        if stride_1x1:
            raise ConfigError(
                f"{path}: --stride-1x1 is of ResNets in torchvision's layout; leave it out"
            )
        official = read_official(path)
        options = {"bn_eps": official.bn_eps, "downsample": official.downsample}
        model = identify(official.state, str(path), options)
        return ConvertedWeights(
            official.state, model, "official OctConv (MXNet)", official.mean, official.std
        )
    checkpoint = Checkpoint.read(str(path))
    if checkpoint.network:
        raise CheckpointError(f"{path}: is a checkpoint of this package already")
    weights = read_image_weights(checkpoint)
    state = {n: t.float() if t.is_floating_point() else t for n, t in weights.state.items()}
    seen = weights.assumes
    options = {"stride_1x1": True} if stride_1x1 or seen.stride_1x1 else {}
    return ConvertedWeights(
        state,
        identify(state, str(path), options),
        weights.layout,
        seen.mean or TORCHVISION_MEAN,
        seen.std or TORCHVISION_STD,
        assumed=not (seen.mean and (checkpoint.recipe or checkpoint.python_recipe)),
        reverse_channels=bool(seen.reverse_channels),
    )


def require_names(class_names: Sequence[str], model: Mapping[str, Any], path: str) -> None:
    """Raise CheckpointError unless there is a name for each class of a network."""
    if len(class_names) != model["num_classes"]:
        raise CheckpointError(
            f"{path}: classifies {model['num_classes']} classes; {len(class_names)} names were"
            " given"
        )


# --- Which network


def identify(state: State, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The `create_model` arguments of the image network that has these names and shapes.

    options: properties that shapes do not show (BN eps, strides), if they differ from the network's
    defaults. Raises CheckpointError if no network fits, or only one that has a classifier too.
    """
    check_shapes(state, source)
    candidates = [(name, {**seen, **options}) for name, seen in _candidates(state)]
    if model := first_match(state, candidates):
        return resolved(config_of(model))
    if name := _lacks_classifier(state, candidates):
        raise CheckpointError(
            f"{source}: is a {name} without a classifier; inflate it (`octvideo inflate`) or train"
            " from it (TRAIN.CHECKPOINT_FILE_PATH), or convert the file that has the classifier"
        )
    given = "".join(f", with {name}={value}" for name, value in options.items())
    raise CheckpointError(
        f"{source}: its names and shapes are of none of the image networks in list_models(){given}"
    )


def _lacks_classifier(
    state: Mapping[str, Tensor], candidates: Iterable[tuple[str, Mapping[str, Any]]]
) -> str:
    """The name of the candidate of which all but the classifier is there; "" if there is none."""
    shapes = shapes_of(state)
    for model in build_each(candidates):
        wanted = shapes_of(model.state_dict())
        if shapes.items() <= wanted.items() and is_classifier(wanted.keys() - shapes.keys()):
            return str(config_of(model)["name"])
    return ""


def first_match(
    state: Mapping[str, Tensor], candidates: Iterable[tuple[str, Mapping[str, Any]]]
) -> nn.Module | None:
    """The first of the networks that `build_each` builds with the names and shapes of `state`."""
    shapes = shapes_of(state)
    models = build_each(candidates)
    return next((model for model in models if shapes_of(model.state_dict()) == shapes), None)


def build_each(candidates: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[nn.Module]:
    """The networks that can be built of the candidates, on the meta device.

    candidates: names and options for `create_model`; options that a family does not have are left
    out.
    """
    for name, options in candidates:
        known = {field.name for field in fields(MODELS[name].options)}
        try:
            with torch.device("meta"):
                model = create_model(name, **{k: v for k, v in options.items() if k in known})
        except ConfigError:  # It cannot be built at the file's alpha.
            continue
        yield model


def _candidates(state: State) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names that the state's outline does not exclude, with the options that it shows; SE by its
    own name first."""
    classifier = state.get("head.fc.weight", state.get("head.fc.bias"))
    stem = state.get("stem.conv.weight")
    seen: dict[str, Any] = {"alpha": find_alpha(state)}
    if classifier is not None and classifier.dim():
        seen["num_classes"] = classifier.shape[0]
    blocks, se = count_blocks(state), any(".excite." in key for key in state)
    for name, family in sorted(
        MODELS.items(), key=lambda item: item[1].fixed.get("se", False) != se
    ):
        if not issubclass(family.options, ImageOptions):
            continue
        options = family.options(**family.fixed)
        if (
            isinstance(options, ImageResNetOptions)
            and tuple(options.blocks) == blocks
            and stem is not None
        ):
            if (options.block == "preact") != ("tail.high.weight" in state):
                continue
            yield name, {**seen, "width_per_group": stem.shape[0], "se": se}
        elif (
            isinstance(options, DenseNetOptions)
            and "stages.dense2.layer0.reduce.conv.h2h.weight" in state
        ):
            yield name, {**seen, "octave_stem": "stem.conv.h2l.weight" in state}
        elif (
            isinstance(options, MobileNetOptions)
            and "blocks.block1.depthwise.conv.h2h.weight" in state
        ):
            yield name, {**seen, "width": stem.shape[0] / 32 if stem is not None else 1.0}


def count_blocks(state: State) -> tuple[int, ...]:
    """Residual blocks in each of res2, res3, ...; empty for other families."""
    blocks = {
        match.groups() for name in state if (match := re.match(r"res(\d)\.block(\d+)\.", name))
    }
    counts = Counter(int(stage) for stage, _ in blocks)
    return tuple(counts[stage] for stage in sorted(counts))


def find_alpha(state: State) -> float:
    """The shortest decimal alpha with int(alpha * C) = low in the widest divided layer, or 0."""
    low = {
        name.removesuffix(".h2l.weight"): t.shape[0]
        for name, t in state.items()
        if name.endswith(".h2l.weight")
    }
    widths = [(low[name] + state[f"{name}.h2h.weight"].shape[0], low[name]) for name in low]
    whole, part = max(widths, default=(1, 0))
    alphas = (math.ceil(10**digits * part / whole) / 10**digits for digits in range(1, 5))
    return next((alpha for alpha in alphas if int(alpha * whole) == part), part / whole)
