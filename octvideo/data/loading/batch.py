"""Samples and batches that the loader gives to the engine, for clips, videos and images."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from octvideo.data.reading import DecodeError
from octvideo.errors import DataError

MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that could not be read, and why."""

    path: str
    cause: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a dataset.

    input: uint8 (3, T, H, W) or (3, H, W). target: class id, or float32 (C,) for several labels at
    once.
    index: the requested position; path: the file that was read (another one if `problems` is not
    empty).
    """

    input: Tensor
    target: int | Tensor
    index: int
    path: str
    problems: tuple[Problem, ...] = ()


def sample_or_another(
    read: Callable[[int, random.Random], tuple[Tensor, int | Tensor, str]],
    num_items: int,
    *,
    seed: int,
    epoch: int,
    index: int,
) -> Sample:
    """Item `index`; one that cannot be read is replaced by another and reported in `problems`.

    read(position, draw) gives input, target and path, or raises DecodeError. What is drawn is a
    function of (seed, epoch, index). Raises DataError when MAX_ATTEMPTS files in a row cannot be
    read.
    """
    problems: list[Problem] = []
    for attempt in range(MAX_ATTEMPTS):
        # Each attempt draws anew, so that nothing depends on how far into the file the last one
        # came.
        draw = random.Random(f"{seed} {epoch} {index} {attempt}")
        try:
            item, target, path = read(draw.randrange(num_items) if attempt else index, draw)
        except DecodeError as error:
            problems.append(Problem(error.path, error.cause))
        else:
            return Sample(item, target, index, path, tuple(problems))
    last = problems[-1]
    raise DataError(
        f"{MAX_ATTEMPTS} files in a row cannot be read, the last one {last.path} ({last.cause})."
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """inputs: uint8 (N, 3, T, H, W) or (N, 3, H, W). targets: int64 (N,) or float32 (N, C).
    indices: int64 (N,).

    num_global: samples of the global batch of which this is a rank's part; 0: each rank has N.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    paths: list[str]
    problems: tuple[Problem, ...] = ()
    num_global: int = 0

    @classmethod
    def of(cls, samples: Sequence[Sample], num_global: int = 0) -> "Batch":
        """Stack samples of one shape, in their order."""
        return cls(
            # With the channel last in memory, as the frames came: one plain copy.
            inputs=torch.stack([sample.input.movedim(0, -1) for sample in samples]).movedim(-1, 1),
            targets=torch.stack([torch.as_tensor(sample.target) for sample in samples]),
            indices=torch.tensor([sample.index for sample in samples]),
            paths=[sample.path for sample in samples],
            problems=tuple(problem for sample in samples for problem in sample.problems),
            num_global=num_global,
        )

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device, asynchronously if the memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy to pinned memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, fn: Callable[[Tensor], Tensor]) -> "Batch":
        inputs, targets, indices = map(fn, (self.inputs, self.targets, self.indices))
        return replace(self, inputs=inputs, targets=targets, indices=indices)
