"""The time of each layer within its network."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.copies import copied
from octvideo.deploy.merge import MergedOctConv
from octvideo.layers import OctConv2d, OctConv3d

LAYERS = (OctConv2d, OctConv3d, MergedOctConv, nn.Conv2d, nn.Conv3d)


class EagerTimes:
    """Layer times in PyTorch without a compiler. Each call runs the network once; `seconds` is the
    fastest run of each layer, by name.

    A layer is a convolution; an octave convolution is one. Other operations (a norm, a residual
    sum, a pool) count with the layer before them.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model, self.example = copied(model), example
        self.seconds: dict[str, float] = {}
        self.starts: list[tuple[str, float]] = []
        for name in layer_names(model):
            self.model.get_submodule(name).register_forward_pre_hook(self._note(name))
        self()
        self.seconds = {}

    def __call__(self) -> None:
        self.starts = []
        with torch.inference_mode():
            self.model(self.example)
        ends = [start for _, start in self.starts[1:]] + [time.perf_counter()]
        for (name, start), end in zip(self.starts, ends, strict=True):
            self.seconds[name] = min(self.seconds.get(name, float("inf")), end - start)

    def _note(self, name: str) -> Any:
        return lambda module, inputs: self.starts.append((name, time.perf_counter()))


def layer_names(model: nn.Module) -> list[str]:
    """The convolutions of a network, octave or not; those inside an octave one are parts of it."""
    names: list[str] = []
    for name, module in model.named_modules():
        inside = bool(names) and name.startswith(f"{names[-1]}.")
        if isinstance(module, LAYERS) and not inside:
            names.append(name)
    return names
