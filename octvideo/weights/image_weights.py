"""Image weights as files hold them: this package's checkpoints, and the ResNets of torchvision, timm and d-li14."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from octvideo.errors import CheckpointError
from octvideo.models import create_model
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import is_octave
from octvideo.weights.layouts import IMAGE_LAYOUTS, find_layout

# Where files that hold more than tensors keep them.
WRAPPERS = ("model_state", "state_dict", "model")


@dataclass(frozen=True, slots=True)
class ImageWeights:
    """state: in the names of this package's image networks. layout: where they come from, in a word or two."""

    state: dict[str, Tensor]
    assumes: Assumptions
    layout: str

    @property
    def is_octave(self) -> bool:
        return is_octave(self.state)


def read_image_weights(
    checkpoint: Mapping[str, Any], source: str, prefixes: Sequence[str] = ()
) -> ImageWeights:
    """What a file's dict says of an image network. source: the file, for messages; prefixes: to take off the names.

    Raises CheckpointError for a video network's weights and for names of no known layout.
    """
    meta = checkpoint.get("meta")
    if isinstance(meta, Mapping) and "model" in meta:
        return _own(checkpoint, meta["model"], source)
    wrapped = next(
        (checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)),
        checkpoint,
    )
    tensors = {
        _without(prefixes, name): value
        for name, value in wrapped.items()
        if isinstance(value, Tensor)
    }
    layout = find_layout(tensors)
    if layout not in IMAGE_LAYOUTS:
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise CheckpointError(
            f"{source}: not a ResNet of this package's, torchvision's or d-li14's layout (it holds {some}); "
            "python tools/convert_weights.py reads the official files"
        )
    names = layout.names(tensors)
    state = {names[name]: tensor for name, tensor in tensors.items()}
    return ImageWeights(state, Assumptions(), f"{layout.title}'s layout")


def _own(checkpoint: Mapping[str, Any], config: dict[str, Any], source: str) -> ImageWeights:
    if any(tensor.dim() == 5 for tensor in checkpoint["model_state"].values()):
        raise CheckpointError(
            f"{source}: the weights of {config['name']}, a video network; set TRAIN.CHECKPOINT_INFLATE False"
        )
    with torch.device("meta"):
        model = create_model(**config)
    preprocessing = checkpoint["meta"].get("preprocessing", {})
    assumes = Assumptions.of(model, preprocessing.get("mean"), preprocessing.get("std"))
    return ImageWeights(
        checkpoint.get("ema_state") or checkpoint["model_state"], assumes, str(config["name"])
    )


def _without(prefixes: Sequence[str], name: str) -> str:
    for prefix in ("module.", *prefixes):
        name = name.removeprefix(prefix)
    return name
