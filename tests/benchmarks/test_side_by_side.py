"""Trainings beside each other: what ends them, and what is begun again."""

import pytest
import torch
from torch import nn


@pytest.fixture
def begun(tmp_path):
    """Names of the runs that were begun, in this order."""
    path = tmp_path / "begun"
    return lambda: path.read_text().split() if path.is_file() else []


def command(tmp_path, line):
    """A shell in which $1 is the name of the run."""
    return ["sh", "-c", f'echo "$1" >> {tmp_path}/begun; {line}']


def test_a_run_that_a_signal_ends_goes_on_once(side_by_side, begun, tmp_path, capsys):
    first_time = command(tmp_path, f"[ $(grep -c . {tmp_path}/begun) -gt 1 ] || kill -SEGV $$")

    assert side_by_side.run_all([("a",)], first_time, 1, 1) == 0

    assert begun() == ["a", "a"]
    assert capsys.readouterr().out.splitlines() == [
        "a: ended with status -11, goes on",
        "a: done",
        "1 of 1 runs ended; the same command does the rest",
    ]


def test_a_run_that_a_signal_ends_twice_has_failed(side_by_side, begun, tmp_path):
    assert side_by_side.run_all([("a",)], command(tmp_path, "kill -SEGV $$"), 1, 1) == 1

    assert begun() == ["a", "a"]


def test_a_run_with_an_error_is_not_begun_again(side_by_side, begun, tmp_path):
    assert side_by_side.run_all([("a",), ("b",)], command(tmp_path, "exit 3"), 1, 1) == 2

    assert begun() == ["a", "b"]


def test_the_deadline_ends_what_is_under_way(side_by_side, begun, tmp_path, capsys):
    ended = side_by_side.run_all(
        [("a",), ("b",), ("c",)], command(tmp_path, "exec sleep 60"), 2, 0.01
    )

    assert (ended, sorted(begun())) == (0, ["a", "b"])
    assert capsys.readouterr().out.startswith("0 of 3 runs ended")


@pytest.mark.parametrize(
    ("flags", "named", "computed"),
    [
        ({"avx2": True, "avx512_bf16": False}, "CPU, fp32", torch.float32),
        ({"avx2": True, "avx512_bf16": True}, "CPU", torch.bfloat16),
    ],
)
def test_a_cpu_without_bfloat16_computes_in_float32_and_the_records_say_so(
    side_by_side, benchmarks, monkeypatch, flags, named, computed
):
    graph = benchmarks("graph_training")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = nn.Linear(2, 3)
    seen = []
    model.register_forward_hook(lambda _, __, logits: seen.append(logits.dtype))
    data = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    work = graph.Work(
        1,
        lambda _: torch.zeros(2, 4, 1, dtype=torch.int64),
        lambda _: data,
        [(lambda: data[0], data[1])],
        lambda _: 0.1,
    )

    list(graph.Trainee(model, torch.optim.SGD(model.parameters()), work).train())

    assert (side_by_side.machine(), set(seen)) == (named, {computed})
