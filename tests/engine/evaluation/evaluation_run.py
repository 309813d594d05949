"""A small evaluation, for tests to run on several processes and to kill."""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from octvideo.data.clips.views import DecodedVideo, ViewSpec
from octvideo.data.sampling import ClipRule, Timing
from octvideo.engine.evaluation.evaluate import evaluate
from octvideo.engine.evaluation.journal import Journal, fingerprint
from octvideo.engine.evaluation.results import summarize, write_results
from octvideo.engine.process_group import processes

SPEC = ViewSpec(ClipRule(4, 2), num_clips=5, num_crops=3, short_side=24, crop_size=24)
NUM_CLASSES = 3


class MadeVideos:
    """Noise videos of many lengths and shapes; every seventh cannot be read."""

    spec, multi_label = SPEC, False

    def __init__(self, count: int = 11, seconds: float = 0.0) -> None:
        self.paths = [f"made/{i}.mp4" for i in range(count)]
        self.read_as = [""] * count
        self.labels = [(i % NUM_CLASSES,) for i in range(count)]
        self.seconds = seconds

    def read(self, indices):
        for index in indices:
            time.sleep(self.seconds)
            yield made_video(index)


def made_video(index: int) -> DecodedVideo:
    if index % 7 == 6:
        return DecodedVideo(
            index, f"made/{index}.mp4", torch.empty(0), torch.empty(0), "no video stream"
        )
    generator = torch.Generator().manual_seed(index)
    shape = (6 + index, 24, 24 + 2 * index, 3) if index % 2 else (6 + index, 24 + 2 * index, 24, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return DecodedVideo(
        index, f"made/{index}.mp4", frames, torch.tensor(SPEC.clips(Timing(6 + index, 30.0)))
    )


def made_model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv3d(3, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(8, NUM_CLASSES),
    )
    with torch.no_grad():
        layers[-1].weight *= 30
    return layers.eval()


# One model for all calls.
def made_score(views: Tensor, model: nn.Module = made_model()) -> Tensor:  # noqa: B008
    return model(views).softmax(dim=1)


def prepare(views: Tensor) -> Tensor:
    return views.float() / 127.5 - 1


def main(folder: Path, seconds: float = 0.0) -> None:
    torch.set_num_threads(1)
    videos = MadeVideos(seconds=seconds)
    with processes("cpu") as procs:
        journal = Journal(folder, fingerprint(paths=videos.paths), procs.rank)
        found = evaluate(
            made_score,
            videos,
            num_classes=NUM_CLASSES,
            prepare=prepare,
            view_chunk=4,
            processes=procs,
            journal=journal,
        )
        if procs.is_main:
            write_results(folder, found, summarize(found, ["a", "b", "c"], {}))
            journal.remove()
