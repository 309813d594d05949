"""Numbers among the options: one that is out of range, or no number, is a line before anything is
built."""

import math
from collections.abc import Iterator
from dataclasses import Field, fields
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import torch

from octvideo import create_model, list_models
from octvideo.errors import ConfigError
from octvideo.models.registry import MODELS

WRONG = (0, -1, "1", math.nan, math.inf, True)
# No octave, no dropout, a classifier that starts at zero, an unpadded pool.
ZERO_SAYS_SOMETHING = {"alpha", "dropout_rate", "fc_init_std", "stem_pool_padding"}
# Right ones; with a 0 where blocks are counted from it, or where a stage may have none.
LISTS: dict[str, list[Any]] = {
    "blocks": [1, 1, 1],
    "layers": [1, 0, 1, 1],
    "stages": [2, 3],
    "glore_location": [0],
    "stem_strides_t": [1, 1],
    "num_block_temp_kernel": [0, 1, 1, 1],
    "num_block_temp_kernel_fast": [0, 1, 1, 1],
    "nonlocal_location": [[], [0], [], []],
    "nonlocal_location_fast": [[], [0], [], []],
    "nonlocal_pool": [1, 2, 2],
}


def types_in(kind: Any) -> set[Any]:
    """int and NoneType of `Sequence[int] | None`."""
    parts = [types_in(part) for part in get_args(kind)]
    return set().union(*parts) if parts else {kind}


def numeric_options(name: str) -> Iterator[Field]:
    return (o for o in fields(MODELS[name].options) if types_in(o.type) & {int, float})


def is_list(option: Field) -> bool:
    kinds = get_args(option.type) if isinstance(option.type, UnionType) else (option.type,)
    return any(get_origin(kind) for kind in kinds)


def wrong_values(option: Field) -> Iterator[Any]:
    if not is_list(option):
        yield from (v for v in WRONG if v != 0 or option.name not in ZERO_SAYS_SOMETHING)
        return
    *before, last = LISTS[option.name]
    yield from (*WRONG, "", "23")
    for entry in WRONG[1:]:
        yield [*before, [entry] if isinstance(last, list) else entry]


@pytest.mark.parametrize("name", list_models())
def test_a_number_out_of_range_is_refused_with_option_value_and_rule(name):
    for option in numeric_options(name):
        for value in wrong_values(option):
            with pytest.raises(ConfigError) as caught, torch.device("meta"):
                create_model(name, **{option.name: value})

            assert str(caught.value).startswith(f"{option.name} is {value!r}; ")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list_models())
def test_zero_and_lists_build_where_they_say_something(name):
    options = {
        option.name: LISTS[option.name] if is_list(option) else 0
        for option in numeric_options(name)
        if is_list(option) or option.name in ZERO_SAYS_SOMETHING
    }

    with torch.device("meta"):
        model = create_model(name, **options)

    assert model.config.items() >= options.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonlocal_location": [[0]]}, "a list with an entry for each of res2..res5, each a list"),
        ({"num_block_temp_kernel_fast": (1,)}, "num_block_temp_kernel_fast is (1,); it is a list"),
        ({"nonlocal_pool": (1, 2)}, "a list with the sizes in time, height and width"),
        ({"num_classes": None}, "num_classes is None; it is a whole number of at least 1"),
        ({"num_classes": 2.0}, "num_classes is 2.0; it is a whole number"),
        ({"dropout_rate": 1}, "dropout_rate is 1; it is a number in [0, 1)"),
    ],
)
def test_lists_have_their_lengths_and_numbers_their_kind(options, message):
    with pytest.raises(ConfigError) as caught, torch.device("meta"):
        create_model("slowfast_r26", **options)

    assert message in str(caught.value)


def test_numbers_of_numpy_and_none_for_the_default_are_taken():
    with torch.device("meta"):
        model = create_model(
            "resnet18", num_classes=np.int64(3), dropout_rate=np.float32(0.5), bn_eps=None
        )

    assert model.head.fc.out_features == 3
