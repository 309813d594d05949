"""Weights to inflate or to split, from checkpoints of this package and of other projects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from octvideo.checkpoint import Checkpoint
from octvideo.errors import CheckpointError
from octvideo.models.registry import family_in, from_config, on_meta
from octvideo.weights.assumptions import Assumptions
from octvideo.weights.layouts import IMAGE_LAYOUTS, find_layout
from octvideo.weights.source import check_shapes, is_octave, is_video
from octvideo.wrappers import check_finite, clear_names, named_as


@dataclass(frozen=True, slots=True)
class ImageWeights:
    """state: in this package's names. layout: their origin, in a few words."""

    state: dict[str, Tensor]
    assumes: Assumptions
    layout: str

    @property
    def is_octave(self) -> bool:
        return is_octave(self.state)


def read_image_weights(checkpoint: Checkpoint, prefixes: Sequence[str] = ()) -> ImageWeights:
    """The image weights in a checkpoint. prefixes: texts to remove from the names. Raises
    CheckpointError for a video network's weights and for names of no known layout."""
    check_finite(checkpoint.weights, checkpoint.path)
    if checkpoint.network:
        return _own(checkpoint)
    tensors, _ = clear_names(checkpoint.weights, prefixes)
    layout = find_layout(tensors)
    if any(tensor.dim() == 5 for tensor in tensors.values()):
        raise CheckpointError(
            f"{checkpoint.path}: the weights of a video network ({layout.title}'s layout); set "
            "TRAIN.CHECKPOINT_INFLATE False, or convert them with `octvideo convert --input 8x8`"
        )
    if layout not in IMAGE_LAYOUTS:
        some = ", ".join(list(tensors)[:3]) or "no tensors"
        raise CheckpointError(
            f"{checkpoint.path}: not a ResNet of this package's, torchvision's, PySlowFast's or"
            f" d-li14's layout (it holds {some}); `octvideo convert` reads the official files"
        )
    state = layout.translate(tensors, checkpoint, clips=False)
    assumes = layout.assumes(state, checkpoint)
    stride_1x1 = assumes.options.get("stride_1x1")
    return ImageWeights(state, replace(assumes, stride_1x1=stride_1x1), f"{layout.title}'s layout")


def read_video_weights(checkpoint: Checkpoint, prefixes: Sequence[str] = ()) -> ImageWeights:
    """Vanilla video weights in a checkpoint, to be split for an octave network of the family."""
    check_finite(checkpoint.weights, checkpoint.path)
    tensors, _ = clear_names(checkpoint.weights, prefixes)
    layout = find_layout(tensors)
    state = layout.translate(tensors, checkpoint)
    check_shapes(state, checkpoint.path)
    assumes = layout.assumes(state, checkpoint)
    stride_1x1 = assumes.options.get("stride_1x1")
    return ImageWeights(
        state,
        replace(assumes, stride_1x1=stride_1x1, downsample="stride"),
        str(checkpoint.network.get("name") or f"{layout.title}'s layout"),
    )


def _own(checkpoint: Checkpoint) -> ImageWeights:
    name = str(checkpoint.network["name"])
    family = family_in(checkpoint.network)
    if is_video(checkpoint.weights) or (family and family.takes_clips):
        raise CheckpointError(
            f"{checkpoint.path}: the weights of {name}, a video network; set"
            " TRAIN.CHECKPOINT_INFLATE False"
        )
    model = on_meta(name, lambda: from_config(checkpoint.network))
    assumes = Assumptions.of(model, checkpoint.input)
    state, _ = named_as(model.state_dict(), checkpoint.weights)
    check_shapes(state, checkpoint.path)
    return ImageWeights(state, assumes, name)
