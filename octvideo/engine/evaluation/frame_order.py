"""Does time matter? Clips are scored in order, shuffled, reversed, and as one repeated frame."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from octvideo.data.clips.views import DecodedVideo
from octvideo.engine.distributed import ALONE, Processes
from octvideo.engine.evaluation import metrics
from octvideo.engine.evaluation.evaluate import Scorer, Videos, score_videos

Bools = NDArray[np.bool_]
NO_MATTER = 5.0  # points of top-1


def shuffled(clips: Tensor, seed: int) -> Tensor:
    order = torch.randperm(clips.shape[1], generator=Generator().manual_seed(seed))
    return clips[:, order]


def one_frame(clips: Tensor, seed: int) -> Tensor:
    middle = clips.shape[1] // 2
    return clips[:, middle : middle + 1].expand_as(clips)


# (clips, T) numbers of frames, the video's number -> the numbers in another order. The true order
# comes first.
ORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "true order": lambda clips, seed: clips,
    "shuffled": shuffled,
    "reversed": lambda clips, seed: clips.flip(1),
    "one frame repeated": one_frame,
}


def in_all_orders(video: DecodedVideo) -> DecodedVideo:
    """Give each video one view per frame order."""
    clips = [order(video.clips, video.index) for order in ORDERS.values()]
    return replace(video, clips=torch.cat(clips))


def named_by_order(
    score: Scorer,
    videos: Videos,
    *,
    prepare: Callable[[Tensor], Tensor],
    processes: Processes = ALONE,
) -> dict[str, Bools]:
    """Order -> (N,) whether each video was classified correctly, by a single view; False for an
    unreadable one."""
    spec = replace(videos.spec, num_clips=len(ORDERS))
    mine = range(processes.rank, len(videos.paths), processes.world_size)
    own: dict[int, list[bool]] = {}
    for video in videos.read(list(mine)):
        if video.problem:
            continue
        (scores,) = score_videos(
            score,
            [in_all_orders(video)],
            spec,
            prepare=prepare,
            device=processes.device,
            view_chunk=len(ORDERS),
        )
        label = videos.labels[video.index][0]
        own[video.index] = [int(row.argmax()) == label for row in scores]
    right = np.zeros((len(videos.paths), len(ORDERS)), np.bool_)
    for part in processes.gather(own):
        for index, found in part.items():
            right[index] = found
    return {name: right[:, column] for column, name in enumerate(ORDERS)}


def summarize_orders(right: Mapping[str, Bools]) -> dict[str, Any]:
    """The entries `orders` and `verdict` of results.json.

    Top-1 in per cent of each order; of all but the first also what they lose, with its 95 %
    interval.
    """
    first, *others = right
    summary: dict[str, Any] = {first: {"top1_acc": metrics.percent(right[first].mean())}}
    for name in others:
        lost = float(right[first].mean()) - float(right[name].mean())
        interval = metrics.paired_interval(right[first], right[name])
        summary[name] = {
            "top1_acc": metrics.percent(right[name].mean()),
            "lost": metrics.percent(lost),
            "lost_interval": [metrics.percent(edge) for edge in interval],
        }
    return {"orders": summary, "verdict": _verdict(summary)}


def _verdict(summary: Mapping[str, Any]) -> str:
    still, orders = summary["one frame repeated"], (summary["shuffled"], summary["reversed"])
    if any(_loses(found) for found in orders):
        return "Time matters: the network needs the frames in their order."
    if _loses(still):
        if all(_keeps(found) for found in orders):
            return (
                "Several frames help, but not their order: what changes counts, not how it moves."
            )
        return "Several frames help; whether their order does cannot be told from so few videos."
    if _keeps(still):
        return (
            "One frame does as well as the clip: on these videos the network makes no use of time."
        )
    return "Whether time matters cannot be told from so few videos."


def _loses(found: Mapping[str, Any]) -> bool:
    return bool(found["lost_interval"][0] > 0)


def _keeps(found: Mapping[str, Any]) -> bool:
    """Whether at most NO_MATTER points can be lost."""
    return bool(found["lost_interval"][1] < NO_MATTER)


def order_lines(summary: Mapping[str, Any]) -> list[str]:
    """The numbers for a log."""
    orders = summary["orders"].items()
    rows = [f"{name:<20}top-1 {found['top1_acc']:.1f} %" for name, found in orders]
    return [*rows, summary["verdict"]]
