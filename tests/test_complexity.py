"""Counts of parameters and multiply-adds: two that agree, and the paper's tables."""

import itertools
import json
import re

import pytest
import torch
from narrow_networks import of_two_blocks, shortened
from reparametrized import REPARAMETRIZED
from torch import nn
from torch.nn import functional as F

from octvideo import create_model, octavize
from octvideo.cli import run_command
from octvideo.cli.complexity import print_network
from octvideo.complexity import count, count_twice, stage_table, trace, traced_macs
from octvideo.deploy.operators import trace_operators
from octvideo.errors import OctvideoError
from octvideo.layers import OctConv2d, OctTensor, as_pair, compute_in_2d
from octvideo.paper import (
    Network,
    format_results,
    layer_results,
    network_results,
    networks,
)


def narrow(name, **options):
    """A tracer's seconds grow faster than the number of layers: what repeats others is left out."""
    width = 32 if name.startswith("slowfast") else 16
    return shortened(create_model(name, width_per_group=width, num_classes=5, **options))


# --- Two counts


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("i3d_r26", {}),
        ("i3d_nln_r26", {"alpha": 0.5, "nonlocal_on": "cross"}),
        ("slowfast_r26", {"alpha": 0.5}),
        ("i3d_r26", {"alpha": 0.5, "memory_saving": True}),
        ("c2d_r26", {"alpha": 0.5, "block": "preact", "num_groups": 2}),
    ],
    ids=str,
)
def test_closed_form_and_fvcore_agree(name, options):
    count_twice(narrow(name, **options), (3, 8, 47, 64))


@pytest.mark.parametrize("on", ["high", "cross"])
def test_a_pool_behind_the_convolutions_of_attention_saves_none_of_their_work(on):
    options = {"alpha": 0.5, "nonlocal_on": on}
    before = narrow("i3d_nln_r26", **options)
    behind = narrow("i3d_nln_r26", **options, nonlocal_pool_after=True)

    assert list(behind.state_dict()) == list(before.state_dict())
    cost, _ = count_twice(behind, (3, 8, 47, 64), compute=False)
    assert cost.macs > count(before, (3, 8, 47, 64)).macs


def test_the_report_counts_a_convolution_with_a_pool_behind_it_on_the_whole_map():
    vanilla, shape = narrow("i3d_nln_r26", nonlocal_pool_after=True), (3, 8, 47, 64)
    octave = octavize(vanilla, 0.5, torch.rand(1, *shape))

    assert octave.octave_report.macs_before == count(vanilla, shape).macs
    assert octave.octave_report.macs == count_twice(octave, shape, compute=False)[0].macs


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "densenet121", "resnet50_glore", "preact_se_resnet50"]
)
def test_the_counts_agree_for_image_networks(name):
    options = {"layers": (2, 2, 2, 2)} if name == "densenet121" else {}
    with torch.device("meta"):
        model = of_two_blocks(name, alpha=0.5, **options)

    count_twice(model, (3, 65, 64))


def test_computing_in_2d_hides_no_work():
    model, shape = narrow("i3d_r26", alpha=0.5), (3, 4, 47, 64)

    deep = trace(compute_in_2d(model, on=False), shape)
    flat = trace(compute_in_2d(model, on=True), shape)

    assert traced_macs(deep) == traced_macs(flat) == count(model, shape).macs


def test_a_count_by_hand():
    """2 frames of 8x8: a 3x3 convolution 3 -> 4, then a classifier."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1))
            self.fc = nn.Linear(4, 10)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3, 4)))

    cost = count(Net(), (3, 2, 8, 8))

    assert cost.macs == 2 * 8 * 8 * 4 * 3 * 9 + 40
    assert cost.activations == 2 * 8 * 8 * 4 + 10
    assert cost.parameters == 4 * 27 + 4 + 50
    assert [(layer.name, layer.parameters) for layer in cost.layers] == [("conv", 112), ("fc", 50)]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.aux = nn.Conv3d(3, 4, 1), nn.Linear(4, 4)
        self.rnn = nn.LSTM(4, 4, batch_first=True)
        self.place = nn.Parameter(torch.zeros(1, 4, 1, 1, 1))

    def forward(self, x):
        return self.rnn((self.conv(x) + self.place).mean((3, 4)).transpose(1, 2))[0]


def test_weights_that_are_not_counted_are_named_with_the_number(capsys):
    cost = count(Recurrent(), (3, 2, 8, 8))

    assert cost.macs == 2 * 8 * 8 * 12
    assert set(cost.uncounted) == {"place", "aux.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    left_out = "without those of place, aux.weight, rnn.weight_ih_l0 and 1 more"
    assert stage_table(Recurrent(), (3, 2, 8, 8)).endswith(f"MACs, {left_out}")
    print_network(Recurrent(), (3, 2, 8, 8))
    assert f"by closed form and by fvcore, {left_out}" in capsys.readouterr().out


def test_a_weight_that_is_used_behind_the_counts_back_is_found():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 10)

        def forward(self, x):
            return F.linear(x.mean((2, 3)), self.fc.weight)

    assert count(Hidden(), (4, 8, 8)).uncounted == ("fc.weight",)
    message = (
        r"Hidden has 0 multiply-adds by closed form, without .* fc\.weight, and 40 by {}; every"
    )
    with pytest.raises(OctvideoError, match=message.format("fvcore")):
        count_twice(Hidden(), (4, 8, 8))
    with pytest.raises(OctvideoError, match=message.format("torch")):
        count_twice(Hidden(), (4, 8, 8), compute=False)


@pytest.mark.parametrize("reparametrized", REPARAMETRIZED)
def test_counting_leaves_computed_weights_and_plain_tensors_as_they_were(reparametrized):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.scale = reparametrized(nn.Conv2d(3, 8, 3)), torch.rand(8, 1, 1)

        def forward(self, x):
            return self.conv(x) * self.scale

    model = Scaled()
    weight, scale = model.conv.weight, model.scale

    assert count(model, (3, 6, 6)).macs == 3 * 9 * 8 * 16
    assert model.conv.weight is weight
    assert model.scale is scale
    count_twice(model, (3, 6, 6))


READS = {
    "scalar": (torch.tensor(2.0), lambda x, held: x * float(held)),
    "indices": (torch.tensor([2, 0, 1]), lambda x, held: x[:, held.tolist()]),
    "mask": (torch.tensor([True, False, True]), lambda x, held: x[:, held][:, [0, 1, 0]]),
}


@pytest.mark.parametrize(("held", "use"), READS.values(), ids=READS)
def test_a_forward_that_reads_a_plain_tensor_or_keeps_one_is_counted(held, use):
    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.held, self.last = nn.Conv2d(3, 8, 3), held, None

        def forward(self, x):
            self.last = self.conv(use(x, self.held))
            return self.last

    model = Holding()

    assert count(model, (3, 6, 6)).macs == 3 * 9 * 8 * 16
    assert trace_operators(model, (3, 6, 6)).num_parameters == 3 * 9 * 8 + 8
    assert model.held is held
    assert model.last is None


def test_counting_leaves_the_model_as_it_was():
    model = narrow("i3d_r26", alpha=0.5).train()
    model.res2.eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}

    count_twice(model, (3, 4, 32, 32))

    assert model.training
    assert not model.res2.training
    assert model.res3.block0.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_stage_table_shows_both_groups():
    lines = stage_table(narrow("i3d_r26", alpha=0.5), (3, 8, 64, 64)).splitlines()

    cells = {line.split()[0]: line for line in lines}
    assert list(cells) == [
        "stage",
        "stem",
        "res2",
        "pool2",
        "res3",
        "res4",
        "res5",
        "head",
        "total",
    ]
    assert "32 + 32" in cells["res2"]
    assert "8x16x16 + 8x8x8" in cells["res2"]
    assert "4x2x2 + 4x1x1" in cells["res5"]


def test_stages_add_up_to_the_whole():
    for name, frames in (("i3d_nln_r26", 4), ("slowfast_r26", 16)):
        cost = count(narrow(name, alpha=0.5), (3, frames, 40, 40))

        assert sum(stage.macs for stage in cost.stages) == cost.macs
        assert sum(stage.activations for stage in cost.stages) == cost.activations
        assert sum(stage.parameters for stage in cost.stages) == cost.parameters


@pytest.mark.parametrize(
    ("name", "shape"), [("i3d_r26", (3, 4, 40, 40)), ("slowfast_r26", (3, 16, 40, 40))]
)
def test_an_octavized_network_has_the_stages_of_the_network(name, shape):
    with torch.device("meta"):
        vanilla = narrow(name)
        cost = count(octavize(vanilla, 0.5, torch.empty(1, *shape)), shape)
    stages = {stage.name: stage for stage in cost.stages}

    assert [*stages] == [stage.name for stage in count(vanilla, shape).stages]
    assert sum(stage.macs for stage in cost.stages) == cost.macs
    prefix = "slow." if name == "slowfast_r26" else ""
    frames, low = stages[f"{prefix}res3"].outputs[0][1], stages[f"{prefix}res3"].outputs[1]
    assert low[1:] == (frames, 3, 3)


def test_the_layers_of_a_graph_are_counted_in_the_modules_that_held_them():
    inner = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.MaxPool2d(2))
    network = nn.Sequential(nn.Conv2d(3, 32, 1), inner, nn.Conv2d(32, 8, 1))
    model = octavize(network, 0.5, torch.rand(1, 3, 8, 8))

    stages = count(model, (3, 8, 8)).stages

    assert [(stage.name, stage.outputs) for stage in stages] == [
        ("0", ((32, 8, 8),)),
        ("1", ((16, 4, 4), (16, 2, 2))),
        ("2", ((8, 4, 4),)),
    ]


# --- The paper


def test_table_1_is_met_to_the_printed_digit():
    rows = list(layer_results())

    assert len(rows) == 14
    assert all(abs(row.computed - row.printed) <= 0.7 for row in rows)
    # The paper rounds 62.5 up and prints 35 % memory at .875, where its formula gives 34.4.
    assert {(row.row, row.quantity) for row in rows if abs(row.computed - row.printed) > 0.5} == {
        ("alpha 0.875", "memory (%)")
    }


TABLE_6 = [network for network in networks() if network.table == 6]


@pytest.mark.parametrize(
    "network", TABLE_6, ids=lambda n: f"{n.row} {n.options.get('nonlocal_on', '')}"
)
def test_table_6_is_met(network: Network):
    """Baselines within 0.3 %, octave rows within 1 %; .5 within 4 %; with non-local blocks in both
    readings."""
    (row,) = network_results(network, traced=False)

    bound = 0.01 if "alpha" in network.options else 0.003
    if network.options.get("alpha") == 0.5 or network.options.get("nonlocal_on") == "high":
        bound = 0.04
    assert abs(row.error) <= bound


# G multiply-adds with ceil pooling and padding 1, counted once by hand from the layer widths.
@pytest.mark.parametrize(
    ("name", "options", "giga"),
    [
        ("c2d_r50", {}, 19.493),
        ("i3d_r50", {"alpha": 0.1}, 25.650),
        ("i3d_r50", {"alpha": 0.5}, 15.879),
        ("i3d_nln_r50", {"alpha": 0.1, "nonlocal_on": "cross"}, 29.044),
        ("i3d_nln_r50", {"alpha": 0.1, "nonlocal_on": "high"}, 29.869),
    ],
    ids=str,
)
def test_counts_do_not_drift(name, options, giga):
    with torch.device("meta"):
        model = create_model(name, **options)

    assert count(model, (3, 8, 224, 224)).macs / 1e9 == pytest.approx(giga, abs=5e-4)


def test_every_table_has_its_rows():
    rows = [(n.table, n.row) for n in networks()]

    assert {table: len(list(group)) for table, group in itertools.groupby(rows, lambda r: r[0])} == {
        2: 5, 3: 4, 4: 12, 5: 4, 6: 13,
    }  # fmt: skip


def test_a_network_that_is_not_built_is_printed_with_the_reason():
    network = Network(
        4, "Oct-AlexNet", "alexnet", {}, {"MACs (G)": 0.7}, "as printed", (3, 224, 224)
    )

    (row,) = network_results(network, traced=False)

    assert row.computed is row.error is None
    assert "not built: there is no model 'alexnet'" in row.reading
    assert "Oct-AlexNet" in list(format_results([row]))[1]


# --- The tool


def test_the_command_shows_a_model_and_a_config(capsys):
    run_command(
        "complexity", ["--model", "resnet20_cifar", "--alpha", "0.5", "--input", "24", "28"]
    )
    model = capsys.readouterr().out
    run_command("complexity", ["--cfg", "demo/oct_i3d", "OCTCONV.ALPHA", "0.25"])
    cfg = capsys.readouterr().out

    assert re.search(r"res2 +8 \+ 8 +24x28 \+ 12x14 ", model)
    assert "by closed form and by fvcore" in model
    assert "8x16x16 + 8x8x8" in cfg


def test_the_command_answers_a_mistake_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        run_command("complexity", ["--model", "i3d_r5"])

    wrong = capsys.readouterr().err
    assert wrong.startswith("error: there is no model 'i3d_r5'; did you mean")
    assert wrong.count("\n") == 1


def test_a_line_is_there_as_soon_as_its_row():
    rows = layer_results()

    lines = format_results(row for row in rows if row.quantity == "MACs (%)")

    assert next(lines).split() == [
        "table",
        "row",
        "quantity",
        "printed",
        "computed",
        "error",
        "reading",
    ]
    assert "alpha 0.0" in next(lines)
    assert len(list(rows)) == 2 * 7 - 1  # not one more was counted


@pytest.mark.parametrize(
    ("name", "options"),
    [("i3d_nln_r26", {"alpha": 0.5, "nonlocal_on": "cross"}), ("slowfast_r26", {"alpha": 0.5})],
)
def test_torch_counts_what_the_closed_form_does_without_computing(name, options):
    with torch.device("meta"):
        model = narrow(name, **options)

    cost, operators = count_twice(model, (3, 8, 224, 224), compute=False)

    assert cost.macs == operators["conv"] + operators["linear"]
    assert all(p.is_meta for p in model.parameters())


def test_the_tool_prints_one_table(capsys):
    run_command("complexity", ["--paper", "--table", "1"])

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 7
    assert all(line.startswith("1 ") for line in lines[1:])


def test_a_folder_that_is_missing_is_told_before_anything_is_counted(tmp_path, capsys):
    path = tmp_path / "none" / "paper.json"
    with pytest.raises(SystemExit, match="2"):
        run_command("complexity", ["--paper", "--table", "1", "--json", str(path)])

    said = capsys.readouterr()
    assert f"error: {path}: there is no folder {path.parent}; name" in said.err
    assert not said.out


@pytest.mark.slow
def test_the_tool_prints_and_writes_every_row_near_what_the_paper_prints(
    repo, tmp_path, monkeypatch, capsys
):
    """2.5 %: one digit of a printed 1.9 is 2.6 %."""
    run_command("complexity", ["--paper", "--json", str(tmp_path / "paper.json")])

    rows = json.loads((tmp_path / "paper.json").read_text())
    assert set(rows[0]) == {"table", "row", "quantity", "printed", "computed", "reading", "error"}
    assert {row["table"] for row in rows} == {1, 2, 3, 4, 5, 6}
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)
    assert all(row["computed"] for row in rows)
    far = {row["row"] for row in rows if row["table"] > 1 and abs(row["error"]) > 0.025}
    assert far == {"Oct-I3D, alpha .5", "Oct-I3D + NL, alpha .1"}


@pytest.mark.parametrize("alpha", [0, 0.25, (0, 0.25), (0.25, 0)])
def test_an_octave_layer_among_plain_layers_is_counted(alpha):
    class Between(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = OctConv2d(8, 16, 3, padding=1, alpha=alpha)

        def forward(self, x):
            has_low = bool(self.conv.in_channels.low)
            pair = OctTensor(x[:, 2:], nn.functional.avg_pool2d(x[:, :2], 2)) if has_low else x
            return as_pair(self.conv(pair)).high

    low_in, low_out = (alpha, alpha) if isinstance(alpha, float | int) else alpha
    high_in, high_out = 8 * (1 - low_in), 16 * (1 - low_out)
    at_half = 8 * 16 - high_in * high_out

    cost = count(Between(), (8, 12, 12))

    assert cost.macs == 9 * 144 * (high_in * high_out + at_half / 4)
