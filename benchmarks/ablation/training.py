"""Examples in memory, and their order; the optimizer step is the package's.

`octvideo.fit` trains on files, epoch by epoch, with crops drawn per sample. The recorded studies
keep small uint8 clips in memory, let batches cross the border of two epochs, and draw crops from
the generator that orders the examples. The package has no use for either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from octvideo.data.loading.batch import Batch
from octvideo.data.transforms import normalize
from octvideo.engine.distributed import Processes
from octvideo.engine.training.losses import hits, make_loss
from octvideo.engine.training.optim import Schedule, make_optimizer
from octvideo.engine.training.state import TrainOptions
from octvideo.engine.training.step import Stepper

MEAN, STD = [0.45] * 3, [0.225] * 3


@dataclass(frozen=True)
class Examples:
    """inputs: uint8 (N, 3, T, H, W) or (N, 3, H, W); targets: int64 (N,)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def share(self, number: int, count: int) -> "Examples":
        """The `number`-th `count` examples, from 1."""
        part = slice((number - 1) * count, number * count)
        if len(self.targets[part]) < count:
            raise ValueError(
                f"there are {len(self)} examples, too few for {number} shares of {count}"
            )
        return Examples(self.inputs[part], self.targets[part])


@dataclass(frozen=True)
class Recipe:
    """Cosine to 0 over `steps` steps after a tenth of warm-up; SGD, Nesterov .9; bf16 as in mixed
    precision."""

    steps: int
    batch_size: int
    lr: float
    weight_decay: float = 1e-4


Vary = Callable[[Tensor, torch.Generator], Tensor]
"""(uint8 batch, generator) -> the batch as training sees it."""


def train(
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    seed: int,
    vary: Vary,
    look: Callable[[int, float], None],
) -> None:
    """Train in place; `look(step, loss)` after every step. The order of examples follows from
    `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = make_optimizer(model, lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = Schedule("cosine", recipe.lr, recipe.steps, warmup=recipe.steps / 10)
    options = TrainOptions(output_dir="", max_epoch=0, amp_dtype=torch.bfloat16)
    prepare = partial(normalize, mean=MEAN, std=STD)
    step = Stepper(model, optimizer, make_loss(), prepare, options, Processes())
    waiting = torch.empty(0, dtype=torch.int64)
    for number in range(recipe.steps):
        while len(waiting) < recipe.batch_size:
            waiting = torch.cat([waiting, torch.randperm(len(examples), generator=generator)])
        chosen, waiting = waiting[: recipe.batch_size], waiting[recipe.batch_size :]
        inputs = vary(examples.inputs[chosen], generator)
        batch = Batch(inputs, examples.targets[chosen], chosen, [])
        model.train()
        outcome = step([batch], schedule.lr(number))
        if outcome.trouble is not None:
            raise FloatingPointError(f"step {number + 1}: the {outcome.trouble} is not finite")
        look(number + 1, outcome.tally.means()["loss"])


@torch.no_grad()
def scores(model: nn.Module, inputs: Tensor, batch_size: int = 64) -> Tensor:
    """Logits (N, classes) in evaluation."""
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat(
            [model(normalize(part, MEAN, STD)).float() for part in inputs.split(batch_size)]
        )


def accuracy(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Top-1 in per cent and the mean loss."""
    logits = scores(model, inputs)
    return 100 * hits(logits, targets, 1).item() / len(targets), make_loss()(logits, targets).item()
