"""Evaluation of a list: each video once, its views from one decode, on any number of ranks."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octvideo.data.clips.views import DecodedVideo, ViewSpec, view_batches
from octvideo.engine.distributed import ALONE, Processes
from octvideo.engine.evaluation.journal import Journal, stamp_of
from octvideo.engine.evaluation.results import Evaluation
from octvideo.errors import CheckpointError, ConfigError, DataError

Scores = NDArray[np.float32]

# float (N, 3, T, H, W) -> probabilities (N, C). The model behind it is in evaluation mode.
Scorer = Callable[[Tensor], Tensor]
ENSEMBLES = ("sum", "max")


class Videos(Protocol):
    """A list of videos for evaluation; `octvideo.data.clips.views.VideoViews` is one. read_as: as
    of `VideoEntry`."""

    spec: ViewSpec
    paths: Sequence[str]
    read_as: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    multi_label: bool

    def read(self, indices: Sequence[int]) -> Iterable[DecodedVideo]:
        """Decode these videos, each once, in any order."""


def evaluate(
    score: Scorer,
    videos: Videos,
    *,
    num_classes: int,
    prepare: Callable[[Tensor], Tensor],
    view_chunk: int = 0,
    batch_size: int = 1,
    ensemble: str = "sum",
    processes: Processes = ALONE,
    journal: Journal | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score every video; all ranks return the same Evaluation.

    prepare: uint8 (N, 3, T, H, W) on the device -> the model's input. ensemble: "sum" (the mean
    over views of the probabilities) or "max". Rank r takes videos[r::world_size]. A forward pass
    holds at most view_chunk views of a single video (0: `default_view_chunk`), so a video's score
    depends on nothing but itself; with equal threads per process the numbers are the same bit for
    bit on any number of processes, and after any interruption when there is a journal. progress is
    called with (videos done, videos of this rank).

    batch_size: videos of a single view (images) that share a forward pass; the last bits of their
    scores then depend on which they are.

    Raises DataError where no video at all can be read: the paths are wrong, not the network.
    """
    subsets = videos.spec.subsets()
    chunk = view_chunk or default_view_chunk(videos.spec)
    mine = range(processes.rank, len(videos.paths), processes.world_size)
    stamps = list(map(stamp_of, videos.paths, videos.read_as)) if journal else []
    known = journal.load((len(subsets), num_classes), stamps) if journal else {}
    own: dict[int, Scores | str] = {i: known[i] for i in mine if i in known}
    progress(len(own), len(mine))
    left = iter(videos.read([i for i in mine if i not in own]))
    while group := list(islice(left, batch_size if videos.spec.num_views == 1 else 1)):
        own |= {video.index: video.problem for video in group if video.problem}
        readable = [video for video in group if not video.problem]
        found_now = score_videos(
            score,
            readable,
            videos.spec,
            prepare=prepare,
            device=processes.device,
            view_chunk=chunk,
        )
        for video, per_view in zip(readable, found_now, strict=True):
            scores = np.stack([combine(per_view[views], ensemble) for views in subsets.values()])
            own[video.index] = scores
            if journal:
                journal.note(video.index, scores, stamps[video.index])
        progress(len(own), len(mine))
    found = _each_once(processes.gather(own), len(videos.paths))
    evaluation = _collect(found, videos, list(subsets), num_classes)
    if evaluation.problems and len(evaluation.problems) == len(videos.paths):
        raise DataError(
            f"{evaluation.unread()}; correct the paths of the list, or DATA.PATH_PREFIX"
        )
    return evaluation


def default_view_chunk(spec: ViewSpec) -> int:
    """Views per forward pass: about as many pixels as 10 views of 8 x 256 x 256. Depends on the
    view size only."""
    budget = 10 * 8 * 256 * 256
    return min(max(budget // (spec.rule.num_frames * spec.crop_size**2), 1), spec.num_views)


@torch.inference_mode()
def score_videos(
    score: Scorer,
    videos: Sequence[DecodedVideo],
    spec: ViewSpec,
    *,
    prepare: Callable[[Tensor], Tensor],
    device: torch.device,
    view_chunk: int,
) -> list[Scores]:
    """(views, C) probabilities of each video. uint8 frames are copied to the device once, and views
    are cut there.

    Several videos have one view each, and share a forward pass.
    """
    if not videos:
        return []
    batches = [
        view_batches(video.frames.to(device, non_blocking=True), video.clips, spec, view_chunk)
        for video in videos
    ]
    chunks = batches[0] if len(videos) == 1 else [torch.cat([next(views) for views in batches])]
    scores = torch.cat([score(prepare(views)).float() for views in chunks]).cpu().numpy()
    per_video = np.split(scores, len(videos))
    for video, values in zip(videos, per_video, strict=True):
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{video.path}: the model's scores are not finite; its weights have diverged."
            )
    return per_video


def combine(scores: Scores, ensemble: str) -> Scores:
    """(views, C) -> (C,)."""
    if ensemble not in ENSEMBLES:
        raise ConfigError(
            f"DATA.ENSEMBLE_METHOD: {ensemble!r}; views are joined by one of"
            f" {', '.join(ENSEMBLES)}."
        )
    if ensemble == "max":
        return scores.max(axis=0)
    # The mean is over probabilities: one confident view must not outvote nine by its logit scale.
    return scores.mean(axis=0, dtype=np.float64).astype(np.float32)


def _each_once(
    parts: Iterable[dict[int, Scores | str]], num_videos: int
) -> dict[int, Scores | str]:
    """Merge results of all ranks. A missing video, or one scored twice, is a bug that raises."""
    found: dict[int, Scores | str] = {}
    for part in parts:
        if twice := found.keys() & part.keys():
            raise RuntimeError(f"videos {sorted(twice)[:5]} were evaluated twice")
        found |= part
    if missing := set(range(num_videos)) - found.keys():
        raise RuntimeError(f"videos {sorted(missing)[:5]} were not evaluated")
    return found


def _collect(
    found: dict[int, Scores | str], videos: Videos, names: list[str], num_classes: int
) -> Evaluation:
    scores = np.full((len(found), len(names), num_classes), math.nan, np.float32)
    for video, result in found.items():
        if not isinstance(result, str):
            scores[video] = result
    return Evaluation(
        paths=videos.paths,
        labels=videos.labels,
        scores={name: scores[:, i] for i, name in enumerate(names)},
        problems={
            video: result for video, result in sorted(found.items()) if isinstance(result, str)
        },
        multi_label=videos.multi_label,
    )
