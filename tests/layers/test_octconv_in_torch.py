"""Octave layers inside torch's own machinery: the result stays."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from octvideo.layers import OctBatchNorm3d, OctConv3d, OctTensor, merge, save_memory


class TwoLayers(nn.Module):
    """3 -> octave -> merged: the pair begins and ends inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = OctConv3d(3, 8, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False, alpha=(0.0, 0.5))
        self.norm = OctBatchNorm3d(self.first.out_channels)
        self.second = OctConv3d(8, 8, (3, 1, 1), 1, (1, 0, 0), alpha=(0.5, 0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return merge(self.second(self.norm(self.first(OctTensor(x))).map(torch.relu)))


@pytest.fixture
def clip() -> torch.Tensor:
    return torch.randn(2, 3, 4, 14, 15)


@pytest.mark.slow
def test_compiles_without_a_graph_break(clip):
    net = TwoLayers()
    expected = net(clip)

    torch.testing.assert_close(
        torch.compile(net, fullgraph=True, backend="aot_eager")(clip), expected
    )


def test_exports(clip):
    net = TwoLayers().eval()

    exported = torch.export.export(net, (clip,)).module()

    torch.testing.assert_close(exported(clip), net(clip))


def test_checkpointed_activations_give_the_same_gradients(clip):
    net = TwoLayers().eval()
    net(clip).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()

    x = net.norm(net.first(OctTensor(clip)))
    merge(
        checkpoint(lambda pair: net.second(pair.map(torch.relu)), x, use_reentrant=False)
    ).square().sum().backward()

    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])


def test_bfloat16_autocast_keeps_the_result_to_its_precision(clip):
    net = TwoLayers().eval()

    with torch.autocast("cpu", torch.bfloat16):
        half = net(clip)

    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.float(), net(clip), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("saves", [False, True])
def test_torch_func_finds_what_calls_and_gradients_of_each_clip_do(saves, clip):
    net = save_memory(TwoLayers(), saves).eval()
    parameters = dict(net.named_parameters())

    def loss(parameters, clip):
        return torch.func.functional_call(net, parameters, (clip[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, clip)
    with torch.no_grad():
        outputs = torch.func.vmap(lambda x: net(x[None])[0])(clip)

    for i, x in enumerate(clip):
        expected = torch.autograd.grad(loss(parameters, x), net.parameters())
        for ours, theirs in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs, net(clip))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_finds_the_derivative_of_the_other_mode(saves, grad, clip):
    net, direction = save_memory(TwoLayers(), saves).eval(), torch.randn_like(clip)

    with forward_ad.dual_level(), torch.set_grad_enabled(grad):
        found = forward_ad.unpack_dual(net(forward_ad.make_dual(clip, direction))).tangent

    expected = torch.autograd.functional.jvp(net, clip, direction)[1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("group_of_one")
def test_distributed_data_parallel_gives_the_same_gradients(clip):
    net, twin = TwoLayers(), TwoLayers()
    twin.load_state_dict(net.state_dict())

    DistributedDataParallel(net)(clip).square().sum().backward()
    twin(clip).square().sum().backward()

    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_layers_stand_in_a_sequential(clip):
    net = TwoLayers().eval()

    pair = nn.Sequential(net.first, net.norm)(OctTensor(clip))

    assert torch.equal(pair.low, net.norm(net.first(OctTensor(clip))).low)
