"""A small training loop on examples that lie in memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from octvideo.data.transforms import normalize
from octvideo.engine.training.losses import hits, make_loss
from octvideo.engine.training.optim import Schedule, make_optimizer, set_lr

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
    optimizer, loss_of = (
        make_optimizer(model, lr=recipe.lr, weight_decay=recipe.weight_decay),
        make_loss(),
    )
    schedule = Schedule("cosine", recipe.lr, recipe.steps, warmup=recipe.steps / 10)
    waiting = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.steps):
        while len(waiting) < recipe.batch_size:
            waiting = torch.cat([waiting, torch.randperm(len(examples), generator=generator)])
        chosen, waiting = waiting[: recipe.batch_size], waiting[recipe.batch_size :]
        inputs = normalize(vary(examples.inputs[chosen], generator), MEAN, STD)
        model.train()
        set_lr(optimizer, schedule.lr(step))
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs)
        loss = loss_of(logits.float(), examples.targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        look(step + 1, loss.item())


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
