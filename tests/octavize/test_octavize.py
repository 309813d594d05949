"""Any network with its weights: the vanilla one at alpha 0, an exact one on inputs without
detail."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stand_ins import STAND_INS, DropPath
from torch import nn
from torch.nn import functional as F

from octvideo import create_model, octavize
from octvideo.complexity import count, count_twice
from octvideo.errors import ConfigError
from octvideo.octavize.runtime import half_of

IMAGE = torch.rand(2, 3, 16, 16)


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    build, shape = STAND_INS[name]
    return randomise(build()).eval(), torch.rand(shape)


def randomise(model: nn.Module) -> nn.Module:
    """Every norm with statistics and an affine map of its own."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d | nn.GroupNorm | nn.PReLU):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, 0.2, 1.0)
    return model


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("training", [False, True])
def test_alpha_zero_is_the_network_bit_for_bit(name, training):
    model, x = make(name)
    before = copy.deepcopy(model.state_dict())

    octave = octavize(model, 0.0, x)

    assert list(octave.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    outputs = []
    for network in (octave, model):
        torch.manual_seed(0)
        outputs.append(network.train(training)(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("build", "x"),
    [
        (STAND_INS["resnet"][0], IMAGE),
        (lambda: create_model("resnet20_cifar"), IMAGE),
    ],
)
def test_frozen_norms_stay_frozen(build, x):
    model = randomise(build()).train()
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for name in norms:
        model.get_submodule(name).eval()

    assert torch.equal(octavize(model, 0.0, x)(x), model(x))
    octave = octavize(model, 0.5, x)
    statistics = {key: value.clone() for key, value in octave.named_buffers()}
    octave(x)

    assert all(torch.equal(value, statistics[key]) for key, value in octave.named_buffers())
    assert octave.training
    assert not any(part.training for name in norms for part in octave.get_submodule(name).modules())


@pytest.mark.parametrize("name", STAND_INS)
@pytest.mark.parametrize("weights", ["sorted", "as_is", "fresh"])
def test_it_trains(name, weights):
    model, x = make(name)
    octave = octavize(model, 0.5, x, weights=weights).train()

    octave(x).sum().backward()

    assert octave.octave_report.octave
    assert all(p.grad is not None and p.grad.isfinite().all() for p in octave.parameters())
    assert len(list(octave.parameters())) > len(list(model.parameters()))
    assert sum(p.numel() for p in octave.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit")
def test_a_frozen_script_stays_as_it_is():
    script = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Conv2d(8, 16, 1)).eval()))
    model = nn.Sequential(nn.Conv2d(3, 8, 1), script, nn.Conv2d(16, 32, 1), nn.Conv2d(32, 8, 1))
    model.eval()

    assert torch.equal(octavize(model, 0.0, IMAGE)(IMAGE), model(IMAGE))
    for given in ({}, {"clips": IMAGE}, {"weights": "as_is"}):
        octave = octavize(model, 0.5, IMAGE, **given)
        assert octave(IMAGE).shape == (2, 8, 16, 16)
        assert [row.name for row in octave.octave_report.octave] == ["2", "3"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit")
@pytest.mark.parametrize(
    "program",
    [
        torch.jit.script,
        lambda net: torch.jit.freeze(torch.jit.script(net)),
        lambda net: torch.export.export(net, (IMAGE,)),
        lambda net: torch.export.export(net, (IMAGE,)).module(),
        torch.compile,
    ],
    ids=["script", "frozen script", "exported", "module of an exported", "compiled"],
)
def test_a_program_that_a_network_was_made_into_is_refused(program):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1)).eval()
    with pytest.raises(ConfigError, match=r"octavize got a \w+: a program's .*; give the network"):
        octavize(program(net), 0.5, IMAGE)


def test_fresh_kernels_of_a_layer_that_only_reads_a_pair_are_parts_of_one():
    model = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1), nn.Conv2d(64, 64, 3, 1, 1))
    octave = octavize(model, 0.25, IMAGE, include=["0"], weights="fresh")

    layer = octave.get_submodule("1")
    assert (layer.in_channels, layer.out_channels) == ((48, 16), (64, 0))
    for parameter in layer.parameters():
        assert 0.9 / 24 < parameter.abs().max() <= 1 / 24


@pytest.mark.parametrize(
    "name", [name for name in STAND_INS if name not in ("convnext", "unet_transposed")]
)
def test_the_report_counts_what_the_network_costs(name):
    model, x = make(name)
    octave = octavize(model, 0.5, x)
    report = octave.octave_report

    assert report.macs == count(octave, x.shape[1:]).macs
    assert report.macs_before == count(model, x.shape[1:]).macs
    assert report.macs < report.macs_before


class PerFrame(nn.Module):
    """A network of images on each frame of a clip, its scores averaged."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.conv3, self.fc = nn.Conv2d(32, 32, 1), nn.Linear(32, 5)

    def forward(self, x):
        y = F.relu(self.conv1(x.transpose(1, 2).flatten(0, 1)))
        scores = self.fc(F.relu(self.conv3(F.relu(self.conv2(y)))).mean((2, 3)))
        return scores.unflatten(0, (-1, x.shape[2])).mean(1)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_report_counts_every_frame_that_the_network_folds_into_the_batch(batch):
    model, shape = PerFrame(), (3, 4, 9, 8)
    octave = octavize(model, 0.5, torch.rand(batch, *shape), width_rule="int")
    report = octave.octave_report

    by_hand = 4 * (72 * 3 * 16 * 9 + 20 * (16 * 32 * 9 + 32 * 32) + 32 * 5)
    assert report.macs_before == count_twice(model, shape)[0].macs == by_hand
    assert report.macs == count_twice(octave, shape, compute=False)[0].macs < by_hand


def test_sorted_channels_keep_more_of_the_features():
    model, x = make("resnet")
    with torch.no_grad():  # half of the channels of each map see only averages
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight[: len(module.weight) // 2] = module.weight[
                    : len(module.weight) // 2
                ].mean((2, 3), True)
    sorted_, as_is = (
        octavize(model, 0.5, x, weights=kind, clips=x).octave_report.errors
        for kind in ("sorted", "as_is")
    )
    assert [str(error).partition(":")[0] for error in sorted_][-1] == "layer2"
    assert sorted_[-1].error < as_is[-1].error


class Pointwise(nn.Module):
    """Every kind of operation that has a rule, in which no position sees another one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 1)
        self.one, self.two = nn.Conv2d(32, 64, 1), nn.Conv2d(32, 64, 1, bias=False)
        self.bn, self.gn = nn.BatchNorm2d(64), nn.BatchNorm2d(64, affine=False)
        self.grouped = nn.Conv2d(64, 64, 1, groups=4)
        self.depthwise = nn.Conv2d(64, 64, 1, groups=64)
        self.act = nn.PReLU(64)
        self.scale = nn.Parameter(torch.rand(64, 1, 1))
        self.squeeze, self.excite = nn.Conv2d(64, 8, 1), nn.Linear(8, 64)
        self.drop, self.drop_path = nn.Dropout2d(0.5), DropPath()
        self.dense = nn.Conv2d(64, 64, 1)
        self.mixed, self.last = nn.Conv2d(192, 64, 1), nn.Conv2d(64, 48, 1)
        self.layer_norm = nn.LayerNorm(64)
        self.head = nn.Linear(64 + 48, 5)

    def forward(self, x):
        stem = self.stem(x)
        a, b = self.bn(self.one(stem)), self.gn(self.two(stem))
        x = self.act(self.grouped(F.relu(a + b, inplace=True)))
        x = x + self.scale * self.depthwise(x) * 0.5
        gate = self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)).flatten(1))).sigmoid()
        x = self.drop(x * gate.view(gate.size(0), -1, 1, 1))
        x = self.drop_path(x) + self.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        dense = torch.cat([x, self.dense(x), x.clamp(min=0)], 1)
        x = self.mixed(dense)
        x = torch.cat([x.amax((2, 3)), self.last(x).mean((-1, -2))], 1)
        return self.head(x)


@pytest.mark.parametrize("weights", ["sorted", "as_is"])
@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_inputs_constant_in_squares_are_computed_as_before(weights, alpha):
    """Pooling loses nothing of them, so that every kernel, order, norm, gate and sum must be in its
    place."""
    model = randomise(Pointwise()).eval()
    squares = F.interpolate(torch.rand(4, 3, 4, 4), scale_factor=2.0)

    octave = octavize(model, alpha, IMAGE, weights=weights)

    left = [conv for conv in octave.octave_report.convolutions if not conv.is_octave]
    assert {conv.name for conv in left} == {"stem", "squeeze"}
    torch.testing.assert_close(octave(squares), model(squares), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(octave(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-5)


def test_group_norm_keeps_whole_groups():
    model = nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.Conv2d(32, 64, 1), nn.GroupNorm(8, 64), nn.Conv2d(64, 32, 1)
    )
    nn.init.uniform_(model[2].weight)
    squares = F.interpolate(torch.rand(4, 3, 4, 4), scale_factor=2.0)

    octave = octavize(model, 0.25, IMAGE, weights="sorted")

    assert octave.octave_report.notes == ()
    torch.testing.assert_close(octave(squares), model(squares), rtol=1e-4, atol=1e-5)


class Indexed(nn.Module):
    def __init__(self, index):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(n, 32, 1) for n in (3, 32, 32))
        self.index = index

    def forward(self, x):
        return self.three(self.two(self.one(x))[:, self.index])


@pytest.mark.parametrize(
    ("index", "notes"), [(slice(32), 0), (slice(0, 32, 1), 0), (list(range(31, -1, -1)), 1)]
)
def test_a_slice_of_all_channels_keeps_the_pair_and_another_order_ends_it(index, notes):
    model = Indexed(index)
    squares = F.interpolate(torch.rand(2, 3, 4, 4), scale_factor=2.0)

    octave = octavize(model, 0.5, squares)

    assert len(octave.octave_report.notes) == notes
    torch.testing.assert_close(octave(squares), model(squares), rtol=1e-4, atol=1e-5)


class Between(nn.Module):
    """An operation between octave convolutions of clips."""

    def __init__(self, operation, width=32):
        super().__init__()
        self.one, self.two = nn.Conv3d(3, 32, 1), nn.Conv3d(32, 32, 1)
        self.three, self.four = nn.Conv3d(width, 32, 1), nn.Conv3d(32, 32, 1)
        self.operation = operation

    def forward(self, x):
        return self.four(self.three(self.operation(self.two(self.one(x)))))


@pytest.mark.parametrize(
    ("operation", "width"),
    [
        (lambda x: torch.index_select(x, dim=2, index=torch.tensor([2, 0])), 32),
        (lambda x: x.index_select(index=torch.tensor([2, 0]), dim=-3), 32),
        (lambda x: torch.narrow(x, dim=2, start=1, length=2), 32),
        (lambda x: x.narrow(dim=2, start=1, length=2), 32),
        (lambda x: torch.cat(tensors=[x, x + 1], dim=1), 64),
        (lambda x: torch.cat(dim=-4, tensors=(x, x + 1)), 64),
    ],
)
def test_arguments_by_name_mean_what_they_do_by_position(operation, width):
    model, x = Between(operation, width), F.interpolate(torch.rand(2, 3, 3, 4, 4), (3, 8, 8))

    octave = octavize(model, 0.5, x)

    assert octave.octave_report.notes == ()
    torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cat", [torch.cat, lambda tensors, dim: torch.cat(tensors, dim=dim)])
def test_a_concatenation_of_what_a_split_gives_ends_the_pair(cat):
    model = Between(lambda x: cat(torch.split(x, 16, 1), 1))
    x = F.interpolate(torch.rand(2, 3, 3, 4, 4), (3, 8, 8))

    torch.testing.assert_close(octavize(model, 0.5, x)(x), model(x), rtol=1e-4, atol=1e-5)


def exported(x):
    assert isinstance(x, torch.Tensor)  # torch.fx cannot trace it, torch.export can
    return F.interpolate(x, size=(2, 8, 8))


@pytest.mark.parametrize("resize", [nn.Upsample((2, 8, 8)), exported])
@pytest.mark.parametrize("size", [4, 8])
def test_a_resize_to_a_fixed_size_merges_the_pair_whatever_the_size_before_it(resize, size):
    model, x = Between(resize), torch.rand(2, 3, 2, size, size)

    octave = octavize(model, 0.5, x)

    assert any("the low one (8, 8), not its half" in n for n in octave.octave_report.notes)
    assert octave(x).shape == model(x).shape


def test_include_and_exclude_say_where_the_pair_begins_and_ends():
    model, x = make("resnet")
    octave = octavize(model, 0.5, x, include=["layer*"], exclude=["layer2.*"])

    becomes = {conv.name: f"{conv.reads} -> {conv.writes}" for conv in octave.octave_report.octave}
    assert becomes["layer1.0.conv1"] == "32 -> 16+16"
    assert becomes["layer2.0.conv1"] == "16+16 -> 64"
    assert "layer2.0.conv2" not in becomes


def test_a_stem_can_be_included():
    model, x = make("vgg")
    octave = octavize(model, 0.5, x, include=["*"])
    assert octave.octave_report.convolutions[0].writes == (16, 16)


def test_a_rule_of_ones_own_gives_the_widths():
    model, x = make("vgg")
    octave = octavize(model, 0.5, x, width_rule=lambda channels, alpha: (channels - 8, 8))
    assert octave.get_submodule("features.3").out_channels == (56, 8)


@pytest.mark.parametrize(
    ("downsample", "octave", "other"),
    [(None, "pool", (2, 2)), ("pool", "pool", (1, 1)), ("stride", "stride", (2, 2))],
)
def test_strides_are_pooled_where_asked(downsample, octave, other):
    """In octave convolutions; with "pool" also in those of the stages that are left alone, but not
    in the stem."""
    model, x = make("resnet")

    network = octavize(model, 0.5, x, exclude=["layer2.0.conv1"], downsample=downsample)

    assert network.get_submodule("layer2.0.downsample.0").downsample == octave
    assert network.conv1.stride == (2, 2)
    network = octavize(model, 0.5, x, exclude=["layer*"], downsample=downsample)
    assert network.get_submodule("layer2.0.conv1").stride == other
    assert network(x).shape == (2, 5)


def test_an_octavized_network_is_the_same_at_another_size():
    model, x = make("dense")
    assert octavize(model, 0.5, x)(torch.rand(1, 3, 40, 24)).shape == (1, 5)


class Halving(nn.Module):
    """An operation that changes the size, between convolutions."""

    def __init__(self, resize: nn.Module, dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.before = nn.Sequential(conv(3, 32, 3, 1, 1), conv(32, 32, 3, 2, 1))
        self.resize = resize
        self.after = nn.Sequential(conv(32, 32, 3, 1, 1), conv(32, 8, 1))

    def forward(self, x):
        return self.after(self.resize(self.before(x)))


@pytest.mark.parametrize("size", [(28, 29), (30, 26), (31, 33), (34, 27), (5, 6), (64, 32)])
@pytest.mark.parametrize(
    "resize",
    [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Upsample(scale_factor=2), nn.MaxPool2d(3, 2, 1)],
    ids=lambda resize: type(resize).__name__,
)
def test_a_pool_or_a_resize_between_octave_layers_takes_every_size(resize, size):
    model = Halving(resize)
    octave = octavize(model, 0.5, torch.rand(1, 3, 32, 32))
    assert not octave.octave_report.notes

    assert octave(torch.rand(2, 3, *size)).shape == model(torch.rand(2, 3, *size)).shape


def test_a_clip_of_another_size_is_pooled():
    octave = octavize(Halving(nn.MaxPool3d((1, 2, 2)), dims=3), 0.5, torch.rand(1, 3, 2, 32, 32))
    assert octave(torch.rand(2, 3, 3, 28, 34)).shape == (2, 8, 2, 7, 8)


@pytest.mark.parametrize(("high", "low"), [(16, 8), (15, 8), (14, 7), (13, 7)])
def test_the_low_group_gets_half_the_size(high, low):
    column = torch.arange(8.0)
    found = half_of(torch.empty(1, 2, high, 16), column.reshape(1, 1, 1, 8).expand(1, 3, 7, 8))
    assert torch.equal(found, column.expand(1, 3, low, 8))


def test_a_low_group_far_from_half_the_size_names_both():
    with pytest.raises(ConfigError, match=r"\(16, 16\) here and the low one \(8, 6\).*\(8, 8\)"):
        half_of(torch.empty(1, 2, 16, 16), torch.empty(1, 2, 8, 6))


class Gated(nn.Module):
    """A global mean of a map that a convolution reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1)
        self.last = nn.Conv2d(32, 8, 1)

    def forward(self, x):
        x = self.second(self.first(x))
        return x.mean((2, 3)), self.last(x)


@pytest.mark.parametrize("example", [15, 16])
def test_a_mean_is_the_networks_at_odd_and_at_even_sizes(example):
    model = Gated().eval()
    octave = octavize(model, 0.5, torch.rand(1, 3, example, example))
    assert not octave.octave_report.notes
    for size in (15, 16):
        x = F.interpolate(torch.rand(2, 3, 8, 8), scale_factor=2.0)[..., :size, :size]
        torch.testing.assert_close(octave(x), model(x), rtol=1e-4, atol=1e-5)


class WithSpare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spare = nn.Conv2d(3, 32, 3, 1, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x)


def test_modules_that_are_never_called_are_named():
    assert octavize(WithSpare(), 0.5, IMAGE).octave_report.notes == (
        "spare: left out; the forward pass does not call it",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.0}, r"alpha is 1.0; the share of low-frequency channels lies in \[0, 1\)"),
        ({"width_rule": "half"}, "width_rule is 'half'; it is one of int, round16"),
        ({"weights": "best"}, "weights is 'best'; it is 'sorted', 'as_is' or 'fresh'"),
        (
            {"include": ["layer9.*"]},
            "'layer9.*' names no convolution of the network; names are such as conv1",
        ),
        ({"exclude": ["nothing"]}, "'nothing' names no convolution"),
        ({"downsample": "max"}, "downsample is 'max'"),
    ],
)
def test_arguments_out_of_range_are_one_line(arguments, message):
    model, x = make("resnet")
    with pytest.raises(ConfigError, match=message):
        octavize(model, **{"alpha": 0.5, "example": x, **arguments})


@pytest.mark.parametrize(
    ("conv", "message"),
    [
        (
            nn.Conv2d(32, 32, 3),
            r"kernel \(3, 3\) with padding \(0, 0\) does not keep the map's size",
        ),
        (nn.Conv2d(32, 32, 2, padding="same"), "does not keep the map's size"),
        (nn.Conv2d(32, 32, 3, 4, 1), r"its stride is \(4, 4\)"),
        (nn.Conv2d(32, 32, 3, 1, 1, padding_mode="reflect"), "padding_mode is 'reflect'"),
        (nn.Conv2d(32, 32, 3, 1, 1, groups=32), None),
        (
            nn.Conv2d(32, 32, 3, 1, 1, groups=8),
            "its 8 groups cannot be divided as 20\\+12 channels are",
        ),
    ],
)
def test_a_convolution_that_cannot_be_octave_is_left_alone_or_refused_where_it_is_asked_for(
    conv, message
):
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 1), conv, nn.Conv2d(32, 32, 1))
    rule = {"width_rule": lambda channels, alpha: (channels - 12, 12)}

    left = octavize(model, 0.5, IMAGE, **rule).octave_report.convolutions[2]

    if message is None:
        assert left.is_octave
        return
    assert not left.is_octave
    with pytest.raises(ConfigError, match=f"^2 cannot be octave: .*{message}.* exclude it"):
        octavize(model, 0.5, IMAGE, include=["[123]"], **rule)


def test_the_config_of_an_octavized_network_is_plain_values(tmp_path):
    model = create_model("resnet20_cifar", blocks=(1, 1), alpha=0.0)
    octave = octavize(model, np.float64(0.5), IMAGE, include=("res2.*",), width_rule="int")
    torch.save(octave.config, tmp_path / "config.pt")

    again = create_model(**torch.load(tmp_path / "config.pt", weights_only=True))

    assert again.config == octave.config
    assert again.state_dict().keys() == octave.state_dict().keys()


def test_a_rule_of_ones_own_leaves_no_config_that_builds_another_network():
    model = create_model("resnet20_cifar", blocks=(1, 1))
    assert not hasattr(octavize(model, 0.5, IMAGE, width_rule=lambda c, _: (c - 2, 2)), "config")
    assert model.config["name"] == "resnet20_cifar"


class Configured(nn.Module):
    """A network of another project, which reads a `config` of its own."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.convs = nn.Sequential(*[nn.Conv2d(c, 32, 3, padding=1) for c in (3, 32, 32)])
        self.fc = nn.Linear(32, 3)

    def forward(self, x):
        pooled = self.convs(x).mean((2, 3))
        return self.fc(pooled) if getattr(self.config, "classifies", True) else pooled


@pytest.mark.parametrize(
    "config",
    [SimpleNamespace(classifies=False), SimpleNamespace(classifies=True), {"name": "x"}, None],
    ids=["object", "another", "dict", "none"],
)
def test_the_config_of_another_project_is_read_and_stays_with_its_network(config):
    model, before = Configured(config).eval(), copy.deepcopy(config)

    vanilla, octave = octavize(model, 0.0, IMAGE), octavize(model, 0.5, IMAGE)

    assert torch.equal(vanilla(IMAGE), model(IMAGE))
    assert octave(IMAGE).shape == model(IMAGE).shape
    assert octave.octave_report.macs < octave.octave_report.macs_before
    assert model.config is config
    assert config == before
    assert not hasattr(octave, "config")
