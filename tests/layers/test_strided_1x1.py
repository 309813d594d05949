"""Strided 1 x 1 convolutions of few channels, whose gradient oneDNN computes wrongly on AVX2."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from octvideo.layers import OctConv2d, OctTensor
from octvideo.layers.conv3d_as_2d import Conv3d, compute_in_2d
from octvideo.layers.space_to_depth import Conv2d
from octvideo.layers.strided_1x1 import REGISTER, pixels_seen

# oneDNN takes the form that is wrong where the stride divides height and width.
IN_2D = {"layout": torch.channels_last, "sizes": (16, 12)}
IN_3D = {"layout": torch.channels_last_3d, "sizes": (3, 16, 12)}


def gradients(conv, x, weight, layout):
    """Of input and weights, where both are channels-last."""
    x, weight = (v.contiguous(memory_format=layout).requires_grad_() for v in (x, weight))
    out = conv(x, weight)
    torch.manual_seed(1)
    return torch.autograd.grad(
        out, (x, weight), torch.randn(out.shape, dtype=torch.float64).to(out)
    )


@pytest.mark.parametrize("channels", range(1, REGISTER + 2))
@pytest.mark.parametrize(
    ("kind", "stride"),
    [(Conv2d, (2, 2)), (Conv2d, (1, 3)), (Conv3d, (2, 2, 2)), (nn.Conv2d, (2, 2))],
)
def test_gradients_of_a_strided_1x1_are_those_of_float64(channels, kind, stride):
    case = IN_3D if kind is Conv3d else IN_2D
    layer = compute_in_2d(kind(channels, 9, 1, stride, bias=False), True)
    torch.manual_seed(0)
    x = torch.randn(16, channels, *case["sizes"])
    plain = F.conv3d if kind is Conv3d else F.conv2d

    def call(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, x)

    found = gradients(call, x, layer.weight.data, case["layout"])

    exact = x.double(), layer.weight.data.double()
    expected = gradients(lambda x, weight: plain(x, weight, stride=stride), *exact, case["layout"])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_of_networks_of_others_only_such_layers_are_exchanged():
    others = {"wide": (8, 4, 1, 2), "unstrided": (4, 4, 1), "window": (4, 4, 3, 2)}
    model = nn.ModuleDict({name: nn.Conv2d(*sizes) for name, sizes in others.items()})
    model["few"] = nn.Conv2d(4, 4, 1, 2)

    compute_in_2d(model, False)
    assert {type(layer) for layer in model.values()} == {nn.Conv2d}
    compute_in_2d(model)

    assert {name for name, layer in model.items() if type(layer) is Conv2d} == {"few"}


def test_a_weight_that_is_computed_is_computed_once_a_call():
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            self.calls += 1
            return weight

    conv = Conv2d(4, 4, 3, 2)
    parametrize.register_parametrization(conv, "weight", counted := Counted(), unsafe=True)

    conv(torch.randn(1, 4, 8, 8))

    assert counted.calls == 1


@pytest.mark.parametrize("groups", [1, 3])
def test_the_output_is_that_of_the_strided_convolution(groups):
    layer = Conv2d(6, 9, 1, 2, groups=groups)
    x = torch.randn(2, 6, 7, 8)

    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, 2, groups=groups))


def test_an_octave_network_that_strides_trains_its_few_low_channels(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "octvideo.layers.space_to_depth.pixels_seen",
        lambda *args: seen.append(found := pixels_seen(*args)) or found,
    )
    conv = OctConv2d(16, 32, 1, stride=2, alpha=(0.25, 0.25), downsample="stride", bias=False)

    out = conv(OctTensor(torch.randn(4, 12, 16, 16), torch.randn(4, 4, 8, 8)))
    (out.high.sum() + out.low.sum()).backward()

    assert (1, 1) in [tuple(stride) for _, stride in seen]


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "recorded"),
    [
        (REGISTER, 1, (0, 0), True),
        (2, 3, (1, 1), True),
        (2, 1, (1, 1), True),  # whose border sees no pixel
        (2, 1, (0, 0), False),
    ],
)
def test_others_stay_as_they_are(channels, kernel, padding, recorded):
    x, weight = torch.randn(1, channels, 8, 8), torch.randn(4, channels, kernel, kernel)

    with torch.set_grad_enabled(recorded):
        seen, stride = pixels_seen(x, weight, (2, 2), padding)

    assert seen is x
    assert stride == (2, 2)
