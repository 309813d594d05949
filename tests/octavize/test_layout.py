"""Which channels are high and low, and what convolutions in groups and group norms ask of that."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octvideo.layers import Channels
from octvideo.octavize.layout import Layout, concatenated, divide


def test_the_last_channels_are_low_unless_losses_say_otherwise():
    assert divide(Channels(3, 1)) == Layout((0, 1, 2), (3,))
    assert divide(Channels(3, 1), lost=torch.tensor([2.0, 0.5, 3.0, 1.0])) == Layout(
        (0, 2, 3), (1,)
    )


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 4), st.randoms())
def test_groups_are_divided_one_by_one(high, low, groups, random):
    channels = Channels(high * groups, low * groups)
    lost = torch.tensor([random.random() for _ in range(channels.total)])

    layout = divide(channels, groups=groups, lost=lost)

    assert layout.channels == channels
    assert sorted(layout.order) == list(range(channels.total))
    assert layout.has_balanced(groups)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.randoms())
def test_blocks_stay_whole(high, low, block, random):
    channels = Channels(high * block, low * block)
    lost = torch.tensor([random.random() for _ in range(channels.total)])

    layout = divide(channels, block=block, lost=lost)

    assert layout.channels == channels
    assert layout.has_whole(block)


def test_widths_that_are_no_multiples_of_the_groups_are_not_balanced():
    assert not divide(Channels(3, 1), groups=2).has_balanced(2)


@settings(deadline=None)
@given(st.permutations(range(6)), st.integers(0, 6))
def test_restore_undoes_order(order, cut):
    layout = Layout(tuple(order[:cut]), tuple(order[cut:]))
    whole = torch.arange(6)
    assert torch.equal(whole[layout.order][layout.restore], whole)


def test_a_concatenation_has_the_indices_of_its_parts_one_after_the_other():
    layout = concatenated([Layout((1,), (0,)), Layout.whole(2), Layout((0,), (1,))])
    assert layout == Layout((1, 2, 3, 4), (0, 5))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_whole_map_is_balanced(groups):
    assert Layout.whole(4).has_balanced(groups)
