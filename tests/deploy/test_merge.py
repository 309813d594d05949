"""Merged octave layers compute what four convolutions compute."""

import pytest
import torch
from reparametrized import REPARAMETRIZED
from torch.nn.utils.parametrizations import weight_norm

from octvideo import create_model
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.merge import MergedOctConv, merge_convs, mergeable
from octvideo.deploy.merge_choice import Layer
from octvideo.deploy.openvino import compile_layers
from octvideo.layers import Channels, OctConv2d, OctConv3d, OctTensor

PAIR = Channels(12, 4)


def pair(*size: int) -> OctTensor:
    *time, height, width = size
    low = (*time, -(-height // 2), -(-width // 2))
    return OctTensor(torch.randn(2, PAIR.high, *size), torch.randn(2, PAIR.low, *low))


@pytest.mark.parametrize("out", [PAIR, Channels(16)])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2)])
def test_a_merged_image_layer_computes_the_same(out, size, kernel, stride):
    conv, x = OctConv2d(PAIR, out, kernel, stride, kernel // 2), pair(*size)

    with torch.no_grad():
        found, expected = MergedOctConv(conv)(x), conv(x)

    torch.testing.assert_close(found.high, expected.high)
    torch.testing.assert_close(found.low, expected.low) if out.low else None


@pytest.mark.parametrize("size", [(4, 8, 8), (3, 7, 5)])
@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, 2, 2)), ((3, 3, 3), (2, 2, 2))]
)
def test_a_merged_video_layer_computes_the_same(size, kernel, stride):
    conv = OctConv3d(PAIR, PAIR, kernel, stride, tuple(k // 2 for k in kernel))
    x = pair(*size)

    with torch.no_grad():
        found, expected = MergedOctConv(conv)(x), conv(x)

    torch.testing.assert_close(found.high, expected.high)
    torch.testing.assert_close(found.low, expected.low)


def test_layers_that_cannot_be_merged_are_not():
    unmergeable = torch.nn.Sequential(
        OctConv2d(PAIR, PAIR, 3, padding=1),  # an upsampled input would be seen by a 3 x 3
        OctConv2d(16, 16, 1, alpha=(0.0, 0.25)),  # the pair begins: no low input
        OctConv2d(16, 16, 1, groups=4, alpha=(0.25, 0.25)),
        OctConv2d(PAIR, PAIR, 1, stride=2, downsample="stride"),
    )

    assert mergeable(unmergeable) == []


@pytest.mark.parametrize("computed", [*REPARAMETRIZED, weight_norm])
def test_layers_of_computed_weights_are_not_merged_and_the_others_are(computed):
    model = torch.nn.Sequential(OctConv2d(PAIR, PAIR, 1), OctConv2d(PAIR, PAIR, 1))
    computed(model[0].l2h)
    x = pair(8, 8)
    model(x)

    assert mergeable(model) == ["1"]
    merged = merge_convs(model, ["1"]).eval()
    torch.testing.assert_close(merged(x).low, model.eval()(x).low)


def test_layers_with_hooks_are_not_merged():
    conv = OctConv2d(PAIR, PAIR, 1)
    conv.register_forward_hook(lambda module, inputs, output: None)

    assert mergeable(torch.nn.Sequential(conv)) == []


class Doubled(OctConv2d):
    def forward(self, x):
        return super().forward(x).map(lambda part: 2 * part)


class Halved(torch.nn.Conv2d):
    def forward(self, x):
        return super().forward(x) / 2


def test_layers_of_classes_that_compute_in_their_own_way_are_not_merged():
    class Named(OctConv2d):
        pass

    model = torch.nn.Sequential(*(kind(PAIR, PAIR, 1) for kind in (Doubled, OctConv2d, Named)))
    model[1].l2h = Halved(4, 12, 1, bias=False)

    assert mergeable(model) == ["2"]


@pytest.mark.parametrize("name", ["i3d_r26", "slowfast_r26", "resnet26"])
def test_a_network_of_merged_layers_computes_the_same_and_itself_stays(name):
    model = fold_batch_norm(
        create_model(name, alpha=0.25, width_per_group=16, width_rule="int", num_classes=5)
    )
    x = torch.randn(2, 3, 50, 50) if name == "resnet26" else torch.randn(2, 3, 8, 50, 50)
    names = mergeable(model)

    merged = merge_convs(model, names)

    assert len(names) > 8
    assert sum(isinstance(m, MergedOctConv) for m in merged.modules()) == len(names)
    assert mergeable(model) == names
    with torch.no_grad():
        torch.testing.assert_close(merged(x), model(x), rtol=1e-4, atol=1e-5)


def test_layers_that_openvino_measures_together_compute_what_each_does_alone():
    pytest.importorskip("openvino")
    alone = OctConv3d(PAIR, PAIR, (3, 1, 1), padding=(1, 0, 0))
    convs = [alone, MergedOctConv(alone), OctConv3d(PAIR, Channels(16), (1, 1, 1), (1, 2, 2))]
    layers = [Layer(conv).eval() for conv in convs]
    pairs = [pair(4, 8, 8), pair(4, 6, 6), pair(2, 7, 5)]
    inputs = [(x.high, x.low) for x in pairs]

    found = [list(call().values()) for call in compile_layers(layers, inputs)]

    for layer, x, outputs in zip(layers, inputs, found, strict=True):
        for output, expected in zip(outputs, layer(*x), strict=True):
            torch.testing.assert_close(torch.from_numpy(output), expected.detach())
