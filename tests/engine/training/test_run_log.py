"""What a person and their tools see of a run."""

import errno
import io
import json
import logging
import re
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from octvideo.engine.log import setup_logging
from octvideo.engine.training.board import Board
from octvideo.engine.training.records import Clock, JsonLines, Tally
from octvideo.engine.training.run_log import clip_strip, cut_back, starvation_verdict
from octvideo.engine.training.state import Position


def lines_of(folder, name="metrics"):
    lines = (folder / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_json_lines_are_cut_back_to_a_checkpoint(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    metrics, timing = tmp_path / "metrics.jsonl", tmp_path / "timing.jsonl"
    lines = JsonLines(str(metrics))
    lines.write({"_type": "train_iter", "epoch": 1, "step": 1})
    lines.write({"_type": "train_epoch", "epoch": 1, "step": 1})
    lines.write({"_type": "val_epoch", "epoch": 1, "step": 1})
    size = lines.secure()
    lines.write({"_type": "train_iter", "epoch": 2, "step": 2})
    lines.close()
    first = '{"_type": "train_iter", "epoch": 1, "step": 1}\n{"_type": "train_epoch", "epoch": 1}\n'
    timing.write_text(f'{first}{{"_type": "train_iter", "epoch": 2, "step": 2}}\n{{"st')

    cut_back(str(metrics), str(timing), size, Position(2, 3, 0, 1, 1, 3))

    assert [record["step"] for record in lines_of(tmp_path)] == [1, 1, 1]
    assert timing.read_text() == first
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, r"gone since the checkpoint of step 9 .* lost, and the record begins"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-9]),
            r"no longer whole \(it ends at step \d\) since .*lost, and the record goes on",
        ),
    ],
)
def test_a_record_that_is_gone_is_told_and_goes_on(tmp_path, caplog, monkeypatch, change, said):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    tiny.make_trainer(tmp_path, max_iter=9).train()
    whole, timed = lines_of(tmp_path), lines_of(tmp_path, "timing")
    change(tmp_path / "metrics.jsonl")

    tiny.make_trainer(tmp_path).train()

    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert re.search(rf"metrics\.jsonl: {said} in epoch 3$", warnings[0])
    records = lines_of(tmp_path)
    kept = [record for record in records if record["epoch"] < 3]
    assert kept == whole[: len(kept)]
    assert len(kept) in (0, len(whole) - 1)
    assert records[len(kept)]["epoch"] == 3
    assert lines_of(tmp_path, "timing")[: len(timed)] == timed


def test_a_run_that_is_killed_behind_a_lost_record_has_no_step_twice(tmp_path):
    tiny.make_trainer(tmp_path, max_iter=6).train()
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f'{{"_type": "train_iter", "epoch": 2, "step": {k}}}\n' for k in range(8, 40))
    )

    tiny.make_trainer(tmp_path, max_iter=12).train()

    steps = [r["step"] for r in lines_of(tmp_path) if r["_type"] == "train_iter"]
    assert steps == [8, 10, 12]


def test_a_run_that_goes_on_has_each_line_of_its_clocks_once(tmp_path):
    """Stopped in the middle of an epoch; lines that came after the checkpoint are written again."""
    tiny.make_trainer(tmp_path, max_iter=8).train()
    for name in ("metrics", "timing"):
        with (tmp_path / f"{name}.jsonl").open("a") as file:
            file.write('{"_type": "train_iter", "epoch": 2, "step": 10}\n{"torn')

    tiny.make_trainer(tmp_path).train()

    timing, metrics = lines_of(tmp_path, "timing"), lines_of(tmp_path)
    assert [(r["_type"], r["epoch"], r.get("iter")) for r in timing] == [
        (r["_type"], r["epoch"], r.get("iter")) for r in metrics if r["_type"] != "val_epoch"
    ]


def test_errors_are_per_cent_of_clips():
    assert Tally(clips=8, loss=4.0, hits1=6, hits5=8).means() == {
        "loss": 0.5,
        "top1_err": 25.0,
        "top5_err": 0.0,
    }


def test_the_clock_tells_waiting_from_working():
    clock = Clock()
    time.sleep(0.03)
    clock.got_data()
    clock.did_step(clips=8)

    assert clock.data_share > 0.9
    assert clock.rates()["clips_per_second"] == pytest.approx(8 / clock.seconds)


def test_a_starving_device_is_told_what_to_do():
    assert starvation_verdict(Clock(data=10, net=90)) is None
    assert (
        starvation_verdict(Clock(data=62, net=38))
        == "data 62%: raise DATA_LOADER.NUM_WORKERS or run `octvideo resize`"
    )


def test_an_epoch_that_starved_ends_with_the_verdict(tmp_path, capsys):
    setup_logging()

    tiny.make_trainer(
        tmp_path, max_epoch=1, loader=tiny.TinyLoader(batch_size=8, seconds=0.3)
    ).train()

    assert re.search(
        r"^data \d+%: raise DATA_LOADER.NUM_WORKERS", capsys.readouterr().out, re.MULTILINE
    )


def test_a_strip_shows_frames_side_by_side():
    clip = torch.arange(2).view(1, 2, 1, 1).expand(3, 2, 4, 5)

    strip = clip_strip(clip)

    assert strip.shape == (3, 4, 10)
    assert strip[0, 0].tolist() == [0] * 5 + [1] * 5
    assert clip_strip(torch.zeros(3, 4, 5)).shape == (3, 4, 5)


def test_the_log_file_has_pyslowfast_s_lines(tmp_path, capsys):
    setup_logging(str(tmp_path))

    tiny.make_trainer(tmp_path, max_epoch=1).train()

    lines = (tmp_path / "stdout.log").read_text().splitlines()
    stats = [json.loads(line.split("json_stats: ")[1]) for line in lines if "json_stats: " in line]
    first = stats[0]
    assert first["_type"] == "train_iter"
    assert (first["epoch"], first["iter"]) == ("1/1", "2/6")
    assert first.keys() >= {
        "dt",
        "dt_data",
        "dt_net",
        "eta",
        "loss",
        "lr",
        "grad_norm",
        "top1_err",
        "top5_err",
    }
    assert [s["_type"] for s in stats] == ["train_iter"] * 3 + ["train_epoch", "val_epoch"]
    console = capsys.readouterr().out
    assert "epoch 1/1  6/6  loss" in console
    assert "epoch 1/1 validation  top1_err" in console
    assert "json_stats" not in console


@pytest.mark.usefixtures("store")
def test_the_log_file_may_stand_in_a_store(tmp_path):
    (tmp_path / "run").mkdir()
    setup_logging("store://run")

    logging.getLogger("octvideo").info("hello")

    assert "hello" in (tmp_path / "run/stdout.log").read_text()


def test_on_a_terminal_a_bar_shows_where_the_run_stands(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())

    tiny.make_trainer(
        tmp_path, max_epoch=1, loader=tiny.TinyLoader(batch_size=8, seconds=0.12)
    ).train()

    shown = sys.stderr.getvalue()
    assert "epoch 1/1:" in shown
    assert "5/6" in shown
    assert all(word in shown for word in ("loss", "top-1", "lr", "data", "clips/s", "GB"))


def test_other_ranks_are_silent(tmp_path, capsys):
    setup_logging(str(tmp_path), is_main=False)

    logging.getLogger("octvideo").info("hello")

    assert capsys.readouterr().out == ""
    assert not (tmp_path / "stdout.log").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_pyslowfast_s_tags_and_clips(tmp_path):
    tiny.make_trainer(tmp_path, tensorboard=True).train()

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = set(events.Tags()["scalars"])
    assert tags >= {"Train/loss", "Train/lr", "Train/Top1_err", "Train/Top5_err", "Val/Top1_err"}
    assert events.Tags()["images"] == [f"Train/clip_{i}" for i in range(4)]
    image = events.Images("Train/clip_0")[0]
    assert (image.height, image.width) == (6, 12)
    assert [event.step for event in events.Scalars("Val/Top1_err")] == [6, 12, 18]


def points(folder, tag):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_after_a_resume_is_that_of_an_undisturbed_run(tmp_path):
    """The points of the step that the run goes on from stay, validation's too; later ones are
    replaced."""
    tiny.make_trainer(tmp_path / "whole", tensorboard=True, log_period=1).train()
    parts = tmp_path / "parts"
    tiny.make_trainer(parts, tensorboard=True, log_period=1, max_epoch=3).train()
    for epoch in (2, 3):
        (parts / f"checkpoints/checkpoint_epoch_{epoch:05d}.pyth").unlink()
    assert points(parts, "Train/loss")[-1][0] == 18

    tiny.make_trainer(parts, tensorboard=True, log_period=1).train()

    for tag in ("Train/loss", "Train/lr", "Val/Top1_err"):
        assert points(parts, tag) == points(tmp_path / "whole", tag)
    assert [step for step, _ in points(parts, "Val/Top1_err")] == [6, 12, 18]


class FullDisk(io.RawIOBase):
    """A file that takes `room` bytes; the rest of a write stays with the writer."""

    def __init__(self, path, room):
        self.file, self.room = path.open("ab", buffering=0), room

    def write(self, content):
        taken = bytes(content)[: self.room]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        return self.file.write(taken)

    def close(self):
        self.file.close()
        super().close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_full_disk_is_a_line_and_tensorboard_goes_on_when_there_is_room(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    board = Board(str(tmp_path / "tensorboard"), step=0)
    board.add_scalar("Train/loss", 3.0, 1)
    path = next((tmp_path / "tensorboard").iterdir())
    board._file.close()
    board._file = FullDisk(path, room=30)

    for step in range(2, 5):
        board.add_scalar("Train/loss", 3.0, step)
    assert len(caplog.records) == 1
    assert "TensorBoard's file cannot be written (No space left on device)" in caplog.text
    board._file.room = 10**6
    board.add_scalar("Train/loss", 3.0, 5)
    board.close()

    assert points(tmp_path, "Train/loss") == [(step, 3.0) for step in range(1, 6)]
