"""Video action recognition with 3D Octave Convolutions (Chen et al., "Drop an Octave", ICCV 2019)."""

from octvideo.models import create_model, list_models

__version__ = "0.1.0"
__all__ = ["create_model", "list_models"]
