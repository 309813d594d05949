"""Network families and `create_model`."""

from octvideo.models.registry import create_model
from octvideo.models.video_options import VideoOptions

__all__ = ["VideoOptions", "create_model"]
