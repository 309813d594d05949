"""One optimizer step: forward and backward passes over its batches, the check for NaN, gradient
clipping, the update."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from octvideo.engine.distributed import Processes, without_sync
from octvideo.engine.training.losses import Loss, WeightedClasses, hits
from octvideo.engine.training.optim import set_lr
from octvideo.engine.training.records import Tally
from octvideo.engine.training.state import TrainOptions

if TYPE_CHECKING:
    from octvideo.data.loading.batch import Batch

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepOutcome:
    """tally: sums over all ranks. trouble: "loss" or "gradient" if that was not finite; weights and
    buffers are then restored. grad_norm: NaN or infinite where that is so."""

    tally: Tally
    grad_norm: float = math.nan
    trouble: str | None = None


@torch.no_grad()
def copy_all(sources: list[Tensor], targets: list[Tensor]) -> None:
    """Copy each tensor; on a GPU by a kernel per dtype, not per tensor (159 in I3D)."""
    for dtype in {source.dtype for source in sources}:
        torch._foreach_copy_(
            [target for target in targets if target.dtype == dtype],
            [source for source in sources if source.dtype == dtype],
        )


class Stepper:
    """Turns groups of batches into updates of the model. Every rank calls it at the same time."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Loss,
        prepare: Callable[[Tensor], Tensor],
        options: TrainOptions,
        procs: Processes,
        mix: Mix | None = None,
    ) -> None:
        self.optimizer, self.loss, self.prepare, self.mix = optimizer, loss, prepare, mix
        self.options, self.procs, self.model = options, procs, model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.network = procs.wrap(
            cast(nn.Module, torch.compile(model)) if options.compile else model
        )
        self.scaler = torch.amp.GradScaler(
            procs.device.type, enabled=options.amp_dtype == torch.float16
        )

    def __call__(
        self, group: "list[Batch]", lr: float, while_busy: Callable[[], None] = lambda: None
    ) -> StepOutcome:
        """One update from the mean gradient over the clips of the group's batches (gradient
        accumulation) on all ranks; batches and the shares of ranks may differ in size.

        while_busy: called when the last backward pass is queued on the GPU.
        """
        set_lr(self.optimizer, lr, self.options.scale_momentum)
        self.optimizer.zero_grad(set_to_none=True)
        buffers = list(self.model.buffers())
        statistics = [torch.empty_like(buffer) for buffer in buffers]
        copy_all(buffers, statistics)
        outcome = self.step(group, while_busy)
        if outcome.trouble is not None:
            copy_all(statistics, buffers)
        return outcome

    def step(self, group: "list[Batch]", while_busy: Callable[[], None]) -> StepOutcome:
        """Forward and backward passes over the group, and the update if all numbers are finite."""
        tally, of_step = Tally(), self.loss_of(group)
        shares = [len(batch) * self.procs.world_size for batch in group]
        clips = sum(batch.num_global or share for batch, share in zip(group, shares, strict=True))
        for i, batch in enumerate(group):
            with without_sync(self.network) if i < len(group) - 1 else nullcontext():
                loss, part = self.forward(batch, of_step)
                if not math.isfinite(part.loss):
                    return StepOutcome(Tally(), trouble="loss")
                # Behind the mean over ranks, which follows, each clip counts 1 / clips.
                self.scaler.scale(loss / (clips / shares[i])).backward()  # type: ignore[no-untyped-call]
            tally.add(part)
        while_busy()
        return self.update(tally)

    def loss_of(self, group: "list[Batch]") -> Loss:
        """The loss of a batch of this step. That of weighted classes knows the weights of all its
        clips, on all ranks."""
        if not isinstance(self.loss, WeightedClasses):
            return self.loss
        targets = torch.cat([batch.targets for batch in group])
        sums = self.loss.sums(targets.to(self.procs.device))
        weight, clips = self.procs.total(sums)
        return partial(self.loss, mean_weight=weight / clips)

    def forward(self, batch: "Batch", of_step: Loss) -> tuple[Tensor, Tally]:
        """The mean loss of this rank, and sums over all ranks. Waits for the device once."""
        batch = batch.to(self.procs.device)
        inputs, targets = self.as_network_input(batch.inputs), batch.targets
        if self.mix is not None:
            inputs, targets = self.mix(inputs, targets)
        with self.autocast():
            logits = self.network(inputs)
        logits = logits.float()
        loss = of_step(logits, targets)
        clips = len(batch.indices)
        sums = [
            loss.detach() * clips,
            hits(logits, targets, 1),
            hits(logits, targets, 5),
            loss.new_tensor(clips),
        ]
        summed = self.procs.total(torch.stack([value.double() for value in sums]))
        total_loss, hits1, hits5, count = summed.tolist()
        return loss, Tally(clips=count, loss=total_loss, hits1=hits1, hits5=hits5)

    def as_network_input(self, inputs: Tensor) -> Tensor:
        """uint8 -> normalized float, in the model's memory format."""
        prepared = self.prepare(inputs.to(self.procs.device, non_blocking=True))
        if not self.options.channels_last:
            return prepared.contiguous()
        return prepared.contiguous(
            memory_format=torch.channels_last if prepared.ndim == 4 else torch.channels_last_3d
        )

    def autocast(self) -> torch.autocast:
        dtype = self.options.amp_dtype
        return torch.autocast(
            self.procs.device.type, dtype or torch.bfloat16, enabled=dtype is not None
        )

    def update(self, tally: Tally) -> StepOutcome:
        """Clip gradients and update the weights. A gradient that is not finite changes no weight;
        the scaler of fp16 then lowers its scale."""
        self.scaler.unscale_(self.optimizer)
        grad_norm = self.clip()
        finite = math.isfinite(grad_norm)
        # Not left to the scaler: torch's fused SGD makes momentum of whatever memory holds when its
        # first step is one that the scaler skips.
        if finite:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return StepOutcome(tally, grad_norm, None if finite else "gradient")

    def clip(self) -> float:
        """Clip by value, else by norm; returns the L2 norm before that. A norm that is not finite
        is not clipped by value, which would make numbers of infinite gradients."""
        value = self.options.clip_grad_value
        limit = 0.0 if value else self.options.clip_grad_norm
        norm = float(nn.utils.clip_grad_norm_(self.parameters, limit or math.inf))
        if value and math.isfinite(norm):
            nn.utils.clip_grad_value_(self.parameters, value)
        return norm
