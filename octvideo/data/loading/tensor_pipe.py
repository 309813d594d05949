"""Pickles through a pipe, whose tensors travel beside them instead of being copied into them."""

import io
import pickle
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor


class _TensorPickler(pickle.Pickler):
    """Tensors as numpy arrays, whose memory travels beside the pickle, not in it."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        if value.dim() > 1 and value.movedim(0, -1).is_contiguous():
            return _channels_first, (value.movedim(0, -1).numpy(),)
        return torch.from_numpy, (value.contiguous().numpy(),)


def _channels_first(array: Any) -> Tensor:
    return torch.from_numpy(array).movedim(-1, 0)


def send(pipe: Connection, message: Any) -> None:
    """Send what `receive` returns at the other end."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _TensorPickler(stream, protocol=5, buffer_callback=buffers.append).dump(message)
    raw = [buffer.raw() for buffer in buffers]
    pipe.send((stream.getvalue(), [len(memory) for memory in raw]))
    for memory in raw:
        pipe.send_bytes(memory)


def receive(pipe: Connection) -> Any:
    """The next message. Only for a process of one's own: pickles run code."""
    pickled, sizes = pipe.recv()
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        pipe.recv_bytes_into(buffer)
    return pickle.loads(pickled, buffers=buffers)
