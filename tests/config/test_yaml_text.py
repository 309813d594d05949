"""YAML from outside costs a second and some memory at most, and its messages fit a screen."""

import os
import time

import pytest
from peak_memory import peak_growth_below

from octvideo.config import config_from_text, load_config
from octvideo.config.yaml_text import parse_value, value_text
from octvideo.errors import ConfigError


def aliases(depth, opening, closing, first, again):
    lines = [f"  a0: &a0 {opening}{first}{closing}"]
    for level in range(1, depth + 1):
        inside = ", ".join(again.format(j, level - 1) for j in range(8))
        lines.append(f"  a{level}: &a{level} {opening}{inside}{closing}")
    return "AVA:\n" + "\n".join(lines) + "\n"


BOMBS = {
    "dicts": aliases(9, "{", "}", "x: 1", "y{}: *a{}"),
    "lists": aliases(9, "[", "]", "1", "*a{1}") + "DATA: {MEAN: *a9}\n",
    "merged keys": aliases(9, "{<<: [", "]}", "{x: 1}", "*a{1}"),
    "a list in itself": "AVA: &a [*a, *a]\n",
    "many values": "AVA: [" + "1, " * 300_000 + "1]\n",
    "deep lists": "AVA: " + "[" * 100_000,
    "deep blocks": "\n".join("  " * i + "a:" for i in range(1000)),
    "a long number": "DATA: {NUM_FRAMES: " + "1" * 900_000 + "}\n",
    "a long number base 60": "DATA: {NUM_FRAMES: " + "1:" * 300_000 + "1}\n",
    "a long number base 16": "DATA: {NUM_FRAMES: 0x" + "f" * 900_000 + "}\n",
    "a long word": "DATA: {NUM_FRAMES: " + "word" * 200_000 + "}\n",
    "a long key": "DATA: {" + "word" * 200_000 + ": 1}\n",
    "many wrong values": "DATA: {MEAN: [" + "word, " * 5_000 + "word]}\n",
    "many megabytes": "#" * 3_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_that_would_grow_is_refused(tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(BOMBS[name])
    start = time.process_time()

    for load in (lambda: load_config(str(path)), lambda: config_from_text(BOMBS[name], str(path))):
        with (
            peak_growth_below(300_000 * 1024),
            pytest.raises(ConfigError, match=r"mine\.yaml") as error,
        ):
            load()
        assert len(str(error.value)) < 2000

    assert time.process_time() - start < 6


@pytest.mark.parametrize("name", ["many values", "deep lists", "a long number"])
def test_a_value_of_the_command_line_is_bounded_as_well(repo, name):
    value = BOMBS[name].partition(": ")[2]

    with pytest.raises(ConfigError):
        load_config(str(repo / "configs/demo/i3d.yaml"), [f"DATA.MEAN={value}"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E4", -2e4),
        ("+.5e1", 5.0),
        ("1.e2", 100.0),
        ("{width: 1e-1, sizes: [2e0, 3]}", {"width": 0.1, "sizes": [2.0, 3]}),
        ("'1e5'", "1e5"),
        ("1e5x", "1e5x"),
        ("e5", "e5"),
    ],
)
def test_a_value_with_an_exponent_is_a_number_and_is_written_as_it_is_read(text, value):
    found = parse_value(text)

    assert (found, type(found)) == (value, type(value))
    assert parse_value(value_text(value)) == value


def test_a_number_with_an_exponent_is_one_in_a_file_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("BN: {MOMENTUM: 1e-1}\nSOLVER: {MAX_ITER: 1e3}\n")

    # BN.MOMENTUM, of which only 0.1 is taken, goes through.
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER is 1000\.0; it takes a whole number"):
        load_config(str(path))


def test_a_base_is_read_once_and_a_chain_ends(tmp_path):
    (tmp_path / "0.yaml").write_text("SOLVER: {BASE_LR: 0.5}\n")
    for level in range(1, 15):
        both = f"[{level - 1}.yaml, {level - 1}.yaml]"
        (tmp_path / f"{level}.yaml").write_text(f"_BASE_: {both}\n")
    (tmp_path / "other.yaml").write_text("_BASE_: 0.yaml\nSOLVER: {BASE_LR: 0.25}\n")
    (tmp_path / "both.yaml").write_text("_BASE_: [other.yaml, 3.yaml]\n")

    assert load_config(str(tmp_path / "14.yaml")).SOLVER.BASE_LR == 0.5
    assert load_config(str(tmp_path / "both.yaml")).SOLVER.BASE_LR == 0.25
    for level in range(15, 40):
        (tmp_path / f"{level}.yaml").write_text(f"_BASE_: {level - 1}.yaml\n")
    with pytest.raises(ConfigError, match="longer than 20"):
        load_config(str(tmp_path / "39.yaml"))


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_regular_file_is_not_read(tmp_path, kind):
    path = tmp_path / "base.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    (tmp_path / "mine.yaml").write_text("_BASE_: base.yaml\n")

    with pytest.raises(ConfigError, match=r"base\.yaml: is not a file"):
        load_config(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("seed", [-1, 2**31, 2**64, 10**90])
def test_a_seed_that_no_generator_takes_is_refused(repo, seed):
    with pytest.raises(ConfigError, match="RNG_SEED is"):
        load_config(str(repo / "configs/demo/i3d.yaml"), [f"RNG_SEED={seed}"])
