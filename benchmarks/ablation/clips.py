"""Clips in memory: 16 frames of each video, small, decoded or made once."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ablation.training import Examples
from torch import Tensor

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.demo import CLASS_NAMES, make_clip
from octvideo.data.sampling import segment_indices
from octvideo.data.transforms import resize_short_side
from octvideo.data.video.decode import open_video
from octvideo.errors import DataError

FRAMES, SHORT_SIDE = 16, 72


def load_clips(source: Path | None, cache: Path) -> dict[str, Examples]:
    """ "train" and "test" of a folder with train.csv and test.csv, or of made clips where `source`
    is None. Raises DataError for a `cache` of other clips."""
    about = f"{source.resolve() if source else 'made'}, {FRAMES} frames of {SHORT_SIDE} pixels"
    if not cache.is_file():
        made = {"train": 1600, "test": 400}
        splits = {s: listed(source, s) if source else made_clips(s, n) for s, n in made.items()}
        cache.parent.mkdir(parents=True, exist_ok=True)
        tensors = {f"{s}_{k}": v.numpy() for s, e in splits.items() for k, v in vars(e).items()}
        np.savez(cache, about=np.array(about), **tensors)
    arrays = np.load(cache, allow_pickle=False)
    if "about" not in arrays or str(arrays["about"]) != about:
        raise DataError(f"{cache}: of other clips than {about}; give another folder, or delete it")
    return {split: read_split(arrays, split) for split in ("train", "test")}


def read_split(arrays: Mapping[str, np.ndarray], split: str) -> Examples:
    return Examples(*(torch.from_numpy(arrays[f"{split}_{k}"]) for k in ("inputs", "targets")))


def listed(folder: Path, split: str) -> Examples:
    entries = list(read_list(folder / f"{split}.csv"))
    return Examples(
        torch.stack([decoded(e.path) for e in entries]), torch.tensor([e.label for e in entries])
    )


def decoded(path: str) -> Tensor:
    with open_video(path) as video:
        return small(video.read(evenly(video.info.num_frames)))


def made_clips(split: str, count: int) -> Examples:
    """The demo's clips; those to test have textures of other kinds."""
    held_out, targets = split == "test", torch.arange(count) % len(CLASS_NAMES)
    first_seed = 10_000_000 * (1 + held_out)
    clips = (make_clip(int(t), first_seed + i, held_out=held_out) for i, t in enumerate(targets))
    return Examples(torch.stack([small(clip[evenly(len(clip))]) for clip in clips]), targets)


def evenly(num_frames: int) -> list[int]:
    return segment_indices(num_frames, [0.5] * FRAMES)


def small(frames: np.ndarray) -> Tensor:
    """uint8 (T, H, W, 3) -> (3, T, h, w)."""
    return resize_short_side(torch.from_numpy(frames).movedim(-1, 0), SHORT_SIDE).contiguous()


def vary(clips: Tensor, generator: torch.Generator, size: tuple[int, int]) -> Tensor:
    """One of each two frames, and a crop of `size` from anywhere; not mirrored, for directions are
    classes."""
    height, width = size
    out = []
    for clip in clips:
        draws = torch.rand(2, generator=generator).tolist()
        top, left = (
            int(d * (side - s + 1)) for d, side, s in zip(draws, clip.shape[-2:], size, strict=True)
        )
        frames = torch.arange(0, FRAMES, 2) + torch.randint(2, (FRAMES // 2,), generator=generator)
        out.append(clip[:, frames, top : top + height, left : left + width])
    return torch.stack(out)


def middle(clips: Tensor, size: tuple[int, int]) -> Tensor:
    """What the test sees: every second frame, the crop in the middle."""
    top, left = ((side - s) // 2 for side, s in zip(clips.shape[-2:], size, strict=True))
    return clips[:, :, 1::2, top : top + size[0], left : left + size[1]]
