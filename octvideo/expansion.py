"""The size of nested values with every reference followed: ten lines can grow to 8 ** 10 values."""

import math
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Any

# values, and bytes of tensors, per byte of file: tied weights are stored once and count twice
GROWTH = 4


class ExpansionError(Exception):
    """Values expand to more than the size of their file explains."""

    def __init__(self) -> None:
        super().__init__("its values repeat each other without bound")


def items(value: Any) -> Iterable[Any]:
    """The items of a container; none for any other value."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple | set) else ()


def expanded_size(value: Any, inside: Callable[[Any], Iterable[Any]] = items) -> float:
    """The number of values in nested containers; a value that is referred to twice counts twice.
    Infinite if a container holds itself.

    The time is linear in the number of different containers, without recursion. inside: the
    function that returns a container's items.
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
    """An unpickler that allocates at most a small multiple of the file. A subclass defines what may
    be built.

    It is the pure Python one, because the C one allocates what an opcode claims.
    """

    def __init__(self, file: Any, num_bytes: int) -> None:
        super().__init__(file, encoding="latin1")
        self._left = GROWTH * num_bytes + 1000  # values that may still be copied

    def charge(self, value: Any) -> None:
        """Count the bytes of a value that is about to be copied, since a few bytes of pickle could
        request a million copies."""
        self._left -= len(value)
        if self._left < 0:
            raise ExpansionError

    def byte_array(self) -> None:
        """Load as bytes: Python's unpickler would allocate the size that this opcode claims."""
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(self.read(size))  # type: ignore[attr-defined]

    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: byte_array}  # type: ignore[assignment]
