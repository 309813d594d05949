"""Exponential moving average of a model's parameters and statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ModelAverage:
    """average <- decay * average + (1 - decay) * model each step; integer buffers are copied."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.decay)
            else:
                self.average[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        return self.average

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in self.average.items():
            value.copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """A context in which the model holds the average; afterwards it has its own values again,
        bit for bit."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        try:
            model.load_state_dict(self.average)
            yield
        finally:
            model.load_state_dict(own)
