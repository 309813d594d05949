"""A rank of two in steps whose clips the ranks cannot share evenly: 7, of which a global batch
takes 4 and leaves 3. `main` raises where a clip counts more than another."""

import tiny
import torch
from torch import nn

from octvideo.data.loading.batch import Sample
from octvideo.data.loading.loader import Loader
from octvideo.engine.distributed import Processes
from octvideo.engine.process_group import processes
from octvideo.engine.training.losses import Loss, make_loss
from octvideo.engine.training.state import TrainOptions
from octvideo.engine.training.step import Stepper

LOSSES = (make_loss(), make_loss(class_weights=[1.0, 9.0, 3.0]))
STEPS = ((0, 1), (1,), (0,))
"""The batches of a step: both, the one of unequal shares, and the whole one."""


class Clips:
    def __len__(self) -> int:
        return 7

    def fingerprint(self) -> str:
        return ""

    def sample(self, epoch: int, index: int) -> Sample:
        return Sample(tiny.sample(epoch, index), index % tiny.CLASSES, index, f"{index}.mp4")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 6 * 6, tiny.CLASSES))


def of_ranks(procs: Processes, loss: Loss, numbers: tuple[int, ...]) -> list[torch.Tensor]:
    """The gradients of a step, and the mean loss that it reports."""
    loader = Loader(
        Clips(), batch_size=2, shuffle=False, rank=procs.rank, world_size=2, drop_last=False
    )
    batches = list(loader.epoch(0))
    model, options = network(), TrainOptions("unused", max_epoch=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    step = Stepper(model, optimizer, loss, tiny.prepare, options, procs)
    tally = step([batches[number] for number in numbers], 0.0).tally
    mean = torch.tensor(tally.loss / tally.clips, dtype=torch.float32)
    return [*(parameter.grad for parameter in model.parameters()), mean]


def of_all(loss: Loss, numbers: tuple[int, ...]) -> list[torch.Tensor]:
    """What one pass over the clips of the step gives."""
    parts = (range(4), range(4, 7))
    clips = [Clips().sample(0, i) for number in numbers for i in parts[number]]
    model = network()
    logits = model(tiny.prepare(torch.stack([clip.input for clip in clips])))
    mean = loss(logits, torch.tensor([clip.target for clip in clips]))
    mean.backward()
    return [*(parameter.grad for parameter in model.parameters()), mean.detach()]


def main() -> None:
    torch.set_num_threads(1)
    with processes("cpu") as procs:
        for loss in LOSSES:
            for numbers in STEPS:
                torch.testing.assert_close(
                    of_ranks(procs, loss, numbers), of_all(loss, numbers), rtol=1e-4, atol=1e-6
                )
