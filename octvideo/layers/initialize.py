"""Initialization that passes over the meta device: there is nothing to draw, and torch would import
its compiler for it, which takes seconds, or draw in Python."""

from torch import Tensor, nn


def normal_(tensor: Tensor, std: float) -> None:
    if not tensor.is_meta:
        nn.init.normal_(tensor, std=std)


def uniform_(tensor: Tensor, bound: float) -> None:
    """In [-bound, bound]."""
    if not tensor.is_meta:
        nn.init.uniform_(tensor, -bound, bound)


def he_normal_(tensor: Tensor) -> None:
    """He initialization by the fan-out, for a ReLU."""
    if not tensor.is_meta:
        nn.init.kaiming_normal_(tensor, mode="fan_out", nonlinearity="relu")
