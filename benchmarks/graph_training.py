"""Training on a GPU with a whole step as one CUDA graph.

The kernels of small networks are so short that launching them one by one takes most of the time. All
data lie on the GPU; what a step needs from outside (which samples, where they are cropped, the
learning rate) is copied there by epochs. Without CUDA the same steps run plainly, or compiled.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

BF16 = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16")


def computes_bf16(device: torch.device) -> bool:
    """Whether autocast pays: a CPU without instructions for bfloat16 takes ten times as long."""
    if device.type == "cuda":
        return True
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in BF16)


@dataclass(frozen=True)
class Work:
    """What a network is trained with.

    draw: the random choices of an epoch as integers, (steps, batch, K) on the CPU, by its number
        from 0.
    sample: a row of them, (batch, K) on the device, to inputs and labels. It runs within a graph:
        it computes on the device alone, and shapes do not depend on values.
    tests: inputs of the test samples, made by functions that also run within a graph, and labels.
    lr: the learning rate at a position in epochs.
    """

    epochs: int
    draw: Callable[[int], Tensor]
    sample: Callable[[Tensor], tuple[Tensor, Tensor]]
    tests: Sequence[tuple[Callable[[], Tensor], Tensor]]
    lr: Callable[[float], float]


class Trainee:
    """A network, its optimizer, and its steps as graphs. The model is on its device and in float32;
    it computes in bfloat16 by autocast where `computes_bf16`.

    compiled: by torch.compile, which pays on a CPU with AMX.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, work: Work, compiled: bool = False
    ) -> None:
        self.model, self.optimizer, self.work = model, optimizer, work
        self.network: Any = torch.compile(model) if compiled else model
        self.device = next(model.parameters()).device
        self.bf16 = computes_bf16(self.device)
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        first = work.draw(0)
        self.steps = len(first)
        self.choices = first.to(self.device)
        self.rates = torch.zeros(self.steps, device=self.device)
        self.lr = torch.zeros((), device=self.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.train_sums = torch.zeros(2, device=self.device)
        self.test_sums = torch.zeros(2, device=self.device)
        for group in optimizer.param_groups:
            group["lr"] = self.lr
        # Kernels are chosen and buffers made by steps at rate 0, whose traces are then removed.
        before = {key: value.clone() for key, value in model.state_dict().items()}
        if self.stream:
            torch.cuda.synchronize()
        with self._on_stream():
            self.step = self._graph(self._step)
            self.test = self._graph(self._test)
        moments = [dict.fromkeys(own, 0) for own in self._moments()]
        self.load({"weights": before, "moments": moments, "epoch": 0})

    def state(self) -> dict[str, Any]:
        moments = list(self._moments())
        return {"weights": self.model.state_dict(), "moments": moments, "epoch": self.epoch}

    def _moments(self) -> Iterator[dict[str, Tensor]]:
        """What the optimizer remembers of each parameter."""
        for own in self.optimizer.state.values():
            yield {key: value for key, value in own.items() if isinstance(value, Tensor)}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state, in place: the graphs stay."""
        with torch.no_grad(), self._on_stream():
            for key, value in self.model.state_dict().items():
                value.copy_(state["weights"][key])
            for own, saved in zip(self._moments(), state["moments"], strict=True):
                for key, value in own.items():
                    value.copy_(torch.as_tensor(saved[key]))
        if self.stream:
            self.stream.synchronize()
        self.epoch = state["epoch"]

    def train(self) -> Iterator[dict[str, Any]]:
        """The losses and top-1 of each epoch that is left."""
        while self.epoch < self.work.epochs:
            start = time.time()
            with self._on_stream():
                self._begin(self.epoch)
                for _ in range(self.steps):
                    self.step()
                train = self.train_sums.cpu() / (self.steps * self.choices.shape[1])
                seconds = time.time() - start
                self.test()
                test = self.test_sums.cpu() / sum(len(labels) for _, labels in self.work.tests)
            self.epoch += 1
            shown = {"train": loss_and_top1(train), "test": loss_and_top1(test)}
            yield {"epoch": self.epoch, **shown, "seconds": round(seconds, 2)}

    def _begin(self, epoch: int) -> None:
        rates = [self.work.lr(epoch + step / self.steps) for step in range(self.steps)]
        self.choices.copy_(self.work.draw(epoch))
        self.rates.copy_(torch.tensor(rates))
        for counter in (self.position, self.train_sums, self.test_sums):
            counter.zero_()

    def _step(self) -> None:
        self.model.train()
        inputs, labels = self.work.sample(self.choices.index_select(0, self.position)[0])
        self.lr.copy_(self.rates.index_select(0, self.position)[0])
        self.optimizer.zero_grad(set_to_none=True)
        logits = self._logits(inputs)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.train_sums += hits_and_loss(logits.detach(), labels)
        self.position += 1

    @torch.no_grad()
    def _test(self) -> None:
        self.model.eval()
        for inputs, labels in self.work.tests:
            self.test_sums += hits_and_loss(self._logits(inputs()), labels)

    def _logits(self, inputs: Tensor) -> Tensor:
        with self.autocast():
            return self.network(inputs).float()

    def autocast(self) -> torch.autocast:
        # A cache of casts would keep what the capture of a graph may not keep.
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False
        )

    def _graph(self, call: Callable[[], None]) -> Callable[[], None]:
        for _ in range(2):
            self.position.zero_()
            call()
        self.position.zero_()
        if self.stream is None:
            return call
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            call()
        return graph.replay

    def _on_stream(self) -> Any:
        return torch.cuda.stream(self.stream) if self.stream else nullcontext()


def hits_and_loss(logits: Tensor, labels: Tensor) -> Tensor:
    hits = (logits.argmax(1) == labels).sum()
    return torch.stack([hits, F.cross_entropy(logits, labels, reduction="sum")])


def loss_and_top1(sums: Tensor) -> list[float]:
    hits, loss = sums.tolist()
    return [round(loss, 4), round(100 * hits, 2)]
