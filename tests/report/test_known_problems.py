"""Versions known to be wrong or slow are named, and others are not."""

import pytest
import torch

from octvideo.report.known_problems import (
    Installation,
    cpu_flags,
    cudnn_version,
    known_problems,
)

AMX = frozenset({"avx512f", "avx512_bf16", "amx_bf16", "amx_tile"})
AVX2 = frozenset({"avx", "avx2", "fma"})


def first_words(torch_version, cudnn, flags=AMX):
    return [
        line.partition(":")[0] for line in known_problems(Installation(torch_version, cudnn, flags))
    ]


@pytest.mark.parametrize(
    ("torch_version", "cudnn", "words"),
    [((2, 7, 1), (9, 5, 1), []), ((2, 8, 0), (9, 7, 1), []), ((2, 8, 0), (9, 8, 0), ["wrong"]),
     ((2, 8, 0), (9, 10, 2), ["wrong"]), ((2, 8, 0), (9, 13, 0), []), ((2, 9, 0), (9, 10, 2), ["slow"]),
     ((2, 9, 0), (9, 15, 0), ["slow"]), ((2, 9, 1), (9, 13, 0), ["slow"]), ((2, 9, 1), (9, 15, 0), []),
     ((2, 11, 0), (9, 10, 2), ["slow"]), ((2, 11, 0), (9, 17, 1), []), ((2, 9, 0), None, [])],
)  # fmt: skip
def test_torch_and_cudnn_that_are_wrong_or_slow_together(torch_version, cudnn, words):
    assert first_words(torch_version, cudnn) == words


@pytest.mark.parametrize(
    ("flags", "words"),
    [(AVX2, ["slow"]), (AVX2 | {"avx512f"}, ["slow"]), (AMX, []), (AVX2 | {"avx512_bf16"}, []),
     (frozenset({"asimd", "bf16"}), []), (frozenset({"asimd"}), ["slow"]), (None, [])],
)  # fmt: skip
def test_a_cpu_without_instructions_for_bf16_is_named(flags, words):
    assert first_words((2, 13, 0), None, flags) == words


def test_every_line_says_what_to_do():
    everything = known_problems(Installation((2, 8, 0), (9, 10, 2), AVX2))
    everything += known_problems(Installation((2, 9, 0), (9, 10, 2), AVX2))

    assert {line for line in everything if "install" in line or "leave" in line} == set(everything)


@pytest.mark.parametrize(
    ("number", "version"), [(91002, (9, 10, 2)), (90800, (9, 8, 0)), (8902, (8, 9, 2))]
)
def test_a_number_of_cudnn_is_read(number, version):
    assert cudnn_version(number) == version


@pytest.mark.parametrize(
    ("text", "flags"),
    [("model name\t: A\nflags\t\t: fpu avx2\n\nflags\t\t: fpu\n", {"fpu", "avx2"}),
     ("Features\t: asimd bf16\n", {"asimd", "bf16"}), ("model name\t: A\n", None)],
)  # fmt: skip
def test_the_flags_of_a_cpu_are_read(tmp_path, text, flags):
    (tmp_path / "cpuinfo").write_text(text)

    assert cpu_flags(tmp_path / "cpuinfo") == flags


def test_where_nobody_tells_the_flags_there_are_none(tmp_path):
    assert cpu_flags(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("name", "version"), [("2.11.0+cu130", (2, 11, 0)), ("2.9.1", (2, 9, 1)), ("2.13.0a0+git1", (2, 13, 0))]
)  # fmt: skip
def test_this_installation_is_read(monkeypatch, name, version):
    monkeypatch.setattr(torch, "__version__", name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)

    here = Installation.here()

    assert (here.torch, here.cudnn) == (version, (9, 10, 2))
