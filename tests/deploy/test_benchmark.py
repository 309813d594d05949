"""The benchmark measures what it says, in turns."""

import json
import sys

import pytest
import torch

from octvideo.deploy.benchmark import (
    Case,
    Measured,
    compare,
    compare_layers,
    interleaved,
    seconds_of,
    verdict,
)
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
    faster = Measured(Case("m", 0.5, SMALL), 1.0, 0.7, 0.65, 0.6)
    slower = Measured(Case("m", 0.1, SMALL), 1.0, 1.2, 1.1, 0.9)

    assert verdict([faster, faster]) == "alpha 0.5 pays: 35% less time for 40% fewer multiply-adds"
    assert verdict([faster, slower]) == "alpha 0.1 does not pay here"


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

    Case("c2d_r26", 0.5, SMALL, train=True, compiled=True).make()()

    assert len(compiled) == 1


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
        Case("c2d_r26", 0.0, SMALL, engine=engine, compiled=True).make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "i3d_r5"], "did you mean"),
        (["--layers", "--bf16"], "--layers is for fp32 inference"),
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
    assert [m["case"]["alpha"] for m in json.loads((tmp_path / "b.json").read_text())] == [0.0, 0.5]


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
    measured = Measured(theirs, 3.0, 1.5, 1.4, 1.0)

    assert theirs.macs() == pytest.approx(Case("i3d_r50", 0.0, (3, 8, 32, 32)).macs(), rel=0.1)
    assert (
        verdict([measured, measured])
        == "pytorchvideo takes 1.50 times as long (fastest calls: 1.40)"
    )


def test_pytorchvideo_has_not_every_network():
    with pytest.raises(
        ConfigError, match="pytorchvideo has no network 'i3d_nln_r50' to compare with"
    ):
        Case("i3d_nln_r50", 0.0, SMALL, source="pytorchvideo").create()
