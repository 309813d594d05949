"""Training on a GPU with a whole step as one CUDA graph, many networks beside each other.

Small networks leave a GPU idle between their kernels: a graph launches all kernels of a step at
once, and several networks on streams of their own fill it. All data lie on the GPU; what a step
needs from outside (which samples, where they are cropped, the learning rate) is copied there by
epochs. Without CUDA the same steps run one by one.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

Name = TypeVar("Name")
AHEAD = 40
"""Steps that are queued before another network's are."""


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
    it computes in bfloat16 by autocast."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, work: Work) -> None:
        self.model, self.optimizer, self.work = model, optimizer, work
        self.device = next(model.parameters()).device
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
        self.reset(before)

    def reset(self, state: dict[str, Tensor]) -> None:
        """Start anew from these weights, in place: the graphs stay."""
        with torch.no_grad(), self._on_stream():
            for key, value in self.model.state_dict().items():
                value.copy_(state[key])
            for moments in self.optimizer.state.values():
                if moments.get("momentum_buffer") is not None:
                    moments["momentum_buffer"].zero_()

    def train(self) -> Iterator[dict[str, Any] | None]:
        """Queues some steps at a time and yields None, or the losses and top-1 of an epoch when
        they are there."""
        for epoch in range(self.work.epochs):
            start = time.time()
            self._begin(epoch)
            for done in range(0, self.steps, AHEAD):
                with self._on_stream():
                    for _ in range(min(AHEAD, self.steps - done)):
                        self.step()
                yield None
            train_seconds = time.time() - start
            with self._on_stream():
                self.test()
            # When work is asked for a third time, the first of it has ended.
            yield None
            yield None
            yield self._line(epoch, train_seconds)

    def _begin(self, epoch: int) -> None:
        rates = [self.work.lr(epoch + step / self.steps) for step in range(self.steps)]
        with self._on_stream():
            self.choices.copy_(self.work.draw(epoch))
            self.rates.copy_(torch.tensor(rates))
            for counter in (self.position, self.train_sums, self.test_sums):
                counter.zero_()

    def _line(self, epoch: int, seconds: float) -> dict[str, Any]:
        with self._on_stream():
            train = self.train_sums.cpu() / (self.steps * self.choices.shape[1])
            test = self.test_sums.cpu() / sum(len(labels) for _, labels in self.work.tests)
        pairs = {"train": train.tolist(), "test": test.tolist()}
        rounded = {
            name: [round(loss, 4), round(100 * hits, 2)] for name, (hits, loss) in pairs.items()
        }
        return {"epoch": epoch + 1, **rounded, "seconds": round(seconds, 2)}

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
        # A cache of casts would keep what the capture of a graph may not keep.
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            return self.model(inputs).float()

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


def train_together(
    trainees: Iterable[tuple[Name, Callable[[], Trainee]]], lanes: int
) -> Iterator[tuple[Name, dict[str, Any]]]:
    """Name and line of each epoch, as they come; at most `lanes` networks at a time, each made when
    its turn comes."""
    waiting = deque(trainees)
    under_way: list[tuple[Name, Iterator[dict[str, Any] | None], Queue]] = []
    while waiting or under_way:
        if waiting and len(under_way) < lanes:
            name, make = waiting.popleft()
            trainee = make()
            under_way.append((name, trainee.train(), Queue(trainee.stream)))
        for name, steps, queue in [lane for lane in under_way if lane[2].has_room()]:
            line = next(steps, END)
            if line is END:
                under_way = [lane for lane in under_way if lane[1] is not steps]
            elif line is not None:
                yield name, line
            queue.mark()
        time.sleep(0.0002)


END: Any = object()


class Queue:
    """Keeps a stream busy without hurrying far ahead of it: two pieces of work are queued."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.marks: deque[Any] = deque()

    def has_room(self) -> bool:
        while self.marks and self.marks[0].query():
            self.marks.popleft()
        return len(self.marks) < 2

    def mark(self) -> None:
        if self.stream is not None:
            event = torch.cuda.Event()
            event.record(self.stream)
            self.marks.append(event)
