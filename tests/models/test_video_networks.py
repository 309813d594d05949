"""What holds of every video network, vanilla and octave. Narrow networks of depth 26; counts on the
meta device."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from octvideo import create_model
from octvideo.errors import ConfigError
from octvideo.layers import Channels, OctBatchNorm3d, OctConv3d, OctTensor, compute_in_2d
from octvideo.layers.nonlocal_block import NonLocalHigh

FAMILIES = ("c2d_r26", "i3d_r26", "slow_r26", "slowfast_r26")
FRAMES = {"c2d": 4, "i3d": 4, "slow": 4, "slowfast": 16}


def narrow(name: str, **options: Any) -> nn.Module:
    """16 channels (SlowFast 32, whose fast pathway has an eighth), 5 classes, in evaluation
    mode."""
    width = 32 if name.startswith("slowfast") else 16
    return create_model(name, **{"num_classes": 5, "width_per_group": width, **options}).eval()


def clip_for(name: str, height: int = 48, width: int = 48, clips: int = 1) -> Tensor:
    return torch.randn(clips, 3, FRAMES[name.partition("_")[0]], height, width)


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options)


# --- Parameters


@pytest.mark.parametrize("name", ["c2d_r26", "i3d_r26", "slowfast_r26"])
def test_parameters_are_as_many_as_in_the_vanilla_network_at_every_alpha(name):
    vanilla = num_parameters(on_meta(name))

    for alpha, rule in itertools.product((0.1, 0.5, 0.75), ("int", "round16", "round16_min16")):
        assert num_parameters(on_meta(name, alpha=alpha, width_rule=rule)) == vanilla


# pytorchvideo's model zoo: C2D 24.33 M, I3D 28.04 M, SlowFast 4x16 34.5 M.
@pytest.mark.parametrize(
    ("name", "millions"), [("c2d_r50", 24.33), ("i3d_r50", 28.04), ("slowfast_r50", 34.48)]
)
def test_parameters_are_the_published_ones(name, millions):
    assert num_parameters(on_meta(name)) / 1e6 == pytest.approx(millions, abs=0.005)


# Five blocks; counted with batch norm. Vanilla 7.35 M, on the high group 6.04 M, high to low 3.34
# M.
@pytest.mark.parametrize(
    ("alpha", "nonlocal_on", "millions"),
    [(0.0, "high", 7.35), (0.1, "high", 6.04), (0.1, "cross", 3.34)],
)
def test_nonlocal_blocks_have_the_parameters_that_were_counted(alpha, nonlocal_on, millions):
    model = on_meta("i3d_nln_r50", alpha=alpha, nonlocal_on=nonlocal_on)

    blocks = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2].startswith("nonlocal")
    ]

    assert len(blocks) == 5
    assert sum(num_parameters(block) for block in blocks) / 1e6 == pytest.approx(millions, abs=0.01)


# --- alpha = 0


class Plain(nn.Module):
    """A torch module on the high group."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: OctTensor) -> OctTensor:
        assert x.low is None
        return OctTensor(self.layer(x.high))


def with_torch_layers(model: nn.Module) -> nn.Module:
    """The network with every octave layer replaced by the torch layer of the same weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, OctConv3d):
            c_in, c_out = module.in_channels.high, module.out_channels.high
            sizes = (module.kernel_size, module.stride, module.padding)
            layer: nn.Module = nn.Conv3d(c_in, c_out, *sizes, groups=module.groups, bias=False)
            layer.load_state_dict(module.h2h.state_dict())
        elif isinstance(module, OctBatchNorm3d):
            layer = module.high
        else:
            continue
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Plain(layer))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_alpha_zero_is_bitwise_the_network_of_plain_torch_layers(name):
    clip = clip_for(name, 33, 40)
    torch.manual_seed(1)
    ours = compute_in_2d(narrow(name, alpha=0.0), on=False)
    torch.manual_seed(1)
    vanilla = compute_in_2d(with_torch_layers(narrow(name, alpha=0.0)), on=False)

    with torch.no_grad():
        assert torch.equal(ours(clip), vanilla(clip))


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("name", FAMILIES)
def test_two_dimensional_kernels_give_what_three_dimensional_ones_do(name, alpha):
    model, clip = wake(narrow(name, alpha=alpha)), clip_for(name, 33, 40)

    with torch.no_grad():
        torch.testing.assert_close(
            compute_in_2d(model)(clip), compute_in_2d(model, on=False)(clip), atol=1e-4, rtol=1e-4
        )


def wake(model: nn.Module) -> nn.Module:
    """Residual branches start at gamma 0, where they say nothing; here they speak."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


# --- Sizes


def pairs_in(model: nn.Module, clip: Tensor) -> Iterator[tuple[str, OctTensor]]:
    """What every module that returns an OctTensor returned."""
    seen: list[tuple[str, OctTensor]] = []

    def make(name: str) -> Any:
        return lambda module, args, out: (
            seen.append((name, out)) if isinstance(out, OctTensor) else None
        )

    handles = [module.register_forward_hook(make(name)) for name, module in model.named_modules()]
    with torch.no_grad():
        model(clip)
    for handle in handles:
        handle.remove()
    yield from seen


@pytest.mark.parametrize("name", [*FAMILIES, "i3d_nln_r26"])
def test_behind_every_layer_the_groups_agree_in_time_and_halve_in_space(name):
    model = narrow(name, alpha=0.5, nonlocal_on="cross")

    pairs = [
        (layer, pair)
        for layer, pair in pairs_in(model, clip_for(name, 91, 75))
        if pair.low is not None
    ]

    assert len(pairs) > 30
    for layer, pair in pairs:
        assert pair.high.shape[2] == pair.low.shape[2], layer
        assert tuple(pair.low.shape[3:]) == tuple(-(-n // 2) for n in pair.high.shape[3:]), layer


@pytest.mark.parametrize("size", [(182, 200), (255, 320)], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_any_size_is_an_input(name, size):
    for alpha, padding in ((0.5, 1), (0.25, 0)):
        model = narrow(name, alpha=alpha, width_rule="int", stem_pool_padding=padding)

        with torch.no_grad():
            logits = model(clip_for(name, *size))

        assert logits.shape == (1, 5)
        assert logits.isfinite().all()


@pytest.mark.parametrize(("padding", "smallest"), [(1, 1), (0, 5)])
@pytest.mark.parametrize(
    ("name", "frames"), [("c2d_r26", 2), ("i3d_r26", 3), ("slow_r26", 1), ("slowfast_r26", 8)]
)
def test_the_smallest_input_leaves_one_position(name, frames, padding, smallest):
    model = narrow(name, alpha=0.5, stem_pool_padding=padding)
    clip = torch.randn(2, 3, frames, smallest, smallest)

    with torch.no_grad():
        assert model(clip).shape == model.window_scores(clip).shape == (2, 5)


def test_training_needs_no_other_call_and_drops_out():
    model = narrow("i3d_r26", alpha=0.5).train()
    clip = clip_for("i3d_r26", clips=2)

    loss = nn.functional.cross_entropy(model(clip), torch.tensor([1, 4]))
    loss.backward()

    assert all(p.grad is not None for p in model.parameters())
    assert not torch.equal(model(clip), model(clip))


def test_every_parameter_of_an_octave_network_moves_the_logits():
    """No kernel is dead: with gammas awake every parameter has a gradient other than zero."""
    for name in (*FAMILIES, "i3d_nln_r26"):
        model = wake(narrow(name, alpha=0.5))
        model(clip_for(name, 64, 64)).square().sum().backward()

        # A bias before a softmax over its own positions, phi's, cancels out.
        silent = [
            n
            for n, p in model.named_parameters()
            if not p.grad.any() and not n.endswith("conv_phi.bias")
        ]
        assert not silent


# --- Options


def every_pair(grid: dict[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Few combinations in which every two values of different options meet (greedy all-pairs)."""
    rows = [tuple(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    waiting = {pair for row in rows for pair in itertools.combinations(row, 2)}
    while waiting:
        row = max(rows, key=lambda row: len(waiting.intersection(itertools.combinations(row, 2))))
        waiting.difference_update(itertools.combinations(row, 2))
        yield dict(row)


OPTIONS = {
    "alpha": (0.0, 0.25, 0.5),
    "width_rule": ("int", "round16_min16"),
    "stages": ((2, 3, 4, 5), (3, 4), (5,)),
    "stride_1x1": (False, True),
    "num_groups": (1, 2),
    "downsample": (None, "pool", "stride"),
}


@pytest.mark.parametrize("options", list(every_pair(OPTIONS)), ids=str)
def test_every_two_options_go_together(options):
    single = on_meta(
        "i3d_nln_r26", num_classes=5, width_per_group=16, nonlocal_on="cross", **options
    )
    double = on_meta("slowfast_r26", num_classes=5, width_per_group=32, **options)

    assert single(torch.empty(1, 3, 4, 33, 40, device="meta")).shape == (1, 5)
    assert double(torch.empty(1, 3, 16, 33, 40, device="meta")).shape == (1, 5)


@pytest.mark.parametrize("name", ["c2d_r26", "i3d_r26"])
@pytest.mark.parametrize("alpha", [0.0, 0.125, 0.5])
def test_preactivation_networks_are_what_the_published_image_weights_are(name, alpha):
    model = narrow(name, block="preact", alpha=alpha, width_per_group=64)

    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, OctConv3d)}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]

    assert {norm.eps for norm in norms} == {1e-4}
    assert all(m.downsample == "pool" for m in convolutions.values() if m.stride[-1] == 2)
    assert [n for n, m in convolutions.items() if m.stride[-1] == 2 and "shortcut" not in n] == [
        f"res{stage}.block0.spatial.conv" for stage in (3, 4, 5)
    ]
    assert convolutions["res4.block1.expand.conv"].out_channels == Channels(
        1024 - int(alpha * 1024), int(alpha * 1024)
    )
    assert convolutions["res5.block0.reduce.conv"].out_channels == Channels(512)
    # Its own BN and ReLU of the block's input, also in front of the shortcut.
    assert type(model.res2.block0.shortcut).__name__ == "NormConv"
    with torch.no_grad():
        assert model(clip_for(name, 47, 33)).shape == (1, 5)


def test_the_stride_sits_where_the_option_says():
    for stride_1x1, place in ((False, "spatial"), (True, "reduce")):
        model = narrow("i3d_r26", stride_1x1=stride_1x1)

        strided = {
            n.split(".")[2]
            for n, m in model.named_modules()
            if isinstance(m, OctConv3d) and m.stride[-1] == 2
        }

        assert strided == {place, "shortcut"}


def test_temporal_kernels_are_those_of_the_reference():
    """video-nonlocal-net: res2 3,3,3, res3 3,1,3,1, res4 3,1,3,1,3,1, res5 1,3,1; C2D all 1."""
    expected = {
        "i3d_r50": "333 3131 313131 131",
        "c2d_r50": "111 1111 111111 111",
        "slow_r50": "111 1111 333333 333",
    }

    for name, kernels in expected.items():
        model = on_meta(name)
        stages = (getattr(model, f"res{i}") for i in (2, 3, 4, 5))
        found = [
            [block.reduce.conv.kernel_size[0] for block in stage.children()] for stage in stages
        ]
        assert " ".join("".join(map(str, stage)) for stage in found) == kernels


def test_final_gammas_start_at_zero_unless_told_otherwise():
    for zero in (True, False):
        model = narrow("i3d_r26", alpha=0.5, zero_init_final_bn=zero)

        gammas = [group.weight for group in model.res3.block1.expand.bn.groups]

        assert len(gammas) == 2
        assert all(bool((g == 0).all()) is zero for g in gammas)


# --- mmaction2's variants


def test_stem_strides_in_time_shorten_the_clip_before_the_first_stage():
    model = create_model("i3d_r26", width_per_group=8, stem_strides_t=(2, 2)).eval()

    assert model.stem(torch.zeros(1, 3, 16, 32, 32)).shape[2] == 4
    assert model.min_frames == 5
    assert model(torch.zeros(1, 3, 5, 32, 32)).shape == (1, 400)
    with pytest.raises(ConfigError, match="at least 5 frames"):
        model(torch.zeros(1, 3, 4, 32, 32))


@pytest.mark.parametrize("strides", [(2,), (0, 1), 2, ("a", "b")])
def test_stem_strides_are_two_whole_numbers(strides):
    with pytest.raises(
        ConfigError, match=r"stem_strides_t is .*; it is a list with the strides in time"
    ):
        create_model("i3d_r26", stem_strides_t=strides)


def test_a_non_local_block_may_pool_what_phi_and_g_give():
    torch.manual_seed(0)
    block = NonLocalHigh(Channels(8), pool_after=True).eval()
    torch.nn.init.ones_(block.attend.norm.weight)
    x, attend = torch.randn(2, 8, 3, 4, 4), block.attend

    out = block(OctTensor(x)).high

    theta = torch.nn.Conv3d.forward(attend.conv_theta, x).flatten(2)
    phi, g = (
        torch.nn.functional.max_pool3d(torch.nn.Conv3d.forward(conv, x), (1, 2, 2)).flatten(2)
        for conv in (attend.conv_phi, attend.conv_g)
    )
    attention = (theta.transpose(1, 2) @ phi * 4**-0.5).softmax(-1)
    gathered = (attention @ g.transpose(1, 2)).transpose(1, 2).reshape(2, 4, 3, 4, 4)
    torch.testing.assert_close(out, x + attend.norm(attend.conv_out(gathered)))
