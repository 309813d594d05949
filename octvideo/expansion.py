"""How large nested values are once every reference is followed: ten lines may stand for 8 ** 10 values."""

import math
from collections.abc import Callable, Iterable
from typing import Any


def items(value: Any) -> Iterable[Any]:
    """What a container holds; nothing for any other value."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple | set) else ()


def expanded_size(value: Any, inside: Callable[[Any], Iterable[Any]] = items) -> float:
    """Values in nested containers; one that is referred to twice counts twice. Infinite where one holds itself.

    Takes as long as there are different containers, and no recursion. inside: what a container holds.
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
