"""What a person and their tools see of a run."""

import io
import json
import logging
import re
import sys
import time

import pytest
import tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from octvideo.engine.log import setup_logging
from octvideo.engine.training.records import Clock, JsonLines, Tally
from octvideo.engine.training.run_log import clip_strip, starvation_verdict


def test_json_lines_are_cut_back_to_a_size(tmp_path):
    path = str(tmp_path / "metrics.jsonl")
    lines = JsonLines(path)
    lines.write({"step": 1})
    size = lines.secure()
    lines.write({"step": 2})
    lines.close()

    JsonLines(path, keep_bytes=size).close()

    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


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
