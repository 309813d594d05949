"""Norms of others: subclasses of batch norm that treat every channel by itself, as a trial shows.

timm's, for one, are followed by an activation inside the module. What such a class computes is its
own affair; whether it can be split into two norms of fewer channels is tried on random numbers.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from octvideo.octavize.kept import has_hooks

TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BATCH_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def part_of(norm: Any, channels: Sequence[int]) -> Any:
    """The norm of some channels: a copy with their scales and statistics."""
    part = copy.deepcopy(norm)
    part.num_features = len(channels)
    fill(part, norm, channels)
    return part


def fill(norm: Any, source: Any, channels: Sequence[int]) -> None:
    """Give a norm the scales and statistics of these channels of `source`."""
    for name in TENSORS:
        tensor = getattr(source, name, None)
        if tensor is None:
            continue
        part = tensor.detach()[list(channels)] if tensor.dim() else tensor.clone()
        if isinstance(tensor, nn.Parameter):
            part = nn.Parameter(part, tensor.requires_grad)
        setattr(norm, name, part)


def is_per_channel(norm: nn.Module) -> bool:
    """Whether a subclass of batch norm gives for each of two groups what it gives for both
    together, in training and in evaluation."""
    own = {name for name, _ in (*norm.named_parameters(), *norm.named_buffers())}
    if not isinstance(norm, BATCH_NORMS) or own - set(TENSORS) or has_hooks(norm):
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            return all(_agrees(_probe(norm).train(training)) for training in (True, False))
        except Exception:  # whatever a class of others cannot do on a small map
            return False


def _probe(norm: nn.Module) -> Any:
    """A copy on the CPU, with random scales and statistics."""
    probe = copy.deepcopy(norm).to_empty(device="cpu").float()
    for tensor in (*probe.parameters(), *probe.buffers()):
        if tensor.dim():
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.zero_()
    return probe


def _agrees(norm: Any) -> bool:
    channels = list(range(norm.num_features))
    groups = channels[: len(channels) // 2], channels[len(channels) // 2 :]
    parts = [part_of(norm, group) for group in groups]
    positions = (4, 4) if isinstance(norm, nn.BatchNorm2d) else (2, 4, 4)
    x = torch.randn(2, len(channels), *positions)
    out = norm(x.clone())
    pairs = [(out, torch.cat([part(x[:, g]) for part, g in zip(parts, groups, strict=True)], 1))]
    if norm.running_mean is not None:
        pairs.append((norm.running_mean, torch.cat([part.running_mean for part in parts])))
        pairs.append((norm.running_var, torch.cat([part.running_var for part in parts])))
    return out.shape == x.shape and all(torch.allclose(a, b, 1e-4, 1e-5) for a, b in pairs)
