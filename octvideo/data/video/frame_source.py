"""The source of frames, a video file or a folder of pictures, and the frames as planes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from octvideo.data.lists.video_list import VideoEntry
from octvideo.data.reading import DecodeError
from octvideo.data.sampling import Timing
from octvideo.data.storage.part import prefetch
from octvideo.data.transforms import Change, change_frame
from octvideo.data.video.decode import open_video, takes_a_table
from octvideo.data.video.frame_folders import open_frames
from octvideo.data.video.in_memory import open_part
from octvideo.data.video.index import VideoIndex
from octvideo.data.video.video import Frames, Prepare

_MAX_ASPECT = 16


class FrameSource(Protocol):
    """An open video. path: its name in messages."""

    path: str

    def timing(self, *, exact_times: bool = False) -> Timing: ...
    def read(self, indices: Sequence[int], prepare: Prepare | None = None) -> Frames: ...


@contextmanager
def open_entry(
    entry: VideoEntry, *, backend: str = "auto", index: VideoIndex | None = None
) -> Iterator[FrameSource]:
    """Open a line of a list: a file, a part of a file, or (if the line has a number of frames) a
    folder of frames."""
    if entry.part:
        with open_part(entry.part, entry.path, backend=backend) as video:
            yield video
    elif entry.num_frames:
        with open_frames(entry.path, entry.num_frames, template=entry.template) as folder:
            yield folder
    else:
        with open_video(
            entry.path, backend=backend, known=index.get(entry.path) if index else None
        ) as video:
            yield video


def prefetch_entry(entry: VideoEntry, *, backend: str = "auto") -> None:
    """Start fetching the bytes that `open_entry` will read, if that is worth it."""
    if part := entry.part:
        prefetch(part)
        if part.table and part.info and takes_a_table(backend, part.info):
            prefetch(part.table)


def refuse_extreme(frame: Frames, path: str) -> None:
    """Raise DecodeError for a picture (H, W, 3) too extreme to resize its short side."""
    height, width, _ = frame.shape
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise DecodeError(
            path, f"{width} x {height} pixels: one side is over {_MAX_ASPECT} times the other"
        )


def read_planes(source: FrameSource, indices: Sequence[int], change: Change) -> Tensor:
    """uint8 (3, T, H, W), the channel last in memory. change: done to each frame (3, 1, H, W) as
    soon as it is decoded, so that memory does not depend on the video's resolution.

    Raises DecodeError for a picture whose aspect ratio is extreme.
    """

    def prepare(frame: Frames) -> Frames:
        refuse_extreme(frame, source.path)
        return change_frame(frame, change)

    frames = source.read(indices, prepare)
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 0)
