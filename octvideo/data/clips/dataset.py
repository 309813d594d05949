"""Clips of videos for training: (seed, epoch, index) alone decides video, frames and crop."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from octvideo.data.lists.class_names import renumbered
from octvideo.data.lists.video_list import VideoEntry, VideoList
from octvideo.data.loading.batch import Sample, sample_or_another
from octvideo.data.sampling import ClipRule
from octvideo.data.transforms import (
    Change,
    center_crop,
    color_jitter,
    random_crop,
    random_resized_crop,
)
from octvideo.data.video.decode import require_backend
from octvideo.data.video.frame_source import open_entry, prefetch_entry, read_planes
from octvideo.data.video.index import VideoIndex
from octvideo.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class ClipTransform:
    """Resize and crop a decoded clip. train: random short side, crop, flip and color; else the
    center crop.

    Without train the short side becomes jitter_scales[0]. area, aspect: with area a crop of a
    random share of the area and a random width / height is resized instead of the short side.
    """

    crop_size: int
    jitter_scales: tuple[int, int] = (256, 320)
    train: bool = True
    flip: bool = True
    color_jitter: float = 0.0
    inverse_uniform: bool = False
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (0.75, 1.3333)

    def __post_init__(self) -> None:
        low, high = self.jitter_scales
        if self.crop_size < 1 or not 1 <= low <= high:
            raise ConfigError(
                f"crop {self.crop_size}, short sides {low} to {high}: they must be positive and in"
                " order (DATA.TRAIN_CROP_SIZE, DATA.TRAIN_JITTER_SCALES)."
            )
        if not 0 <= self.color_jitter < 1:
            raise ConfigError(f"color jitter {self.color_jitter} is outside [0, 1).")

    def __call__(self, clip: Tensor, draw: random.Random) -> Tensor:
        """uint8 (3, T, H, W) -> (3, T, crop_size, crop_size)."""
        height, width = clip.shape[-2:]
        return self.vary(self.crop_for(height, width, draw)(clip), draw)

    def crop_for(self, height: int, width: int, draw: random.Random) -> Change:
        """The first part of a call: uint8 (3, T, height, width) -> (3, T, crop_size, crop_size)."""
        size = self.crop_size
        if not self.train:
            return partial(center_crop, short_side=self.jitter_scales[0], size=size)
        if self.area:
            return random_resized_crop(height, width, self.area, self.aspect, size, draw)
        return random_crop(
            height,
            width,
            self.jitter_scales,
            size,
            draw.random,
            inverse_uniform=self.inverse_uniform,
        )

    def vary(self, clip: Tensor, draw: random.Random) -> Tensor:
        """The second part of a call: flip and color of a crop."""
        if self.train and self.flip and draw.random() < 0.5:
            clip = clip.flip(-1)
        if self.train and self.color_jitter:
            return color_jitter(clip, self.color_jitter, draw.random)
        return clip


class ClipDataset:
    """One clip per video of a list. Each frame is cropped as soon as it is decoded: the memory of a
    clip does not depend on the video's resolution.

    A file that cannot be read is replaced by another one, which (seed, epoch, index) decides as
    well; the sample reports it in `problems`. multilabel_classes: C makes targets multi-hot float32
    (C,), None leaves the class id (-1 where the list has no labels). index: the stored examination
    of the files, so that they need not be examined again. classes: as of `VideoViews`.

    Raises DataError for a label beyond `classes`, and, without multilabel_classes, for a video of
    several labels, or of none where others have one.
    """

    def __init__(
        self,
        videos: VideoList | Sequence[VideoEntry],
        *,
        rule: ClipRule,
        transform: ClipTransform,
        seed: int = 0,
        multilabel_classes: int | None = None,
        backend: str = "auto",
        index: VideoIndex | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        if not len(videos):
            raise DataError("the list is empty; every line names one video.")
        require_backend(backend)
        self.videos, self.rule, self.transform = videos, rule, transform
        self._seed, self._multilabel_classes = seed, multilabel_classes
        self._backend, self._index, self.classes = backend, index, classes
        listed = self._list()
        if multilabel_classes is None and (found := listed.without_one_label()):
            raise DataError(
                f"{listed.name}: {found}; without multilabel_classes each video has one: give it"
                " one, or multilabel_classes=NUMBER OF CLASSES"
            )
        if classes is not None:
            renumbered([max(listed.highest_label, 0)], classes, listed.name)

    def __len__(self) -> int:
        return len(self.videos)

    def fingerprint(self) -> str:
        """A digest of the list."""
        return self._list().fingerprint()

    def _list(self) -> VideoList:
        return self.videos if isinstance(self.videos, VideoList) else VideoList(self.videos)

    def sample(self, epoch: int, index: int) -> Sample:
        """The clip of video `index` in this epoch. Raises DataError after 20 unreadable files."""
        return sample_or_another(self._read, len(self), seed=self._seed, epoch=epoch, index=index)

    def prefetch(self, epoch: int, index: int) -> None:
        """Start fetching the bytes that `sample` will read."""
        prefetch_entry(self.videos[index], backend=self._backend)

    def _read(self, position: int, draw: random.Random) -> tuple[Tensor, int | Tensor, str]:
        entry = self.videos[position]
        with open_entry(entry, backend=self._backend, index=self._index) as video:
            timing = video.timing(exact_times=self.rule.rule == "time")
            indices = (
                self.rule.clip(timing, draw.random)
                if self.transform.train
                else self.rule.center_clip(timing)
            )
            crop_for = cache(partial(self.transform.crop_for, draw=draw))
            clip = read_planes(video, indices, lambda frame: crop_for(*frame.shape[-2:])(frame))
        return self.transform.vary(clip, draw), self._target(entry), entry.path

    def _target(self, entry: VideoEntry) -> int | Tensor:
        labels = renumbered(entry.labels, self.classes, entry.path)
        if self._multilabel_classes is None:
            return labels[0] if labels else -1
        return torch.zeros(self._multilabel_classes).index_fill_(
            0, torch.tensor(labels, dtype=torch.int64), 1.0
        )
