"""Generated data in the shape of a config's: what `--dry-run` trains and evaluates on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from octvideo.data.batch import Sample
from octvideo.data.sampling import Timing
from octvideo.data.views import Video, ViewSpec


@dataclass(frozen=True)
class GeneratedSamples:
    """Noise of one shape with labels in turn: a Dataset of the loader."""

    shape: tuple[int, ...]
    num_classes: int
    num_samples: int
    multi_label: bool = False

    def __len__(self) -> int:
        return self.num_samples

    def sample(self, epoch: int, index: int) -> Sample:
        label = index % self.num_classes
        target = torch.eye(self.num_classes)[label] if self.multi_label else label
        return Sample(_noise(self.shape, index), target, index, f"generated clip {index}")


class GeneratedVideos:
    """Videos of noise, twice as wide as high and as long as a clip: an evaluation's Videos."""

    def __init__(self, spec: ViewSpec, num_classes: int, num_videos: int = 2, multi_label: bool = False) -> None:
        self.spec, self.multi_label = spec, multi_label
        self.paths: Sequence[str] = [f"generated video {i}" for i in range(num_videos)]
        self.labels: Sequence[tuple[int, ...]] = [(i % num_classes,) for i in range(num_videos)]

    def read(self, indices: Sequence[int]) -> Iterable[Video]:
        rule, side = self.spec.rule, self.spec.short_side
        for index in indices:
            frames = _noise((rule.num_frames, side, 2 * side, 3), index)
            clips = self.spec.clips(Timing(rule.num_frames, rule.target_fps))
            yield Video(index, self.paths[index], frames, torch.tensor(clips))


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=Generator().manual_seed(seed))
