"""Video action recognition with 3D Octave Convolutions (Chen et al., "Drop an Octave", ICCV 2019)."""

from typing import TYPE_CHECKING, Any

from octvideo.catalogue import list_models
from octvideo.models import create_model
from octvideo.octavize import octavize

if TYPE_CHECKING:
    from octvideo.recognizer import Recognizer

__version__ = "0.1.0"
__all__ = ["create_model", "list_models", "load", "octavize"]


def load(path: Any, *, device: Any = None) -> "Recognizer":
    """A recogniser from a checkpoint of training: see `octvideo.recognizer.load`."""
    # Files and decoders cost import time that a user of the networks alone should not pay.
    from octvideo.recognizer import load as load_recognizer

    return load_recognizer(path, device=device)
