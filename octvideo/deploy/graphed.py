"""A network of one-pass kernels, recorded once per input shape and played back as a CUDA graph."""

import threading
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from octvideo.copies import copied
from octvideo.errors import ConfigError
from octvideo.layers import channels_last
from octvideo.layers.fused import fuse, runs_on

WARM_UP = 3
"""Calls before a graph is recorded: kernels choose their tiles, and libraries their workspaces."""


class Evaluating(nn.Module):
    """Holds a network that stays in evaluation mode, whatever the mode of the module around it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval()

    def train(self, mode: bool = True) -> Self:
        self.training = mode
        return self


class Graphed(Evaluating):
    """The module without gradients; on a GPU, one CUDA graph for each shape of its input.

    Any number of threads may call it; they take turns. Each shape keeps its graph, with the memory
    of its maps, until the module is freed. A pickle holds the network alone.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._graphs: dict[Any, Callable[[Tensor], Tensor]] = {}

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return self.model(x)
        with self._lock, torch.cuda.device(x.device):
            kind = (x.shape, x.dtype, x.device)
            if kind not in self._graphs:
                self._graphs[kind] = _record(self.model, x)
            return self._graphs[kind](x)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_graphs")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()


def _record(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    held, graph, stream = x.clone(), torch.cuda.CUDAGraph(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            model(held)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        out = model(held)

    def play(x: Tensor) -> Tensor:
        held.copy_(x)
        graph.replay()
        return out.clone()

    return play


def fused_engine(model: nn.Module, example: Tensor) -> nn.Module:
    """Raises ConfigError where the kernels do not run: without a GPU or without Triton."""
    if not runs_on(example.device):
        raise ConfigError(
            f"engine fused needs a GPU and Triton, and the example is on {example.device.type};"
            " take engine auto"
        )
    # A copy: what `optimize` compares with stays plain.
    return Graphed(fuse(channels_last(copied(model))))
