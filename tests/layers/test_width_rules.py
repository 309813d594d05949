"""How widths are divided. Golden widths are those that meet the FLOPs printed in the paper's Table
6."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octvideo.errors import ConfigError
from octvideo.layers import WIDTH_RULES, Channels, check_alpha

ALPHAS = st.floats(0, 0.999)
SIXTEENS = st.integers(1, 256).map(lambda n: 16 * n)


@given(rule=st.sampled_from(sorted(WIDTH_RULES)), channels=st.integers(1, 4096), alpha=ALPHAS)
def test_the_groups_add_up_and_the_high_one_is_never_empty(rule, channels, alpha):
    high, low = WIDTH_RULES[rule](channels, alpha)

    assert high + low == channels
    assert high >= 1
    assert low >= 0


@given(rule=st.sampled_from(sorted(WIDTH_RULES)), channels=st.integers(1, 4096))
def test_alpha_zero_divides_nothing(rule, channels):
    assert WIDTH_RULES[rule](channels, 0.0) == Channels(channels, 0)


@given(channels=st.integers(1, 4096), alpha=ALPHAS)
def test_int_truncates_the_low_share(channels, alpha):
    assert WIDTH_RULES["int"](channels, alpha).low == int(alpha * channels)


@given(rule=st.sampled_from(["round16", "round16_min16"]), channels=SIXTEENS, alpha=ALPHAS)
def test_rounded_widths_are_multiples_of_16_within_8_of_the_share(rule, channels, alpha):
    high, low = WIDTH_RULES[rule](channels, alpha)

    assert high % 16 == low % 16 == 0
    nearest = abs(low - alpha * channels) <= 8 + 1e-6
    assert nearest or high == 16 or (rule == "round16_min16" and low == 16)


@given(channels=st.integers(2, 256).map(lambda n: 16 * n), alpha=st.floats(0.001, 0.999))
def test_min16_always_leaves_both_groups(channels, alpha):
    high, low = WIDTH_RULES["round16_min16"](channels, alpha)

    assert min(high, low) >= 16


@given(rule=st.sampled_from(sorted(WIDTH_RULES)), channels=st.integers(1, 2048), a=ALPHAS, b=ALPHAS)
def test_more_alpha_never_means_fewer_low_channels(rule, channels, a, b):
    smaller, larger = sorted((a, b))

    assert WIDTH_RULES[rule](channels, smaller).low <= WIDTH_RULES[rule](channels, larger).low


@pytest.mark.parametrize(
    ("rule", "alpha", "widths"),
    [
        (
            "round16",
            0.1,
            {64: (64, 0), 128: (112, 16), 256: (224, 32), 512: (464, 48), 1024: (928, 96)},
        ),
        ("round16", 0.1, {2048: (1840, 208)}),
        (
            "round16",
            0.2,
            {64: (48, 16), 128: (96, 32), 256: (208, 48), 512: (416, 96), 1024: (816, 208)},
        ),
        ("round16", 0.2, {2048: (1632, 416)}),
        ("round16", 0.5, {64: (32, 32), 128: (64, 64), 2048: (1024, 1024)}),
        ("round16_min16", 0.1, {64: (48, 16), 128: (112, 16), 256: (224, 32)}),
        ("int", 0.125, {64: (56, 8), 256: (224, 32)}),
    ],
)
def test_widths_of_the_paper(rule, alpha, widths):
    assert {c: tuple(WIDTH_RULES[rule](c, alpha)) for c in widths} == widths


@pytest.mark.parametrize("alpha", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "0.5", None])
def test_alpha_outside_its_range_is_refused_with_the_rule(alpha):
    with pytest.raises(
        ConfigError, match=r"alpha is .*lies in \[0, 1\); 0 is the plain convolution"
    ):
        check_alpha(alpha)


@pytest.mark.parametrize(("channels", "alpha", "high"), [(200, 0.56, 96), (240, 0.9, 32)])
def test_half_a_step_rounds_up_though_the_share_is_a_little_less_in_binary(channels, alpha, high):
    assert channels * (1 - alpha) % 16 < 8

    assert WIDTH_RULES["round16"](channels, alpha) == Channels(high, channels - high)
