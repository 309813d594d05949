"""Checkpoint files: whole or absent, whatever happens while they are written."""

import logging
import os
import random
from pathlib import Path

import pytest
import tiny
import torch
from full_disk import room_for

from octvideo.engine.checkpoint_files import (
    checkpoint_name,
    find_latest,
    has_begun,
    list_checkpoints,
    prune,
    read_latest,
    read_whole,
)
from octvideo.errors import CheckpointError
from octvideo.torch_file import read_torch_file, write_torch_file


class PowerCut(BaseException):
    """Stands for the end of the process: nothing catches it."""


def write(folder: Path, *epochs: int) -> list[str]:
    paths = [f"{folder}/{checkpoint_name(e)}" for e in epochs]
    for path, e in zip(paths, epochs, strict=True):
        write_torch_file(path, {"epoch": e, "w": torch.full((500,), e)})
    return paths


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_saved_is_loaded(tmp_path, mapped):
    path = write(tmp_path, 3)[0]

    state = read_torch_file(path, mapped=mapped)

    assert path.endswith("checkpoint_epoch_00003.pyth")
    assert state["epoch"] == 3
    assert torch.equal(state["w"], torch.full((500,), 3))


def test_names_sort_in_the_order_of_training():
    names = [checkpoint_name(*at) for at in [(0, 5), (1, 0), (1, 7), (1, 200), (2, 0), (10, 0)]]

    assert names == sorted(names)


@pytest.mark.parametrize("step", ["save", "fsync", "replace", "fsync_folder"])
def test_a_power_cut_at_any_step_of_a_write_leaves_a_good_newest_file(tmp_path, monkeypatch, step):
    write(tmp_path, 1)

    def cut(*_args, **_kwargs):
        raise PowerCut

    if step == "save":
        monkeypatch.setattr(torch, "save", lambda state, file: (file.write(b"half a check"), cut()))
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", cut)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", cut)
    else:
        monkeypatch.setattr("octvideo.files.fsync_folder", cut)
    with pytest.raises(PowerCut):
        write(tmp_path, 2)
    monkeypatch.undo()

    newest = find_latest(str(tmp_path))

    assert newest is not None
    assert read_torch_file(newest)["epoch"] == (2 if step == "fsync_folder" else 1)


def test_a_bit_that_flips_anywhere_is_never_taken_for_whole(tmp_path):
    """Headers and directories of the zip too: what a reader raises for them is of many kinds."""
    first, second = write(tmp_path, 1, 2)
    content = Path(second).read_bytes()
    for place in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        Path(second).write_bytes(damaged)

        newest = find_latest(str(tmp_path))

        if newest != first:  # a byte that pads
            state = read_torch_file(second)
            assert state["epoch"] == 2
            assert torch.equal(state["w"], torch.full((500,), 2))


def test_bytes_of_any_kind_that_change_anywhere_are_never_taken_for_whole(tmp_path):
    first, second = write(tmp_path, 1, 2)
    content = Path(second).read_bytes()
    draw = random.Random(0)
    for _ in range(40):
        start, end = sorted(draw.randrange(len(content)) for _ in range(2))
        some = draw.randbytes(draw.randint(1, 300))
        for damaged in (
            content[:start],
            content[:start] + content[end:],
            content[:start] + some + content[start + len(some) :],
            content[:start] + bytes(len(some)) + content[start + len(some) :],
        ):
            Path(second).write_bytes(damaged)

            path, state = read_latest(str(tmp_path))

            assert path == first or torch.equal(state["w"], torch.full((500,), 2))


@pytest.mark.parametrize("damage", ["truncated", "torn", "empty", "one byte"])
def test_a_damaged_newest_file_is_passed_over_with_a_message(tmp_path, caplog, monkeypatch, damage):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    first, second = write(tmp_path, 1, 2)
    content = Path(second).read_bytes()
    middle = content.index(torch.full((500,), 2).numpy().tobytes()[:64])
    broken = {
        "truncated": content[: len(content) // 2],
        "torn": content[:middle] + bytes(len(content) - middle),
        "empty": b"",
        "one byte": content[:middle] + b"\xff" + content[middle + 1 :],
    }
    Path(second).write_bytes(broken[damage])

    assert find_latest(str(tmp_path)) == first
    assert f"{second}: torn or truncated" in caplog.text


def test_no_checkpoint_is_found_in_a_folder_that_is_not_there(tmp_path):
    assert find_latest(str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize("damaged", [False, True])
def test_the_best_one_stands_in_for_numbered_ones_that_are_gone_or_damaged(tmp_path, damaged):
    best = f"{tmp_path}/best.pyth"
    write_torch_file(best, {"epoch": 2})
    first = write(tmp_path, 1)[0]
    assert read_latest(str(tmp_path))[0] == first
    Path(first).write_bytes(b"torn") if damaged else Path(first).unlink()

    assert read_latest(str(tmp_path)) == (best, {"epoch": 2})
    Path(best).write_bytes(b"torn")
    assert find_latest(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "begun"),
    [("best.pyth", True), (checkpoint_name(1), True), ("other.pyth", False), (None, False)],
)
def test_a_run_has_begun_where_one_of_its_checkpoints_lies_whole_or_not(tmp_path, name, begun):
    if name:
        (tmp_path / name).write_bytes(b"torn")

    assert has_begun(str(tmp_path)) == begun
    assert not has_begun(str(tmp_path / "nowhere"))


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    """The write fails in the middle."""
    first = write(tmp_path, 1)[0]

    with room_for(60_000), pytest.raises(CheckpointError, match="earlier checkpoints are whole"):
        write_torch_file(f"{tmp_path}/{checkpoint_name(2)}", {"w": torch.zeros(100_000)})

    assert find_latest(str(tmp_path)) == first
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_epoch_00001.pyth"]


def test_the_newest_are_kept_and_best_is_not_counted(tmp_path):
    write(tmp_path, 1, 2, 3)
    write_torch_file(f"{tmp_path}/{checkpoint_name(3, 8)}", {})
    write_torch_file(f"{tmp_path}/best.pyth", {})
    (tmp_path / "checkpoint_epoch_00002.pyth.tmp").write_bytes(b"a write that was killed")

    prune(str(tmp_path), keep=2, written=f"{tmp_path}/{checkpoint_name(3, 8)}")

    names = [Path(path).name for path in list_checkpoints(str(tmp_path))]
    assert names == ["checkpoint_epoch_00003.pyth", "checkpoint_epoch_00003_sample_00000008.pyth"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pyth", *names]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_checkpoints_take_no_place_and_go_when_training_has_passed_them(tmp_path, keep):
    first, second, early, third, late = write(tmp_path, 1, 2, 3, 4, 5)
    damaged = {early, late}

    prune(str(tmp_path), keep, written=second, damaged=damaged)

    assert list_checkpoints(str(tmp_path)) == [first, second, early, third, late][2 - keep :]

    prune(str(tmp_path), keep, written=third, damaged=damaged)

    assert list_checkpoints(str(tmp_path)) == [*[second][2 - keep :], third, late]


def test_a_checkpoint_that_carries_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    path = tmp_path / checkpoint_name(1)
    torch.save({"model_state": Attack()}, path)

    with pytest.raises(CheckpointError, match="refused"):
        read_torch_file(str(path))
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "damaged"), (b"not a checkpoint at all", "checkpoint")],
)
def test_what_is_no_checkpoint_is_a_clear_error(tmp_path, content, message, mapped):
    path = tmp_path / "some.pyth"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        read_torch_file(str(path), mapped=mapped)


def test_a_bare_tensor_is_not_a_checkpoint(tmp_path):
    torch.save(torch.zeros(2), tmp_path / "tensor.pyth")

    with pytest.raises(CheckpointError, match="holds a Tensor"):
        read_torch_file(str(tmp_path / "tensor.pyth"))


@pytest.mark.usefixtures("store")
def test_a_registered_path_handler_serves_checkpoints(tmp_path):
    path = f"store://run/checkpoints/{checkpoint_name(1)}"
    write_torch_file(path, {"epoch": 1})

    assert path == "store://run/checkpoints/checkpoint_epoch_00001.pyth"
    assert (tmp_path / "run/checkpoints/checkpoint_epoch_00001.pyth").exists()
    assert read_whole(path) is not None
    assert find_latest("store://run/checkpoints") == path
    assert read_torch_file(path)["epoch"] == 1


@pytest.mark.usefixtures("store")
def test_a_run_in_a_store_resumes_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    tiny.make_trainer("store://parts", max_iter=6).train()
    tiny.make_trainer("store://parts").train()
    tiny.make_trainer("store://whole").train()

    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (
        tmp_path / "whole/metrics.jsonl"
    ).read_bytes()
    assert not (tmp_path / "store:").exists()
