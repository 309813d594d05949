"""The benchmark measures what it says, in turns."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from octvideo.deploy import benchmark
from octvideo.deploy.benchmark import (
    Case,
    Measured,
    compare,
    compare_layers,
    verdict,
)
from octvideo.deploy.timing import interleaved, interval_of_median, seconds_of
from octvideo.errors import ConfigError

SMALL = (3, 4, 16, 16)


def test_calls_take_turns():
    order = []
    a, b = Case("c2d_r26", 0.0, SMALL), Case("c2d_r26", 0.5, SMALL)

    times = interleaved({a: lambda: order.append("a"), b: lambda: order.append("b")}, rounds=3)

    assert order == ["a", "b"] * 4
    assert [len(t) for t in times.values()] == [3, 3]


def test_ratios_are_to_the_first_case():
    vanilla, octave = compare([Case("c2d_r26", alpha, SMALL) for alpha in (0.0, 0.5)], rounds=1)

    assert vanilla.ratio == vanilla.best_ratio == vanilla.macs_ratio == 1
    assert octave.macs_ratio < 0.9
    assert octave.ratio > 0


def test_training_keeps_fewer_bytes_in_the_memory_saving_form():
    shape = (3, 4, 32, 32)

    plain, saving = (
        Case("c2d_r26", 0.5, shape, train=True, memory_saving=m).saved_megabytes()
        for m in (False, True)
    )

    assert saving < plain


def test_the_verdict_says_plainly_whether_it_pays():
    first = _measured(0.0, 1.0, 1.0, 1.0)

    assert verdict([first, _measured(0.5, 0.7, 0.68, 0.72)]) == (
        "alpha 0.5 pays: 30% less time (0.68 to 0.72) for 40% fewer multiply-adds"
    )
    assert verdict([first, _measured(0.1, 1.2, 1.1, 1.3)]) == (
        "alpha 0.1 does not pay here: it takes 1.20 times as long (1.10 to 1.30)"
    )


def test_the_verdict_says_that_it_cannot_tell():
    first = _measured(0.0, 1.0, 1.0, 1.0)

    assert verdict([first, _measured(0.1, 0.97, 0.9, 1.05)]) == (
        "alpha 0.1: cannot tell: 15 rounds put its time at 0.90 to 1.05 of the first's"
    )


def test_a_gain_beyond_the_multiply_adds_is_doubted():
    first = _measured(0.0, 1.0, 1.0, 1.0)

    assert "alpha 0.5 is doubtful: 60% less time (0.39 to 0.41) for 40% fewer" in verdict(
        [first, _measured(0.5, 0.4, 0.39, 0.41)]
    )


def test_a_busy_machine_and_too_few_rounds_are_said():
    first = _measured(0.0, 1.0, 1.0, 1.0)

    assert "spread by 30%" in verdict([replace(first, spread=0.3), first])
    assert "fewer than 6 rounds tell nothing" in verdict([replace(first, rounds=5), first])


def _measured(alpha: float, ratio: float, low: float, high: float) -> Measured:
    case = Case("m", alpha, SMALL)
    return Measured(case, 1.0, ratio, ratio, 0.6, low=low, high=high, rounds=15)


@pytest.mark.parametrize(("n", "left_out"), [(6, 0), (8, 0), (9, 1), (15, 3), (20, 5), (25, 7)])
def test_the_interval_is_that_of_the_sign_test(n, left_out):
    # The largest k with P(B(n, 1/2) <= k) of at most 2.5 %, in any table of the binomial
    # distribution.
    values = [float(v) for v in range(n)]

    assert interval_of_median(values[::-1]) == (left_out, n - 1 - left_out)


def test_few_rounds_have_no_interval():
    assert interval_of_median([0.5] * 5) == (0.0, float("inf"))
    assert interval_of_median([]) == (0.0, float("inf"))


def test_several_looks_divide_the_doubt():
    # 5 / 3 %: 2 / 2^6 is more, 2 / 2^7 is not. 2 P(B(15, 1/2) <= 2) is 0.7 %, <= 3: 3.5 %.
    assert interval_of_median([0.5] * 6, looks=3) == (0.0, float("inf"))
    assert interval_of_median([0.5] * 7, looks=3) == (0.5, 0.5)
    assert interval_of_median([float(v) for v in range(15)], looks=3) == (2, 12)


@pytest.mark.parametrize(("octave_seconds", "rounds"), [([0.5], 7), ([0.9, 1.1], 21)])
def test_rounds_that_disagree_are_run_again(monkeypatch, octave_seconds, rounds):
    vanilla, octave = (Case("c2d_r26", alpha, SMALL) for alpha in (0.0, 0.5))
    monkeypatch.setattr(Case, "make", lambda self: lambda: None)

    def fake(calls, rounds, device):
        turns = [octave_seconds[i % len(octave_seconds)] for i in range(rounds)]
        return {vanilla: [1.0] * rounds, octave: turns}

    monkeypatch.setattr(benchmark, "interleaved", fake)

    assert compare([vanilla, octave], rounds=7)[1].rounds == rounds


@pytest.mark.parametrize("rounds", [9, 15])
def test_of_two_cases_that_take_the_same_time_one_in_twenty_at_most_is_called_faster(
    monkeypatch, rounds
):
    first, second = (Case("c2d_r26", alpha, SMALL) for alpha in (0.0, 0.5))
    draw = np.random.default_rng(0)
    monkeypatch.setattr(Case, "make", lambda self: lambda: None)
    monkeypatch.setattr(Case, "macs", lambda self: 1)
    monkeypatch.setattr(
        benchmark,
        "interleaved",
        lambda calls, rounds, device: {
            case: draw.lognormal(0, 0.1, rounds).tolist() for case in calls
        },
    )

    runs = [compare([first, second], rounds)[1] for _ in range(2000)]

    assert sum(measured.is_clear for measured in runs) <= 100
    assert {measured.rounds for measured in runs} == {rounds, 2 * rounds, 3 * rounds}


def test_an_engine_that_does_not_train_is_refused():
    with pytest.raises(ConfigError, match="engine openvino does not train"):
        Case("c2d_r26", 0.0, SMALL, train=True, engine="openvino").make()


def test_half_precision_is_for_eager_mode():
    with pytest.raises(ConfigError, match="engine openvino computes in fp32 here"):
        Case("c2d_r26", 0.0, SMALL, engine="openvino", bf16=True).make()


@pytest.mark.parametrize("train", [True, False])
def test_half_precision_is_used(train, monkeypatch):
    seen = []
    case = Case("c2d_r26", 0.5, SMALL, train=train, bf16=True)
    model = case.create()
    monkeypatch.setattr(Case, "create", lambda self: model)
    model.head.fc.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))

    case.make()()

    assert seen == [torch.bfloat16]


def test_a_network_is_compiled_on_request(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compiled.append(model))

    Case("c2d_r26", 0.5, SMALL, train=True, compiled="network").make()()

    assert len(compiled) == 1


def test_blocks_are_compiled_one_by_one_for_fixed_shapes(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda model, dynamic: compiled.append((model, dynamic))
    )

    Case("c2d_r26", 0.5, SMALL, train=True, compiled="blocks").make()()

    assert [type(block).__name__ for block, _ in compiled] == ["Bottleneck"] * 8
    assert not any(dynamic for _, dynamic in compiled)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigError, match="PyTorch finds no GPU here; leave --device out"):
        Case("c2d_r26", 0.0, SMALL, device="cuda").make()


def test_engines_of_the_cpu_are_refused_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    with pytest.raises(ConfigError, match="engine openvino is for CPUs here"):
        Case("c2d_r26", 0.0, SMALL, engine="openvino", device="cuda").make()


def test_a_gpu_is_timed_between_events_of_its_queue(monkeypatch):
    queue = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.place = len(queue)
            queue.append("event")

        def synchronize(self):
            queue.append("wait")

        def elapsed_time(self, end):
            return 1e3 * (end.place - self.place)

    monkeypatch.setattr(torch.cuda, "Event", Event)

    assert seconds_of(lambda: queue.append("call"), "cuda") == 2
    assert queue == ["event", "call", "event", "wait"]


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_an_engine_is_not_compiled_on_top(engine):
    with pytest.raises(ConfigError, match=f"engine {engine} compiles in its own way"):
        Case("c2d_r26", 0.0, SMALL, engine=engine, compiled="network").make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "i3d_r5"], "did you mean"),
        (["--layers", "--bf16"], "--layers is for fp32 inference"),
        (["--json", "no/such/b.json"], "no/such/b.json: there is no folder no; name a file"),
        (["--json", "."], ".: is a folder; name a file"),
    ],
)
def test_mistakes_are_one_line_and_cost_no_time(repo, monkeypatch, capsys, arguments, message):
    import runpy

    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])

    with pytest.raises(SystemExit):
        runpy.run_path(str(repo / "tools" / "benchmark.py"), run_name="__main__")

    assert message in capsys.readouterr().err


def test_the_tool_prints_a_table_and_writes_json(repo, tmp_path, monkeypatch, capsys):
    import runpy

    arguments = [
        "--model",
        "c2d_r26",
        "--alpha",
        "0",
        ".5",
        "--input",
        "4",
        "32",
        "32",
        "--rounds",
        "1",
        "--train",
    ]
    monkeypatch.setattr(
        sys, "argv", ["benchmark.py", *arguments, "--json", str(tmp_path / "b.json")]
    )

    runpy.run_path(str(repo / "tools" / "benchmark.py"), run_name="__main__")

    assert "multiply-adds" in capsys.readouterr().out
    text = (tmp_path / "b.json").read_text()
    rows = json.loads(text, parse_constant=pytest.fail)
    assert [m["case"]["alpha"] for m in rows] == [0.0, 0.5]
    assert {m["high"] for m in rows} == {None}  # of one round


def test_every_layer_is_timed_and_one_that_a_network_lacks_counts_nothing():
    vanilla, octave = (Case("c2d_r26", alpha, SMALL) for alpha in (0.0, 0.5))

    times = compare_layers([vanilla, octave], rounds=1)

    assert next(iter(times)) == "stem.conv"
    assert "res5.block1.expand.conv" in times
    assert len(times) == 1 + 8 * 3 + 4  # the stem, three layers a block, four projections
    assert all(min(row) > 0 for row in times.values())


def test_layers_are_not_timed_in_training():
    with pytest.raises(ConfigError, match="--layers is for fp32 inference"):
        Case("c2d_r26", 0.0, SMALL, train=True).layer_times()


def test_pytorchvideo_is_measured_beside():
    theirs = Case("i3d_r50", 0.0, (3, 8, 32, 32), source="pytorchvideo")
    measured = Measured(theirs, 3.0, 1.5, 1.4, 1.0, low=1.4, high=1.6, rounds=9)

    assert theirs.macs() == pytest.approx(Case("i3d_r50", 0.0, (3, 8, 32, 32)).macs(), rel=0.1)
    assert verdict([measured, measured]) == "pytorchvideo takes 1.50 times as long (1.40 to 1.60)"


def test_pytorchvideo_has_not_every_network():
    with pytest.raises(
        ConfigError, match="pytorchvideo has no network 'i3d_nln_r50' to compare with"
    ):
        Case("i3d_nln_r50", 0.0, SMALL, source="pytorchvideo").create()


def test_multiply_adds_that_a_case_leaves_out_are_logged(monkeypatch, caplog):
    cost = SimpleNamespace(macs=5, uncounted=("rnn.weight",))
    monkeypatch.setattr(benchmark, "count", lambda *of: cost)

    with caplog.at_level("WARNING"):
        assert Case("c2d_r26", 0.0, SMALL).macs() == 5

    assert "multiply-adds of c2d_r26, without those of rnn.weight" in caplog.text
