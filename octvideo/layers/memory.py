"""Saving for the backward pass how a tensor came about instead of the tensor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def recomputed(tensor: Tensor, compute: Callable[[], Tensor]) -> Iterator[None]:
    """Within the block, operations on `tensor` save no copy of it: backward calls `compute` to have it again.

    compute: gives `tensor` bit for bit, from tensors that are saved anyway. Views of `tensor` count as it.
    """
    storage = tensor.untyped_storage().data_ptr()

    def pack(saved: Tensor) -> Any:
        if saved.untyped_storage().data_ptr() != storage:
            return saved
        return saved.size(), saved.stride(), saved.storage_offset()

    def unpack(packed: Any) -> Tensor:
        return packed if isinstance(packed, Tensor) else compute().as_strided(*packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that the graph of `forward()` holds for its backward pass, each memory block once, weights included."""
    blocks: dict[int, int] = {}

    def count(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        blocks[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        forward()
    return sum(blocks.values())
