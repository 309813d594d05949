"""Image weights as files hold them: this package's checkpoints, and the ResNets of torchvision, timm and d-li14."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.models.registry import from_config
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.inflate import is_octave
from octvideo.weights.layouts import IMAGE_LAYOUTS, find_layout, refuse_other_arithmetic
from octvideo.wrappers import check_finite, clear_names


@dataclass(frozen=True, slots=True)
class ImageWeights:
    """state: in the names of this package's image networks. layout: where they come from, in a word or two."""

    state: dict[str, Tensor]
    assumes: Assumptions
    layout: str

    @property
    def is_octave(self) -> bool:
        return is_octave(self.state)


def read_image_weights(checkpoint: Checkpoint, prefixes: Sequence[str] = ()) -> ImageWeights:
    """What a checkpoint says of an image network. prefixes: texts to remove from the names.

    Raises CheckpointError for a video network's weights and for names of no known layout.
    """
    check_finite(checkpoint.weights, checkpoint.path)
    if checkpoint.network:
        return _own(checkpoint)
    tensors, _ = clear_names(checkpoint.weights, prefixes)
    layout = find_layout(tensors)
    refuse_other_arithmetic(layout, tensors, checkpoint.path)
    if any(tensor.dim() == 5 for tensor in tensors.values()):
        raise CheckpointError(
            f"{checkpoint.path}: the weights of a video network ({layout.title}'s layout); set "
            "TRAIN.CHECKPOINT_INFLATE False, or convert them with `octvideo convert --input 8x8`"
        )
    if layout not in IMAGE_LAYOUTS:
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise CheckpointError(
            f"{checkpoint.path}: not a ResNet of this package's, torchvision's, PySlowFast's or d-li14's layout "
            f"(it holds {some}); `octvideo convert` reads the official files"
        )
    names = layout.names(tensors)
    state = {names[name]: tensor for name, tensor in tensors.items()}
    return ImageWeights(state, Assumptions(), f"{layout.title}'s layout")


def _own(checkpoint: Checkpoint) -> ImageWeights:
    name = checkpoint.network["name"]
    if any(tensor.dim() == 5 for tensor in checkpoint.weights.values()):
        raise CheckpointError(
            f"{checkpoint.path}: the weights of {name}, a video network; set TRAIN.CHECKPOINT_INFLATE False"
        )
    with torch.device("meta"):
        model = from_config(checkpoint.network)
    assumes = Assumptions.of(model, checkpoint.input.mean, checkpoint.input.std)
    return ImageWeights(checkpoint.weights, assumes, str(name))
