"""Residual blocks in both orders of activation, basic ones, and squeeze-excite."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from octvideo.layers import Channels, OctConv2d, OctTensor
from octvideo.layers.squeeze_excite import SqueezeExcite
from octvideo.models.blocks import (
    BasicBlock,
    BlockStyle,
    Bottleneck,
    concatenate,
    init_weights,
    make_stage,
)

C = Channels


def pair(channels, size=8, frames=None):
    time = () if frames is None else (frames,)
    low = torch.randn(2, channels.low, *time, size // 2, size // 2) if channels.low else None
    return OctTensor(torch.randn(2, channels.high, *time, size, size), low)


def randomise(module):
    """Batch norms that do something."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d) and norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return module.eval()


@pytest.mark.parametrize("block", [Bottleneck, BasicBlock])
@pytest.mark.parametrize("kind", ["post", "preact"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("se", [False, True])
def test_blocks_work_on_images_and_clips(block, kind, dims, se):
    style = BlockStyle(dims=dims, kind=kind, downsample="pool", se=se)
    layer = block(style, C(12, 4), C(6, 2), C(24, 8), stride=2)
    x = pair(C(12, 4), frames=3 if dims == 3 else None)

    out = layer(x)

    assert out.high.shape[-2:] == (4, 4)
    assert (out.high.shape[1], out.low.shape[1], out.low.shape[-1]) == (24, 8, 2)


def test_a_post_activation_basic_block_is_two_convolutions_and_the_input():
    block = randomise(BasicBlock(BlockStyle(dims=2), C(8), C(8), C(8)))
    x = pair(C(8))
    first, second = block.first, block.second

    hidden = F.relu(first.bn.high(F.conv2d(x.high, first.conv.h2h.weight, padding=1)))
    expected = F.relu(second.bn.high(F.conv2d(hidden, second.conv.h2h.weight, padding=1)) + x.high)

    torch.testing.assert_close(block(x).high, expected)


def test_a_pre_activation_basic_block_leaves_its_input_alone():
    block = randomise(BasicBlock(BlockStyle(dims=2, kind="preact"), C(8), C(8), C(8)))
    x = pair(C(8))
    first, second = block.first, block.second

    hidden = F.conv2d(F.relu(first.bn.high(x.high)), first.conv.h2h.weight, padding=1)
    expected = F.conv2d(F.relu(second.bn.high(hidden)), second.conv.h2h.weight, padding=1) + x.high

    torch.testing.assert_close(block(x).high, expected)


def test_a_shortcut_projects_where_the_shape_changes_only():
    same = Bottleneck(BlockStyle(dims=2), C(12, 4), C(4), C(12, 4))
    other_groups = Bottleneck(BlockStyle(dims=2), C(16), C(4), C(12, 4))

    assert isinstance(same.shortcut, nn.Identity)
    assert not isinstance(other_groups.shortcut, nn.Identity)


@pytest.mark.parametrize(
    ("options", "strides"),
    [({}, (1, 2, 1)), ({"stride_1x1": True}, (2, 1, 1)), ({"stride_last": True}, (1, 1, 2))],
)
def test_the_stride_sits_where_the_style_says(options, strides):
    block = Bottleneck(BlockStyle(dims=2, **options), C(8), C(4), C(8), stride=2)

    assert (
        tuple(layer.conv.stride[0] for layer in (block.reduce, block.spatial, block.expand))
        == strides
    )


def test_post_activation_se_blocks_whiten_what_enters_and_preactivation_ones_do_not():
    post = Bottleneck(BlockStyle(dims=2, se=True), C(8), C(4), C(16))
    preact = Bottleneck(BlockStyle(dims=2, se=True, kind="preact"), C(8), C(4), C(16))

    whitened = {name for name, _ in post.named_modules() if name.endswith("whiten")}
    assert whitened == {"reduce.whiten", "shortcut.whiten"}
    assert not any(
        name.startswith(("reduce.whiten", "shortcut.whiten")) for name, _ in post.named_parameters()
    )
    assert not any("whiten" in name for name, _ in preact.named_modules())


def test_one_squeeze_over_both_groups_gates_each():
    excite = SqueezeExcite(C(24, 8))
    x = pair(C(24, 8))

    out = excite(x)

    averages = torch.cat([x.high.mean((2, 3)), x.low.mean((2, 3))], 1)
    hidden = F.relu(averages @ excite.squeeze.weight.T + excite.squeeze.bias)
    gate = torch.sigmoid(hidden @ excite.gate_low.weight.T + excite.gate_low.bias)
    assert hidden.shape == (2, 2)
    torch.testing.assert_close(out.low, x.low * gate[:, :, None, None])


def test_modules_follow_their_blocks_under_the_given_name():
    after = {1: nn.Identity()}
    kernels_t = (1, 1, 1)

    stage = make_stage(
        BlockStyle(dims=2), C(8), C(4), C(8), kernels_t=kernels_t, after=after, after_name="glore"
    )

    assert [name for name, _ in stage.named_children()] == ["block0", "block1", "glore1", "block2"]


@pytest.mark.parametrize(
    ("a", "b", "low"),
    [(C(4, 2), C(3, 1), 3), (C(4), C(3, 1), 1), (C(4, 2), C(3), 2), (C(4), C(3), 0)],
)
def test_pairs_are_concatenated_per_group(a, b, low):
    out = concatenate(pair(a), pair(b))

    assert out.high.shape[1] == 7
    assert (0 if out.low is None else out.low.shape[1]) == low


def test_all_paths_are_drawn_by_the_fan_out_of_the_undivided_kernel():
    conv = OctConv2d(256, 128, 3, 1, 1, alpha=0.75)

    init_weights(nn.Sequential(conv), zero_init_final_bn=False)

    spreads = {name: path.weight.std().item() for name, path in conv.paths.items()}
    expected = (2 / (128 * 9)) ** 0.5
    assert spreads == pytest.approx(dict.fromkeys(("h2h", "h2l", "l2h", "l2l"), expected), rel=0.05)
