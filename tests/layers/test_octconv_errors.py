"""Each mistake says what was got, the rule, and what to do."""

import pytest

from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctConv2d, OctConv3d


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OctConv3d(8, 8, 3, alpha=(1.0, 0.5)), r"alpha is 1.0; .* lies in \[0, 1\)"),
        (lambda: OctConv3d(8, 8, 3, alpha=(0.5, -0.5)), r"alpha is -0.5"),
        (
            lambda: OctConv2d(12, 12, 1, groups=4, alpha=(0.5, 0.5)),
            (
                "got groups=4 for 6\\+6 -> 6\\+6 channels; groups must divide every branch: choose"
                " another alpha"
            ),
        ),
        (lambda: OctConv2d(8, 9, 1, groups=2), "groups=2 for 8 -> 9 channels"),
        (
            lambda: OctConv2d(8, 8, 1, groups=8, alpha=(0.5, 0.25)),
            "depthwise .* give alpha_in = alpha_out",
        ),
        (
            lambda: OctConv2d(8, 8, 3, 3, 1, alpha=(0.5, 0.5)),
            r"stride \(3, 3\); .* the spatial stride is 1 or 2",
        ),
        (
            lambda: OctConv2d(8, 8, 3, (1, 2), 1),
            r"stride \(1, 2\); height and width are strided alike",
        ),
        (
            lambda: OctConv2d(8, 8, 3, alpha=(0.5, 0.5)),
            r"kernel \(3, 3\) with padding \(0, 0\); .* padded by k // 2",
        ),
        (lambda: OctConv2d(8, 8, 2, padding=1, alpha=(0.5, 0.5)), "odd kernel"),
        (lambda: OctConv3d(8, 8, (3, 3)), r"size \(3, 3\); give one int or 3 of them"),
        (
            lambda: OctConv2d(Channels(4, 4), 8, 1, alpha=(0.5, 0.5)),
            "alpha=0.5; Channels are split already: leave alpha out, or give an int",
        ),
    ],
)
def test_a_layer_that_cannot_be_is_refused_in_one_line(build, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build()

    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_resnext_groups_can_be_built_where_they_divide_the_branches(alpha):
    conv = OctConv2d(128, 128, 3, 1, 1, groups=32, alpha=(alpha, alpha))

    assert all(path.groups == 32 for path in conv.paths.values())


def test_resnext_groups_cannot_be_built_at_an_eighth():
    with pytest.raises(ConfigError, match="groups=32 for 112\\+16"):
        OctConv2d(128, 128, 3, 1, 1, groups=32, alpha=(0.125, 0.125))
