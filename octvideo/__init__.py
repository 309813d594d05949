"""Video action recognition with 3D Octave Convolutions (Chen et al., "Drop an Octave", ICCV
2019)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from octvideo.catalog import list_models
from octvideo.octavize import octavize

if TYPE_CHECKING:
    from torch import nn

    from octvideo.config import load_config
    from octvideo.recognizer import Recognizer
    from octvideo.runs.fit import evaluate, fit

__version__ = "0.1.0"
__all__ = [
    "create_model",
    "evaluate",
    "fit",
    "list_models",
    "load",
    "load_config",
    "octavize",
]

# Imported when they are asked for: a user of the networks alone should not wait for settings and
# decoders.
_LATER = {
    "evaluate": "octvideo.runs.fit",
    "fit": "octvideo.runs.fit",
    "load_config": "octvideo.config",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'octvideo' has no attribute {name!r}")


def create_model(name: str, *, weights: str = "", **options: Any) -> "nn.Module":
    """A network by its name and options: see `octvideo.models.create_model`.

    weights: a file, or the name of a public network, that fills it; image weights are inflated. A
    classifier of another number of classes, or that the file lacks, keeps its initialization.
    Raises CheckpointError if they do not fit.
    """
    from octvideo.models import create_model as create

    model = create(name, **options)
    if weights:
        from octvideo.weights.pretrained import read_weights
        from octvideo.weights.start import fill

        fill(model, read_weights(weights))
    return model


def load(
    path: Any, *, device: Any = None, classes: Any = (), input: Any = "", trusted: bool = False
) -> "Recognizer":
    """A recognizer from a checkpoint, an exported file, or a public network: see
    `octvideo.recognizer.load`."""
    # Files and decoders cost import time that a user of the networks alone should not pay.
    from octvideo.recognizer import load as load_recognizer

    return load_recognizer(path, device=device, classes=classes, input=input, trusted=trusted)
