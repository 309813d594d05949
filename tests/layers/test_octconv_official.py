"""Against what the official MXNet code (facebookresearch/OctConv, gluon layer) computed, odd sizes
included."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octvideo.layers import Channels, OctConv2d, OctConv3d, OctTensor

# 18 of the 28 cases, one sample each; ../shared/oracles holds them all.
GOLDEN = Path(__file__).parent.parent / "golden" / "octconv2d_official"


def read_cases(stem: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    return json.loads(stem.with_suffix(".json").read_text()), dict(
        np.load(stem.with_suffix(".npz"))
    )


def build(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> OctConv2d:
    conv = OctConv2d(
        Channels(*case["c_in"]),
        Channels(*case["c_out"]),
        case["kernel"],
        case["stride"],
        case["padding"],
        groups=case["groups"],
        bias=case["bias"],
        downsample="pool",
    )
    prefix = case["name"] + "/"
    weights = {
        key.removeprefix(prefix): torch.from_numpy(a)
        for key, a in arrays.items()
        if key.startswith(prefix)
    }
    conv.load_state_dict({key: a for key, a in weights.items() if key[:2] not in ("x_", "y_")})
    return conv


def pair(case: dict[str, Any], arrays: dict[str, np.ndarray], letter: str) -> OctTensor:
    high, low = (arrays.get(f"{case['name']}/{letter}_{group}") for group in ("high", "low"))
    return OctTensor(torch.from_numpy(high), None if low is None else torch.from_numpy(low))


def assert_pairs_close(got: OctTensor, expected: OctTensor) -> None:
    torch.testing.assert_close(got.high, expected.high, atol=1e-5, rtol=0)
    assert (got.low is None) == (expected.low is None)
    if expected.low is not None:
        torch.testing.assert_close(got.low, expected.low, atol=1e-5, rtol=0)


def as_3d(conv: OctConv2d) -> OctConv3d:
    """The same layer on a clip: every kernel gets a temporal extent of 1."""
    k, s, p = (
        (first, *size)
        for first, size in ((1, conv.kernel_size), (1, conv.stride), (0, conv.padding))
    )
    bias = "h2h.bias" in conv.state_dict()
    lifted = OctConv3d(
        conv.in_channels, conv.out_channels, k, s, p, 1, conv.groups, bias, downsample="pool"
    )
    lifted.load_state_dict(
        {n: w.unsqueeze(2) if w.dim() == 4 else w for n, w in conv.state_dict().items()}
    )
    return lifted


@pytest.mark.parametrize("case", read_cases(GOLDEN)[0], ids=lambda case: case["name"])
def test_golden_cases_equal_the_official_layer_in_2d_and_in_3d(case):
    arrays = read_cases(GOLDEN)[1]
    conv, x, expected = build(case, arrays), pair(case, arrays, "x"), pair(case, arrays, "y")

    with torch.no_grad():
        flat = conv(x)
        deep = as_3d(conv)(x.map(lambda t: t.unsqueeze(2).repeat(1, 1, 3, 1, 1)))

    assert_pairs_close(flat, expected)
    for frame in range(3):
        assert_pairs_close(deep.map(lambda t, i=frame: t[:, :, i]), expected)


def test_every_official_case_is_met(shared):
    cases, arrays = read_cases(shared / "oracles" / "octconv2d_official")

    assert len(cases) == 28
    for case in cases:
        with torch.no_grad():
            assert_pairs_close(
                build(case, arrays)(pair(case, arrays, "x")), pair(case, arrays, "y")
            )
