"""Image weights as files hold them: this package's checkpoints, and the layout of torchvision's and timm's ResNets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octvideo.errors import CheckpointError
from octvideo.models import create_model
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import is_octave

# Where files that hold more than tensors keep them.
WRAPPERS = ("model_state", "state_dict", "model")

# torchvision's names within a block -> ours. conv1 is the first of two 3x3 in a basic block, of 1-3-1 in a bottleneck.
BOTTLENECK = {"1": "reduce", "2": "spatial", "3": "expand"}
BASIC = {"1": "first", "2": "second"}


@dataclass(frozen=True, slots=True)
class ImageWeights:
    """state: in the names of this package's image networks. layout: where they come from, in a word or two."""

    state: dict[str, Tensor]
    assumes: Assumptions
    layout: str

    @property
    def is_octave(self) -> bool:
        return is_octave(self.state)


def read_image_weights(checkpoint: Mapping[str, Any], source: str, prefixes: Sequence[str] = ()) -> ImageWeights:
    """What a file's dict says of an image network. source: the file, for messages; prefixes: to take off the names.

    Raises CheckpointError for a video network's weights and for names of no known layout.
    """
    meta = checkpoint.get("meta")
    if isinstance(meta, Mapping) and "model" in meta:
        return _own(checkpoint, meta["model"], source)
    wrapped = next((checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    tensors = {_without(prefixes, name): value for name, value in wrapped.items() if isinstance(value, Tensor)}
    if "layer1.0.conv1.weight" not in tensors:
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise CheckpointError(
            f"{source}: not a ResNet of this package's or torchvision's layout (it holds {some}); "
            "python tools/convert_weights.py reads the others"
        )
    return ImageWeights(from_torchvision(tensors), Assumptions(), "torchvision's layout")


def _own(checkpoint: Mapping[str, Any], config: dict[str, Any], source: str) -> ImageWeights:
    if any(tensor.dim() == 5 for tensor in checkpoint["model_state"].values()):
        raise CheckpointError(
            f"{source}: the weights of {config['name']}, a video network; set TRAIN.CHECKPOINT_INFLATE False"
        )
    with torch.device("meta"):
        model = create_model(**config)
    preprocessing = checkpoint["meta"].get("preprocessing", {})
    assumes = Assumptions.of(model, preprocessing.get("mean"), preprocessing.get("std"))
    return ImageWeights(checkpoint.get("ema_state") or checkpoint["model_state"], assumes, str(config["name"]))


def _without(prefixes: Sequence[str], name: str) -> str:
    for prefix in ("module.", *prefixes):
        name = name.removeprefix(prefix)
    return name


def from_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{"layer1.0.conv2.weight": ...} -> {"res2.block0.spatial.conv.h2h.weight": ...}. Unknown names stay."""
    layers = BOTTLENECK if "layer1.0.conv3.weight" in tensors else BASIC
    return {_our_name(name, layers): tensor for name, tensor in tensors.items()}


def _our_name(name: str, layers: dict[str, str]) -> str:
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(\w+)", name):
        stage, block, kind, number, tensor = match.groups()
        layer = layers.get(number, number)
    elif match := re.fullmatch(r"layer(\d)\.(\d+)\.downsample\.([01])\.(\w+)", name):
        stage, block, number, tensor = match.groups()
        layer, kind = "shortcut", ("conv", "bn")[int(number)]
    else:
        return re.sub(r"^(fc\.)", r"head.\1", re.sub(r"^(conv|bn)1\.", r"stem.\1.", name))
    group = "h2h" if kind == "conv" else "high"
    return f"res{int(stage) + 1}.block{block}.{layer}.{kind}.{group}.{tensor}"
