import pytest
import torch
from torch import nn

from octvideo.layers import Channels, OctTensor
from octvideo.layers.nonlocal_block import NonLocalCross, NonLocalHigh


def open_gate(block: nn.Module) -> nn.Module:
    """The output's gamma starts at zero; here the block must do something."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=0.3)
    return block.eval()


def a_pair() -> OctTensor:
    return OctTensor(torch.randn(2, 8, 3, 6, 6), torch.randn(2, 4, 3, 3, 3))


@pytest.mark.parametrize("block", [NonLocalHigh, NonLocalCross])
def test_a_new_block_is_the_identity(block):
    x = a_pair()

    y = block(Channels(8, 4)).eval()(x)

    assert torch.equal(y.high, x.high)
    assert torch.equal(y.low, x.low)


@pytest.mark.parametrize("pool_after", [False, True])
@pytest.mark.parametrize("block", [NonLocalHigh, NonLocalCross])
def test_a_high_group_of_one_channel_has_an_inner_width(block, pool_after):
    x = OctTensor(torch.randn(2, 1, 3, 6, 6), torch.randn(2, 4, 3, 3, 3))
    y = open_gate(block(Channels(1, 4), pool_after=pool_after))(x)
    assert y.high.shape == x.high.shape
    assert (y.high != x.high).any()


@pytest.mark.parametrize("instantiation", ["softmax", "dot_product"])
@pytest.mark.parametrize("kind", [NonLocalHigh, NonLocalCross])
def test_attention_written_out_position_by_position(kind, instantiation):
    block, x = open_gate(kind(Channels(8, 4), instantiation=instantiation)), a_pair()
    parts = block.attend if kind is NonLocalHigh else block
    names = (
        ("conv_theta", "conv_phi", "conv_g", "conv_out")
        if kind is NonLocalHigh
        else ("theta", "phi", "g", "out")
    )
    theta, phi, g, out = (getattr(parts, name) for name in names)

    with torch.no_grad():
        y = block(x)
        source = nn.functional.max_pool3d(x.high if kind is NonLocalHigh else x.low, (1, 2, 2))
        q, k, v = (t.flatten(2) for t in (theta(x.high), phi(source), g(source)))
        gathered = torch.zeros_like(q)
        for n in range(q.shape[0]):
            for i in range(q.shape[2]):
                scores = torch.stack([q[n, :, i] @ k[n, :, j] for j in range(k.shape[2])])
                weights = (
                    (scores * 4**-0.5).softmax(0)
                    if instantiation == "softmax"
                    else scores / k.shape[2]
                )
                gathered[n, :, i] = v[n] @ weights
        expected = x.high + parts.norm(out(gathered.reshape(2, 4, 3, 6, 6)))

    torch.testing.assert_close(y.high, expected)
    assert torch.equal(y.low, x.low)


@pytest.mark.parametrize("kind", [NonLocalHigh, NonLocalCross])
def test_a_map_smaller_than_the_pool_keeps_one_position(kind):
    y = open_gate(kind(Channels(8, 4)))(
        OctTensor(torch.randn(1, 8, 2, 1, 1), torch.randn(1, 4, 2, 1, 1))
    )

    assert y.high.shape == (1, 8, 2, 1, 1)
