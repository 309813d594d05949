"""The high and the low channels of a map."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from octvideo.layers import Channels


@dataclass(frozen=True, slots=True)
class Layout:
    """Indices of the undivided map's channels: those of the high group in its order, and those of
    the low group.

    As kernels come, (0, 1, 2, 3) at alpha 0.25 is high (0, 1, 2), low (3,). Sorted channels, groups
    of a convolution and concatenations have other indices.
    """

    high: tuple[int, ...]
    low: tuple[int, ...] = ()

    @classmethod
    def whole(cls, channels: int) -> "Layout":
        return cls(tuple(range(channels)))

    @property
    def channels(self) -> Channels:
        return Channels(len(self.high), len(self.low))

    @property
    def order(self) -> list[int]:
        """`whole.index_select(1, order)` is the high group, then the low group."""
        return [*self.high, *self.low]

    @property
    def restore(self) -> list[int]:
        """The inverse: puts the concatenated groups into the order of the undivided map."""
        return sorted(range(len(self.order)), key=self.order.__getitem__)

    @property
    def in_order(self) -> bool:
        """High before low, and nothing else is moved."""
        return self.order == sorted(self.order)

    def has_balanced(self, groups: int) -> bool:
        """Each of `groups` equal blocks of channels gives as many to the high group, and in the
        order of blocks.

        What a grouped convolution needs: then its groups can be divided one by one.
        """
        return all(
            _is_balanced(part, self.channels.total, groups) for part in (self.high, self.low)
        )

    def has_whole(self, block: int) -> bool:
        """Each block of `block` channels lies in one group, in order, as group norms need."""
        starts = range(0, self.channels.total, block)
        whole = {tuple(range(start, start + block)) for start in starts}

        def consists_of_blocks(part: tuple[int, ...]) -> bool:
            return all(part[i : i + block] in whole for i in range(0, len(part), block))

        return consists_of_blocks(self.high) and consists_of_blocks(self.low)


def concatenated(layouts: Sequence[Layout]) -> Layout:
    """The layout of maps that are concatenated group by group."""
    high: list[int] = []
    low: list[int] = []
    offset = 0
    for layout in layouts:
        high += [offset + i for i in layout.high]
        low += [offset + i for i in layout.low]
        offset += layout.channels.total
    return Layout(tuple(high), tuple(low))


def divide(
    channels: Channels, *, groups: int = 1, block: int = 1, lost: Tensor | None = None
) -> Layout:
    """Choose the low channels: those with the smallest `lost` (C,), or without it the last.

    groups: as many are taken from each of `groups` equal blocks of channels. block: channels are
    taken in whole blocks. Where the widths are no multiples of either, it is not met, and
    `has_balanced` or `has_whole` is False.
    """
    if any(width % groups for width in channels):
        groups = 1
    if groups > 1 or any(width % block for width in channels):
        block = 1
    size, low = channels.total // groups, []
    for start in range(0, channels.total, size):
        units = [range(i, i + block) for i in range(start, start + size, block)]
        if lost is not None:
            losses = [float(lost[list(unit)].sum()) for unit in units]
            units = [units[i] for i in sorted(range(len(units)), key=lambda i: -losses[i])]
        for unit in units[len(units) - channels.low // groups // block :]:
            low += list(unit)
    chosen = set(low)
    high = tuple(i for i in range(channels.total) if i not in chosen)
    return Layout(high, tuple(sorted(low)))


def _is_balanced(part: Sequence[int], channels: int, groups: int) -> bool:
    if len(part) % groups:
        return False
    share, size = len(part) // groups, channels // groups
    return all(channel // size == i // share for i, channel in enumerate(part))
