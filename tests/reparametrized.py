"""Layers whose weight a hook of torch computes before each call."""

import warnings
from collections.abc import Callable

import pytest
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm


def with_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        return weight_norm(layer)


def pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)


def pruned_twice(layer: nn.Module) -> nn.Module:
    return pruned(pruned(layer))


KINDS: list[Callable[[nn.Module], nn.Module]] = [
    with_weight_norm,
    spectral_norm,
    pruned,
    pruned_twice,
]
REPARAMETRIZED = [pytest.param(kind, id=kind.__name__) for kind in KINDS]
