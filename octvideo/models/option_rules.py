"""What the options of networks may be: their choices, and one table of the numbers of all families.

A family from outside the package may call both checks, or have rules of its own.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from octvideo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rule:
    """words: what fits, as an error says it."""

    words: str
    fits: Callable[[Any], bool]


def whole(least: int) -> Rule:
    """Whole numbers from `least` on, numpy's included; not True and False."""

    def fits(value: Any) -> bool:
        return _is_number(value, Integral) and value >= least

    return Rule(f"a whole number of at least {least}", fits)


def number(words: str, in_range: Callable[[Any], bool]) -> Rule:
    """Finite numbers."""

    def fits(value: Any) -> bool:
        return _is_number(value, Real) and math.isfinite(value) and in_range(value)

    return Rule(f"a number {words}", fits)


def entries(entry: Rule, *, kind: type = Sequence, count: int = 0, of: str = "") -> Rule:
    """Lists of `count` entries (any number by default); `of` says what they stand for."""

    def fits(value: Any) -> bool:
        is_list = isinstance(value, kind) and not isinstance(value, str | bytes)
        return is_list and (not count or len(value) == count) and all(map(entry.fits, value))

    return Rule(f"a list{of and f' with {of}'}, each {entry.words}", fits)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


STAGES: dict[str, Any] = {"count": 4, "of": "an entry for each of res2..res5"}
TEMPORAL_KERNELS = entries(whole(0), **STAGES)
LOCATION = entries(entries(whole(0), kind=Collection), **STAGES)
ABOVE_0 = number("above 0", lambda value: value > 0)

# alpha has a rule in octvideo.layers, `check_alpha`. None fits where it is the default.
NUMBERS = {
    **dict.fromkeys(("num_classes", "in_channels", "num_frames", "crop_size"), whole(1)),
    **dict.fromkeys(("width_per_group", "num_groups", "bottleneck_width"), whole(1)),
    **dict.fromkeys(("growth_rate", "stem_width"), whole(1)),
    "width": ABOVE_0,
    "bn_eps": ABOVE_0,
    "dropout_rate": number("in [0, 1)", lambda value: 0 <= value < 1),
    "fc_init_std": number("of at least 0", lambda value: value >= 0),
    "blocks": entries(whole(1)),
    "layers": entries(whole(0)),
    "stages": entries(whole(2), of="neighbors from 2 to 5"),
    "glore_location": entries(whole(0), kind=Collection),
    "stem_pool_padding": whole(0),
    "stem_strides_t": entries(
        whole(1), count=2, of="the strides in time of the stem's convolution and of its pool"
    ),
    "num_block_temp_kernel": TEMPORAL_KERNELS,
    "num_block_temp_kernel_fast": TEMPORAL_KERNELS,
    "nonlocal_location": LOCATION,
    "nonlocal_location_fast": LOCATION,
    "nonlocal_pool": entries(whole(1), count=3, of="the sizes in time, height and width"),
    **dict.fromkeys(("speed_ratio", "beta_inv"), whole(1)),
    **dict.fromkeys(("fusion_kernel_size", "fusion_conv_channel_ratio"), whole(1)),
}


def check_numbers(options: Any) -> None:
    """Raise ConfigError for a number, or a list of numbers, that its rule in NUMBERS excludes.

    options: an instance of a dataclass of options.
    """
    for field in fields(options):
        rule, value = NUMBERS.get(field.name), getattr(options, field.name)
        is_silent = value is None and field.default is None
        if rule and not is_silent and not rule.fits(value):
            raise ConfigError(f"{field.name} is {value!r}; it is {rule.words}")


def check_choices(options: object, choices: Mapping[str, Sequence[Any]]) -> None:
    """Raise ConfigError for an option that has none of its choices as its value."""
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            known = ", ".join(map(repr, allowed))
            raise ConfigError(f"{name} is {getattr(options, name)!r}; it is one of {known}")


def scaled(channels: int, factor: float, option: str) -> int:
    """channels * factor, rounded down. Raises ConfigError where none is left: `option`, as "width
    is 0.01", is what made it so small."""
    left = int(channels * factor)
    if left < 1:
        raise ConfigError(
            f"{option}; it leaves none of the {channels} channels of a layer: raise it"
        )
    return left
