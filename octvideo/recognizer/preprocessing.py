"""The part of a video that a network sees, as its checkpoint says."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.data.clips.views import ViewSpec, read_clips
from octvideo.data.sampling import ClipRule
from octvideo.data.sources import InMemory, Source, opened
from octvideo.data.transforms import normalize, resize_frame
from octvideo.data.video.frame_source import refuse_extreme
from octvideo.errors import ConfigError

Frames = NDArray[np.uint8]


class Preprocessing:
    """Resizes, crops, samples and normalizes videos for one network on `device`."""

    def __init__(self, values: dict[str, Any], device: torch.device) -> None:
        self.values, self.device = values, device
        self.rule = ClipRule(
            values["num_frames"],
            values["sampling_rate"],
            values["target_fps"],
            values["sampling_rule"],
        )

    def view_spec(self, views: str) -> ViewSpec:
        """ "10x3" as the views of this network. Raises ConfigError for anything but CLIPSxCROPS."""
        clips, x, crops = views.partition("x") if isinstance(views, str) else ("", "", "")
        if not (x and clips.isdecimal() and crops.isdecimal()):
            raise ConfigError(f"views are {views!r}; give clips x crops, as '10x3' or '1x1'")
        short_side, crop_size = self.values["short_side"], self.values["crop_size"]
        return ViewSpec(self.rule, int(clips), int(crops), short_side, crop_size, center=True)

    def read(self, video: Source, spec: ViewSpec, fps: float | None) -> tuple[Tensor, Tensor]:
        """uint8 frames (F, H, W, 3), resized to the short side of the test, and the index of each
        clip's frames among them."""
        with opened(video, fps, self.rule.target_fps) as source:
            return read_clips(source, spec)

    def center_crop(self, frame: Frames) -> Frames:
        """The center crop of a frame (H, W, 3) resized to the test's short side.

        Raises DecodeError for a frame with one side over 16 times the other.
        """
        refuse_extreme(frame, InMemory.path)
        small = resize_frame(frame, self.values["short_side"])
        size = self.values["crop_size"]
        ((top, left),) = self.view_spec("1x1").crops(*small.shape[:2])
        return small[top : top + size, left : left + size].copy()

    def normalized(self, inputs: Tensor) -> Tensor:
        """uint8 (N, 3, T, H, W) as the network's input, on its device."""
        inputs = inputs.to(self.device)
        if self.values["reverse_channels"]:
            inputs = inputs.flip(1)
        return normalize(inputs, self.values["mean"], self.values["std"])
