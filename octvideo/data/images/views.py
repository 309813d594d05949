"""Images for evaluation: each is a video of one frame with one view, its center crop."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from octvideo.data.clips.views import DecodedVideo, ViewSpec
from octvideo.data.images.dataset import ImageSource
from octvideo.data.images.transforms import CenterCrop
from octvideo.data.loading.one_pass import one_pass
from octvideo.data.reading import DecodeError
from octvideo.data.sampling import ClipRule
from octvideo.data.video.video import Frames

ONE_FRAME = ClipRule(1, 1)


class ImageViews:
    """The images of a source; `octvideo.engine.evaluation.evaluate.Videos` describes each
    attribute.

    num_workers processes read ahead, and survive a file that hangs or crashes the decoder; 0 reads
    in this process.
    """

    multi_label = False

    def __init__(
        self,
        source: ImageSource,
        crop: CenterCrop,
        *,
        num_workers: int = 0,
        timeout_seconds: float = 60.0,
    ) -> None:
        self.spec = ViewSpec(
            ONE_FRAME, 1, 1, short_side=crop.short_side, crop_size=crop.size, center=True
        )
        entries = [source.entry(index) for index in range(len(source))]
        self.paths: Sequence[str] = [path for path, _ in entries]
        self.read_as: Sequence[str] = [""] * len(entries)
        self.labels: Sequence[tuple[int, ...]] = [(label,) for _, label in entries]
        self._read = partial(read_image, source, crop)
        self._num_workers, self._timeout = num_workers, timeout_seconds

    def read(self, indices: Sequence[int]) -> Iterable[DecodedVideo]:
        """Read these images, in this order; an image that cannot be read has a `problem`."""
        return one_pass(
            self._read,
            [(i,) for i in indices],
            num_workers=self._num_workers,
            ahead=16,
            timeout_seconds=self._timeout,
        )

    def film(self, index: int) -> Frames | None:
        """uint8 (1, crop, crop, 3), for display; None for an image that cannot be read."""
        image = self._read(index)
        return None if image.problem else image.frames.numpy()


def read_image(source: ImageSource, crop: CenterCrop, index: int) -> DecodedVideo:
    """Image `index`: frames are its crop, uint8 (1, size, size, 3)."""
    path, _ = source.entry(index)
    try:
        frames: Tensor = crop(source.read(index)).movedim(0, -1)[None].contiguous()
    except DecodeError as error:
        return DecodedVideo(index, path, torch.empty(0), torch.empty(0), error.cause)
    return DecodedVideo(index, path, frames, torch.zeros(1, 1, dtype=torch.int64))
