"""How large nested values are once every reference is followed: ten lines may stand for 8 ** 10
values."""

import math
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Any

# values, and bytes of tensors, per byte of file: tied weights are stored once and count twice
GROWTH = 4


class ExpansionError(Exception):
    """Values stand for more than their file explains."""

    def __init__(self) -> None:
        super().__init__("its values repeat each other without bound")


def items(value: Any) -> Iterable[Any]:
    """What a container holds; nothing for any other value."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple | set) else ()


def expanded_size(value: Any, inside: Callable[[Any], Iterable[Any]] = items) -> float:
    """Values in nested containers; one that is referred to twice counts twice. Infinite where one
    holds itself.

    Takes as long as there are different containers, and no recursion. inside: what a container
    holds.
    """
    sizes: dict[int, float] = {}
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        node, done = stack.pop()
        held = inside(node)
        if done:
            sizes[id(node)] = 1.0 + sum(sizes.get(id(child), 1.0) for child in held)
        elif held and id(node) not in sizes:
            sizes[id(node)] = math.inf  # until it is counted, so that what holds itself is endless
            stack.append((node, True))
            stack += [(child, False) for child in held]
    return sizes.get(id(value), 1.0)


class BoundedUnpickler(pickle._Unpickler):
    """An unpickler that allocates no more than a small multiple of the file. A subclass says what
    may be built.

    It is the one in Python, because the one in C allocates what an opcode claims.
    """

    def __init__(self, file: Any, num_bytes: int) -> None:
        super().__init__(file, encoding="latin1")
        self._left = GROWTH * num_bytes + 1000  # values that may still be copied

    def charge(self, value: Any) -> None:
        """Of a value that is about to be copied, which a few bytes of pickle could ask for a
        million times."""
        self._left -= len(value)
        if self._left < 0:
            raise ExpansionError

    def byte_array(self) -> None:
        """As bytes; the unpickler of Python, too, would allocate what this opcode claims."""
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(self.read(size))  # type: ignore[attr-defined]

    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: byte_array}  # type: ignore[assignment]
