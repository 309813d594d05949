"""Views of a video for evaluation: clips along time times crops along space, all from one decode of
the file.

PySlowFast's protocol: clip i starts at i / num_clips of the possible starts; the short side becomes
`short_side`; three crops are at the start, middle and end of the longer side, a single crop is the
center crop. View v is crop v % num_crops of clip v // num_crops.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from octvideo.data.lists.class_names import renumbered
from octvideo.data.lists.video_list import VideoEntry, VideoList
from octvideo.data.loading.one_pass import one_pass
from octvideo.data.reading import DecodeError
from octvideo.data.sampling import ClipRule, Timing, crop_offset
from octvideo.data.transforms import resize_short_side
from octvideo.data.video.decode import require_backend
from octvideo.data.video.frame_source import (
    FrameSource,
    open_entry,
    prefetch_entry,
    read_planes,
)
from octvideo.data.video.index import VideoIndex
from octvideo.data.video.video import Frames
from octvideo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """Clips and crops of a test. center: a single clip is the middle one, not the first (training
    validation)."""

    rule: ClipRule
    num_clips: int = 10
    num_crops: int = 3
    short_side: int = 256
    crop_size: int = 256
    center: bool = False

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise ConfigError(
                f"TEST.NUM_ENSEMBLE_VIEWS: {self.num_clips} clips; an evaluation takes at least 1."
            )
        if not 1 <= self.num_crops <= 3:
            raise ConfigError(
                f"TEST.NUM_SPATIAL_CROPS: {self.num_crops} crops; there are 1, 2 (start, middle)"
                " or 3."
            )
        if self.crop_size > self.short_side:
            raise ConfigError(
                f"DATA.TEST_CROP_SIZE: a crop of {self.crop_size} does not fit into a short side of"
                f" {self.short_side}."
            )

    @property
    def num_views(self) -> int:
        return self.num_clips * self.num_crops

    def clips(self, video: Timing) -> list[list[int]]:
        """Frame numbers of each clip."""
        if self.center and self.num_clips == 1:
            return [self.rule.center_clip(video)]
        return self.rule.uniform_clips(video, self.num_clips)

    def crops(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of each crop of a resized frame."""
        places = (1,) if self.num_crops == 1 else range(self.num_crops)
        top, left = (crop_offset(side, self.crop_size, 1) for side in (height, width))
        if height > width:
            return [(crop_offset(height, self.crop_size, place), left) for place in places]
        return [(top, crop_offset(width, self.crop_size, place)) for place in places]

    def subsets(self) -> dict[str, list[int]]:
        """The views of each smaller protocol, by its name "clips x crops"; the full protocol comes
        last.

        n of N clips are the clips floor(j * N / n): where n divides N these are exactly the clips
        that PySlowFast takes with n of them (1x1, 5x1, 10x1 of 10x3), else the nearest earlier ones
        (3x1). One crop is the middle one.
        """
        sizes = [
            (1, 1),
            (1, self.num_crops),
            (3, 1),
            (5, 1),
            (self.num_clips, 1),
            (self.num_clips, self.num_crops),
        ]
        fitting = sorted(
            {size for size in sizes if size[0] <= self.num_clips},
            key=lambda size: (size[0] * size[1], size),
        )
        return {f"{clips}x{crops}": self._subset(clips, crops) for clips, crops in fitting}

    def _subset(self, clips: int, crops: int) -> list[int]:
        middle = self.num_crops // 2
        chosen = range(self.num_crops) if crops == self.num_crops else (middle,)
        starts = [j * self.num_clips // clips for j in range(clips)]
        return [clip * self.num_crops + crop for clip in starts for crop in chosen]


@dataclass(frozen=True, slots=True)
class DecodedVideo:
    """One decoded video. frames: uint8 (F, H, W, 3), the union of its clips, resized; clips: int64
    (num_clips, T) into them. problem: why it could not be read ("" when it could); the tensors are
    then empty.
    """

    index: int
    path: str
    frames: Tensor
    clips: Tensor
    problem: str = ""


class VideoViews:
    """The videos of a list for evaluation: each is opened once, decoded once, resized once.

    classes: the model's class of each label of the list (`class_names.match_classes`); None if both
    agree.
    backend: PyAV by default, since it is the fastest in one pass forward through a file
    (benchmarks/evaluate.py). num_workers processes read ahead, and survive a file that hangs or
    crashes the decoder; 0 reads in this process.

    Each frame is resized as soon as it is decoded: the memory of a video does not depend on its
    resolution.
    """

    def __init__(
        self,
        videos: VideoList,
        spec: ViewSpec,
        *,
        classes: Sequence[int] | None = None,
        backend: str = "pyav",
        index: VideoIndex | None = None,
        num_workers: int = 0,
        timeout_seconds: float = 60.0,
    ) -> None:
        require_backend(backend)
        self.spec, self.multi_label = spec, videos.format == "multilabel"
        places = [(entry.path, entry.read_as) for entry in videos]
        self.paths: Sequence[str] = [path for path, _ in places]
        self.read_as: Sequence[str] = [read_as for _, read_as in places]
        self.labels: Sequence[tuple[int, ...]] = [
            renumbered(entry.labels, classes, videos.name) for entry in videos
        ]
        self._videos, self._backend, self._index = videos, backend, index
        self._num_workers, self._timeout = num_workers, timeout_seconds

    def seen_as(self, spec: ViewSpec) -> "VideoViews":
        """These videos with other views."""
        other = copy(self)
        other.spec = spec
        return other

    @property
    def _decode(self) -> Callable[[int], DecodedVideo]:
        return partial(decode_views, self._videos, self.spec, self._backend, self._index)

    def read(self, indices: Sequence[int]) -> Iterable[DecodedVideo]:
        """Decode these videos, in this order; a video that cannot be read has a `problem`."""
        return one_pass(
            self._decode,
            [(i,) for i in indices],
            num_workers=self._num_workers,
            ahead=2,
            timeout_seconds=self._timeout,
            prefetch=partial(_prefetch, self._videos, self._backend),
        )

    def film(self, index: int) -> Frames | None:
        """uint8 (T, crop, crop, 3), the center crop of the middle clip, for display; None if the
        video cannot be read."""
        video = self._decode(index)
        if video.problem:
            return None
        clip, crop = self.spec.num_clips // 2, self.spec.num_crops // 2
        top_left = self.spec.crops(*video.frames.shape[1:3])[crop]
        return _view(video.frames, video.clips[clip], top_left, self.spec).movedim(0, -1).numpy()


def decode_views(
    videos: VideoList, spec: ViewSpec, backend: str, known: VideoIndex | None, index: int
) -> DecodedVideo:
    """Video `index` of a list."""
    return decode_entry(spec, index, videos[index], backend, known)


def decode_entry(
    spec: ViewSpec,
    index: int,
    entry: VideoEntry,
    backend: str = "pyav",
    known: VideoIndex | None = None,
) -> DecodedVideo:
    """One open, one decode of the frames that the clips share, one resize. index: the result's."""
    try:
        with open_entry(entry, backend=backend, index=known) as video:
            return DecodedVideo(index, entry.path, *read_clips(video, spec))
    except DecodeError as error:
        return DecodedVideo(index, entry.path, torch.empty(0), torch.empty(0), error.cause)


def _prefetch(videos: VideoList, backend: str, index: int) -> None:
    prefetch_entry(videos[index], backend=backend)


def read_clips(video: FrameSource, spec: ViewSpec) -> tuple[Tensor, Tensor]:
    """The frames of all clips, uint8 (F, H, W, 3), each decoded and resized once; int64 (num_clips,
    T) indexes them."""
    clips = np.array(spec.clips(video.timing(exact_times=spec.rule.rule == "time")))
    shared, places = np.unique(clips, return_inverse=True)
    resize = partial(resize_short_side, short_side=spec.short_side)
    resized = read_planes(video, shared.tolist(), resize).movedim(0, -1)
    return resized, torch.from_numpy(places.reshape(clips.shape))


def view_batches(
    frames: Tensor, clips: Tensor, spec: ViewSpec, view_chunk: int
) -> Iterator[Tensor]:
    """uint8 (F, H, W, 3) frames -> all views in order, at most view_chunk at a time: uint8 (n, 3,
    T, crop, crop)."""
    crops, clips = spec.crops(frames.shape[1], frames.shape[2]), clips.to(frames.device)
    for first in range(0, spec.num_views, view_chunk):
        chunk = range(first, min(first + view_chunk, spec.num_views))
        yield torch.stack(
            [
                _view(frames, clips[v // spec.num_crops], crops[v % spec.num_crops], spec)
                for v in chunk
            ]
        )


def _view(frames: Tensor, clip: Tensor, crop: tuple[int, int], spec: ViewSpec) -> Tensor:
    top, left = crop
    window = frames[:, top : top + spec.crop_size, left : left + spec.crop_size]
    return window[clip].permute(3, 0, 1, 2)
