"""A run that is interrupted and started again ends as if nothing had happened, bit for bit."""

import contextlib
import importlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from forked import start_forked

from octvideo import files
from octvideo.data import Loader, Sample
from octvideo.data.loading.batch import Problem
from octvideo.engine import checkpoint_files
from octvideo.engine.distributed import Processes
from octvideo.engine.training.state import Callbacks, Plan, Progress
from octvideo.errors import CheckpointError, ConfigError, DataError, OctvideoError

EVERYTHING = {
    "ema_decay": 0.9,
    "precise_bn_batches": 2,
    "precise_bn_first": 2,
    "accum_steps": 2,
    "eval_period": 2,
    "checkpoint_period": 2,
}


class Crash(BaseException):
    """Stands for SIGKILL inside one process: nothing in the engine catches it."""


def nth_call(target, n, error=Crash):
    """target, but its n-th call (from 1) raises."""
    calls = itertools.count(1)

    def wrapped(*args, **kwargs):
        if next(calls) == n:
            raise error
        return target(*args, **kwargs)

    return wrapped


class CrashingLoader(tiny.TinyLoader):
    """Crashes, or does something else, before the n-th batch that it gives."""

    def __init__(self, n, action):
        super().__init__(batch_size=8)
        self.n, self.action, self.given = n, action, 0

    def epoch(self, epoch, start_sample=0):
        for batch in super().epoch(epoch, start_sample):
            self.given += 1
            if self.given == self.n:
                self.action()
            yield batch


def crash():
    raise Crash


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """whole(**options): the folder of a run with these options that nothing interrupted."""
    made = {}

    def train(**options):
        key = str(options)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole")
            tiny.make_trainer(made[key], **options).train()
        return made[key]

    return train


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("batch", [1, 5, 9, 16])
def test_a_crash_in_the_middle_of_an_epoch_changes_nothing(
    tmp_path, differences, whole, options, batch
):
    options = {**options, "checkpoint_minutes": 1e-9}

    with pytest.raises(Crash):
        tiny.make_trainer(
            tmp_path / "cut",
            loader=CrashingLoader(batch, crash),
            **options,
        ).train()
    summary = tiny.make_trainer(tmp_path / "cut", **options).train()

    assert summary.finished
    assert differences(whole(**options), tmp_path / "cut") == []


@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("step", ["save", "fsync", "replace", "fsync_folder", "prune"])
def test_a_crash_at_any_step_of_any_checkpoint_changes_nothing(
    tmp_path, differences, whole, monkeypatch, step, call
):
    owner, name = {
        "save": (torch, "save"),
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
        "fsync_folder": (files, "fsync_folder"),
        "prune": (sys.modules["octvideo.engine.training.snapshots"], "prune"),
    }[step]
    monkeypatch.setattr(owner, name, nth_call(getattr(owner, name), call))
    with contextlib.suppress(Crash):  # the last calls of some steps never come
        tiny.make_trainer(tmp_path / "cut").train()
    monkeypatch.undo()
    tiny.make_trainer(tmp_path / "cut").train()

    assert differences(whole(), tmp_path / "cut") == []


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_crash_during_validation_changes_nothing(tmp_path, differences, whole, call):
    crashing = {"validate": nth_call(tiny.validate, call)}
    with pytest.raises(Crash):
        tiny.make_trainer(tmp_path / "cut", parts=crashing).train()
    tiny.make_trainer(tmp_path / "cut").train()

    assert differences(whole(), tmp_path / "cut") == []


def test_a_validation_that_can_read_nothing_loses_no_epoch(tmp_path, differences, whole):
    def unread(model):
        for buffer in model.buffers():
            buffer.zero_()
        raise DataError("8 of 8 videos cannot be read")

    with pytest.raises(DataError):
        tiny.make_trainer(
            tmp_path / "cut", parts={"validate": unread}, checkpoint_period=10
        ).train()
    assert list((tmp_path / "cut/checkpoints").glob("checkpoint_*"))
    tiny.make_trainer(tmp_path / "cut").train()

    assert differences(whole(), tmp_path / "cut") == []


def test_a_torn_newest_checkpoint_costs_an_epoch_and_changes_nothing(tmp_path, differences, whole):
    tiny.make_trainer(tmp_path / "cut").train()
    newest = tmp_path / "cut/checkpoints/checkpoint_epoch_00003.pyth"
    newest.write_bytes(newest.read_bytes()[:5000])

    tiny.make_trainer(tmp_path / "cut").train()

    assert differences(whole(), tmp_path / "cut") == []


def found(*errors):
    """A validation that finds these errors, one after another."""
    values = iter(errors)
    return {"validate": lambda model: {"top1_err": next(values)}}


def test_a_damaged_checkpoint_displaces_none_that_training_writes_before_it(tmp_path, differences):
    folder, one = tmp_path / "cut/checkpoints", {"keep_checkpoints": 1}
    tiny.make_trainer(tmp_path / "whole", parts=found(10.0, 20.0, 30.0), **one).train()
    tiny.make_trainer(tmp_path / "cut", parts=found(10.0, 20.0, 30.0), **one).train()
    damaged = folder / "checkpoint_epoch_00003.pyth"
    damaged.write_bytes(damaged.read_bytes()[:5000])

    loader = CrashingLoader(9, crash)  # in epoch 3: best.pyth is of epoch 1
    with pytest.raises(Crash):
        tiny.make_trainer(tmp_path / "cut", loader=loader, parts=found(20.0), **one).train()

    assert checkpoint_files.find_latest(str(folder)) == str(folder / "checkpoint_epoch_00002.pyth")
    assert damaged.stat().st_size == 5000
    tiny.make_trainer(tmp_path / "cut", parts=found(30.0), **one).train()
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def numbered(folder):
    return sorted((folder / "checkpoints").glob("checkpoint_*"))


@pytest.mark.parametrize("lost", ["removed", "torn"])
def test_a_run_that_has_its_best_checkpoint_alone_goes_on_from_it(
    tmp_path, differences, caplog, lost
):
    tiny.make_trainer(tmp_path / "whole", parts=found(50.0, 10.0, 30.0)).train()
    tiny.make_trainer(tmp_path / "cut", parts=found(50.0, 10.0, 30.0)).train()
    for path in numbered(tmp_path / "cut"):
        path.unlink() if lost == "removed" else path.write_bytes(path.read_bytes()[:5000])

    with caplog.at_level(logging.INFO, "octvideo"):
        summary = tiny.make_trainer(tmp_path / "cut", parts=found(30.0)).train()

    assert summary.best == 10.0
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
    assert "best.pyth, of epoch 2, as no numbered checkpoint is whole" in caplog.text


@pytest.mark.parametrize("lost", ["removed", "torn"])
def test_the_best_checkpoint_of_a_finished_run_stands_in_for_its_last_one(
    tmp_path, differences, lost
):
    for folder in ("whole", "cut"):
        tiny.make_trainer(tmp_path / folder, parts=found(50.0, 30.0, 10.0)).train()
    for path in numbered(tmp_path / "cut"):
        path.unlink() if lost == "removed" else path.write_bytes(path.read_bytes()[:5000])

    summary = tiny.make_trainer(tmp_path / "cut").train()

    newest = str(tmp_path / "cut/checkpoints/checkpoint_epoch_00003.pyth")
    assert (summary.finished, summary.checkpoint) == (True, newest)
    assert checkpoint_files.find_latest(str(tmp_path / "cut/checkpoints")) == newest
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_run_of_which_no_checkpoint_is_whole_is_not_begun_anew_over_its_results(tmp_path):
    tiny.make_trainer(tmp_path).train()
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with pytest.raises(CheckpointError, match=r"no checkpoint is whole.*choose another OUTPUT_DIR"):
        tiny.make_trainer(tmp_path).train()

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_has_only_torn_checkpoints_and_no_best_epoch_begins_anew(tmp_path):
    tiny.make_trainer(tmp_path).train()
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink() if path.name == "best.pyth" else path.write_bytes(path.read_bytes()[:5000])

    tiny.make_trainer(tmp_path).train()

    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert (tmp_path / "checkpoints/best.pyth").is_file()


def test_a_best_checkpoint_that_is_no_run_s_is_not_overwritten(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save({"model_state": tiny.TinyNet().state_dict()}, tmp_path / "checkpoints/best.pyth")

    with pytest.raises(CheckpointError, match="which cannot be continued here"):
        tiny.make_trainer(tmp_path).train()


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first = tiny.make_trainer(tmp_path).train()
    metrics = (tmp_path / "metrics.jsonl").read_bytes()

    again = tiny.make_trainer(tmp_path).train()

    assert again == first
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_saves_and_ends_the_run_cleanly(
    tmp_path, differences, caplog, monkeypatch, number
):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    caplog.set_level(logging.INFO)
    tiny.make_trainer(tmp_path / "whole").train()
    before = signal.getsignal(number)

    loader = CrashingLoader(9, lambda: os.kill(os.getpid(), number))
    summary = tiny.make_trainer(tmp_path / "cut", loader=loader).train()

    assert not summary.finished
    assert summary.checkpoint.endswith("checkpoint_epoch_00001_sample_00000016.pyth")
    assert f"stopped by {signal.Signals(number).name}: saved {summary.checkpoint}" in caplog.text
    assert signal.getsignal(number) is before
    tiny.make_trainer(tmp_path / "cut").train()
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_signal_is_not_lost_with_a_run_that_ends_where_it_begins(tmp_path):
    def begin() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise ConfigError("a rehearsal ends here")

    trainer = tiny.make_trainer(tmp_path, parts={"callbacks": Callbacks(on_start=begin)})

    with pytest.raises(KeyboardInterrupt):
        trainer.train()


def test_a_signal_during_validation_does_not_wait_for_its_end(tmp_path, differences):
    tiny.make_trainer(tmp_path / "whole", **EVERYTHING).train()

    def endless(model):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return {}

    summary = tiny.make_trainer(tmp_path / "cut", parts={"validate": endless}, **EVERYTHING).train()

    assert not summary.finished
    assert summary.checkpoint.endswith("checkpoint_epoch_00001_sample_00000048.pyth")
    tiny.make_trainer(tmp_path / "cut", **EVERYTHING).train()
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_signal_during_precise_batch_norm_changes_nothing(tmp_path, differences):
    tiny.make_trainer(tmp_path / "whole", precise_bn_batches=3).train()

    loader = CrashingLoader(
        8, lambda: os.kill(os.getpid(), signal.SIGTERM)
    )  # six batches train, the eighth measures
    summary = tiny.make_trainer(tmp_path / "cut", loader=loader, precise_bn_batches=3).train()

    assert not summary.finished
    tiny.make_trainer(tmp_path / "cut", precise_bn_batches=3).train()
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_signal_during_the_first_measurement_stops_at_once_and_the_next_run_measures_anew(
    tmp_path, differences
):
    tiny.make_trainer(tmp_path / "whole", precise_bn_first=3).train()

    loader = CrashingLoader(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    summary = tiny.make_trainer(tmp_path / "cut", loader=loader, precise_bn_first=3).train()

    assert not summary.finished
    assert summary.checkpoint is None
    tiny.make_trainer(tmp_path / "cut", precise_bn_first=3).train()
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def stop_self():
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_during_precise_batch_norm_saves_the_statistics_of_training(tmp_path):
    last = {}

    class Measured(CrashingLoader):
        def epoch(self, epoch, start_sample=0):
            if self.given >= 6:
                last.update({name: b.clone() for name, b in trainer.model.named_buffers()})
            return super().epoch(epoch, start_sample)

    trainer = tiny.make_trainer(tmp_path, loader=Measured(8, stop_self), precise_bn_batches=3)
    summary = trainer.train()

    state = torch.load(summary.checkpoint, weights_only=True)["model_state"]
    assert {name for name, value in last.items() if not torch.equal(value, state[name])} == set()


@pytest.mark.parametrize(
    ("in_validation", "at"),
    [(False, 1), (False, 2), (True, 2)],
    ids=["average comes in", "weights come back", "weights come back after a signal"],
)
def test_a_signal_while_average_and_weights_are_exchanged_changes_nothing(
    tmp_path, differences, whole, in_validation, at
):
    def validate(model):
        if in_validation:
            stop_self()
        return tiny.validate(model)

    parts = {"validate": validate}
    options = {"ema_decay": 0.9, "precise_bn_batches": 2}
    trainer = tiny.make_trainer(tmp_path / "cut", parts=parts, **options)
    exchanges = itertools.count(1)
    # Called when its weights are in place, and those of the last layer are not.
    trainer.model[1].register_load_state_dict_post_hook(
        lambda *_: stop_self() if next(exchanges) == at else None
    )

    summary = trainer.train()

    assert not summary.finished
    assert summary.stopped_by == "SIGTERM"
    tiny.make_trainer(tmp_path / "cut", **options).train()
    assert differences(whole(**options), tmp_path / "cut") == []


def test_a_signal_before_validation_does_not_wait_for_its_end(tmp_path):
    trainer = tiny.make_trainer(tmp_path, parts={"validate": lambda _: pytest.fail("validated")})
    trainer.epoch_metrics = lambda: stop_self() or {"loss": 1.0, "top1_err": 1.0, "lr": 1.0}

    summary = trainer.train()

    assert summary.checkpoint.endswith("checkpoint_epoch_00000_sample_00000048.pyth")


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def impatient():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tiny.make_trainer(tmp_path, loader=CrashingLoader(3, impatient)).train()


def test_a_trainer_in_another_thread_leaves_signals_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(tiny.make_trainer(tmp_path).train()))
    thread.start()
    thread.join()

    assert results[0].finished


def test_a_loader_that_gives_up_is_heard_after_a_checkpoint(tmp_path):
    loader = tiny.TinyLoader(batch_size=8, fail_at=3)

    with pytest.raises(DataError, match="5 of 20 files are bad"):
        tiny.make_trainer(tmp_path, loader=loader).train()

    assert (tmp_path / "checkpoints/checkpoint_epoch_00001_sample_00000024.pyth").exists()


class BesideAnother(Processes):
    """A rank beside another, of which it hears that it could not read a file."""

    def gather(self, value):
        return [value, {"other.mp4": "torn"}] if isinstance(value, dict) else [value]


@pytest.mark.parametrize(("procs", "is_stopped"), [(Processes(), False), (BesideAnother(), True)])
def test_files_that_ranks_cannot_read_stop_a_run_together(tmp_path, procs, is_stopped):
    class Damaged(Numbers):
        def sample(self, epoch, index):
            problems = (Problem("own.mp4", "torn"),) if index == 9 else ()
            return replace(super().sample(epoch, index), problems=problems)

    loader = Loader(Damaged(24), batch_size=8, shuffle=False, max_bad_ratio=1 / 24)
    trainer = tiny.make_trainer(tmp_path, loader=loader, procs=procs, max_epoch=1)

    with (
        pytest.raises(DataError, match="2 of 24 files") if is_stopped else contextlib.nullcontext()
    ):
        trainer.train()

    last = "epoch_00000_sample_00000008" if is_stopped else "epoch_00001"
    assert (tmp_path / "checkpoints" / f"checkpoint_{last}.pyth").exists()


def test_a_folder_with_another_run_is_not_overwritten(tmp_path):
    tiny.make_trainer(tmp_path).train()

    with pytest.raises(CheckpointError, match="is in the way: choose another OUTPUT_DIR"):
        tiny.make_trainer(tmp_path, auto_resume=False).train()


class Validated:
    """The identity of a run whose data of validation differs as `said`, and its settings so that
    they differ from those of a checkpoint of epoch n as `changes[n]` says."""

    def __init__(self, said="", changes=None):
        self.said, self.changes = said, changes or {}

    def differences(self, checkpoint):
        return self.changes.get(checkpoint.training["epoch"], [])

    def batch_samples(self, checkpoint):
        return 0

    def other_validation(self, checkpoint):
        return self.said


@pytest.mark.parametrize(
    ("said", "max_epoch", "best", "epoch"),
    [("16 entries, then 15", 2, 20.0, 2), ("", 2, 10.0, 1), ("16 entries, then 15", 1, 10.0, 1)],
)
def test_values_of_two_validation_lists_are_not_compared(
    tmp_path, caplog, said, max_epoch, best, epoch
):
    before = {"validate": lambda model: {"top1_err": 10.0}}
    after = {"validate": lambda model: {"top1_err": 20.0}, "identity": Validated(said)}
    tiny.make_trainer(tmp_path, max_epoch=1, parts=before).train()

    with caplog.at_level(logging.INFO, "octvideo"):
        summary = tiny.make_trainer(tmp_path, max_epoch=max_epoch, parts=after).train()

    assert summary.best == best
    assert torch.load(tmp_path / "checkpoints/best.pyth")["epoch"] == epoch
    assert ("best.pyth is chosen anew" in caplog.text) == (epoch == 2)


@pytest.mark.parametrize(("max_epoch", "said"), [(2, "chosen anew"), (1, "stands in for it")])
def test_a_best_checkpoint_that_is_gone_is_told_and_chosen_anew(tmp_path, caplog, max_epoch, said):
    before = {"validate": lambda model: {"top1_err": 10.0}}
    after = {"validate": lambda model: {"top1_err": 20.0}}
    tiny.make_trainer(tmp_path, max_epoch=1, parts=before).train()
    (tmp_path / "checkpoints/best.pyth").unlink()

    with caplog.at_level(logging.INFO, "octvideo"):
        tiny.make_trainer(tmp_path, max_epoch=max_epoch, parts=after).train()

    assert (tmp_path / "checkpoints/best.pyth").exists() == (max_epoch == 2)
    assert said in caplog.text


RATE = ["SOLVER.BASE_LR 0.1 instead of 0.2"]


@pytest.mark.parametrize(
    ("changes", "best", "epoch"),
    [
        ({2: RATE, 3: RATE}, 20.0, 3),
        ({3: RATE}, 20.0, 3),  # back to the settings before
        ({2: RATE}, 10.0, 3),  # the branch that goes on, killed before it saved
        ({}, 10.0, 3),
    ],
)
def test_the_best_of_a_branch_that_was_left_is_chosen_anew(tmp_path, caplog, changes, best, epoch):
    before = {"checkpoint_period": 2, "max_epoch": 4}
    with pytest.raises(StopIteration):
        tiny.make_trainer(tmp_path, parts=found(50.0, 15.0, 10.0), **before).train()
    assert [path.name for path in numbered(tmp_path)] == ["checkpoint_epoch_00002.pyth"]

    # The branch that goes on repeats epoch 3 as it was; another one does worse than epoch 2.
    errors = (20.0, 30.0) if best == 20.0 else (10.0, 30.0)
    parts = found(*errors) | {"identity": Validated(changes=changes)}
    with caplog.at_level(logging.INFO, "octvideo"):
        summary = tiny.make_trainer(tmp_path, parts=parts, max_epoch=4).train()

    kept = torch.load(tmp_path / "checkpoints/best.pyth")
    assert (summary.best, kept["epoch"]) == (best, epoch)
    assert kept["best"] == {"top1_err": best}
    said = f"best.pyth is of epoch 3 of a training that is not continued ({RATE[0]})"
    assert (said in caplog.text) == (best == 20.0)


def test_a_damaged_best_checkpoint_is_told_and_chosen_anew(tmp_path, caplog):
    tiny.make_trainer(tmp_path, max_epoch=1, parts=found(10.0)).train()
    best = tmp_path / "checkpoints/best.pyth"
    best.write_bytes(best.read_bytes()[:5000])

    summary = tiny.make_trainer(tmp_path, max_epoch=2, parts=found(20.0)).train()

    assert (summary.best, torch.load(best)["epoch"]) == (20.0, 2)
    assert "best.pyth is damaged" in caplog.text


def test_a_checkpoint_of_another_model_is_a_clear_error(tmp_path):
    tiny.make_trainer(tmp_path).train()

    with pytest.raises(CheckpointError, match="of another model or recipe"):
        tiny.make_trainer(
            tmp_path, model=torch.nn.Sequential(tiny.TinyNet(), torch.nn.Identity())
        ).train()


def test_a_model_whose_names_begin_as_a_wrappers_is_resumed(tmp_path):
    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = tiny.TinyNet()

        def forward(self, x):
            return self.model(x)

    tiny.make_trainer(tmp_path, model=Around(), max_epoch=1, ema_decay=0.5).train()

    assert tiny.make_trainer(tmp_path, model=Around(), max_epoch=2, ema_decay=0.5).train().finished


def test_the_checkpoint_of_another_program_is_a_start_not_a_run_to_continue(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    theirs = {"epoch": 1, "model_state": tiny.TinyNet().state_dict(), "optimizer_state": {}}
    torch.save(theirs, tmp_path / "checkpoints/checkpoint_epoch_00001.pyth")

    with pytest.raises(
        CheckpointError, match=r"start from its weights with TRAIN\.CHECKPOINT_FILE"
    ):
        tiny.make_trainer(tmp_path).train()


def test_an_output_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(
        OctvideoError, match=r"file/run: cannot be written to .*; choose another OUTPUT_DIR"
    ):
        tiny.make_trainer(tmp_path / "file/run").train()


def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(tmp_path, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(torch, "save", nth_call(torch.save, 4, full))
    with pytest.raises(
        CheckpointError, match=r"No space left on device.*run the same command again"
    ):
        tiny.make_trainer(tmp_path).train()
    monkeypatch.undo()

    assert checkpoint_files.find_latest(str(tmp_path / "checkpoints")).endswith(
        "checkpoint_epoch_00001.pyth"
    )


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    tiny.make_trainer(tmp_path, max_epoch=5, keep_checkpoints=2).train()

    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.pyth", "checkpoint_epoch_00004.pyth", "checkpoint_epoch_00005.pyth"]


@pytest.mark.slow
def test_sigkills_at_random_times_change_nothing(tmp_path, repo, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    kill_resume = importlib.import_module("kill_resume")

    tiny_program = [sys.executable, str(repo / "tests/engine/tiny.py")]
    child = [*tiny_program, "{output}", "seconds=0.02", "ema_decay=0.9"]
    options = ["checkpoint_minutes=0.001", "max_epoch=3", "precise_bn_batches=2"]
    words = ["kill_resume", "--kills", "4", "--folder", str(tmp_path), "--", *child, *options]
    monkeypatch.setattr(sys, "argv", words)
    processes = SimpleNamespace(Popen=start_forked, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(kill_resume, "subprocess", processes)

    with pytest.raises(SystemExit) as end:
        kill_resume.main()

    said = capsys.readouterr()
    assert end.value.code is False, said
    assert said.out.startswith("4 kills")


class Numbers:
    """Samples that are their index; what was trained on is remembered."""

    def __init__(self, count):
        self.count, self.seen = count, []

    def __len__(self):
        return self.count

    def sample(self, epoch, index):
        self.seen.append(index)
        return Sample(tiny.sample(epoch, index), index % tiny.CLASSES, index, f"clip_{index}.mp4")


def stopped_in_epoch_1(folder, after, **options):
    """Train on 24 samples in batches of 2, and stop in the second epoch; the samples that its
    checkpoint counts."""
    data = Numbers(24)

    class Stopping(Loader):
        def epoch(self, epoch, start_sample=0):
            for number, batch in enumerate(super().epoch(epoch, start_sample)):
                if (epoch, number) == (1, after):
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    summary = tiny.make_trainer(folder, loader=Stopping(data, batch_size=2), **options).train()
    return int(summary.checkpoint.rpartition("_")[2].removesuffix(".pyth"))


@pytest.mark.parametrize("batch", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("after", [1, 3, 10])
def test_another_batch_size_goes_on_at_the_right_sample(tmp_path, batch, after):
    done = stopped_in_epoch_1(tmp_path, after)
    data = Numbers(24)

    tiny.make_trainer(tmp_path, loader=Loader(data, batch_size=batch)).train()

    order = Loader(Numbers(24), batch_size=batch)._order(1)
    rest = order[done : 24 // batch * batch]
    assert data.seen[: len(rest)] == rest
    assert len(data.seen) == len(rest) + 24 // batch * batch
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss"] > 0 for line in lines if line["_type"] == "train_epoch")
    steps = [line["step"] for line in lines if line["_type"] == "train_iter"]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("limit", ["MAX_EPOCH", "MAX_ITER"])
def test_a_finished_run_says_so(tmp_path, caplog, monkeypatch, limit):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)
    caplog.set_level(logging.INFO)
    options = {"max_iter": 7} if limit == "MAX_ITER" else {}
    tiny.make_trainer(tmp_path, **options).train()
    assert "nothing to train" not in caplog.text

    tiny.make_trainer(tmp_path, **options).train()

    assert f"finished: nothing to train; raise SOLVER.{limit} or choose another" in caplog.text


def test_weight_decay_and_momentum_are_those_of_the_recipe_that_resumes(tmp_path):
    tiny.make_trainer(tmp_path, max_epoch=1).train()
    trainer = tiny.make_trainer(tmp_path, max_epoch=2)
    for group in trainer.optimizer.param_groups:
        group["weight_decay"], group["momentum"] = 0.25, 0.5

    trainer.train()

    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.25}
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.5}


@pytest.mark.parametrize("order", [list, lambda parameters: [*parameters][::-1]])
def test_moments_of_an_own_optimizer_stay_with_their_parameters_in_any_order(
    tmp_path, monkeypatch, order
):
    def sgd(order):
        return lambda model, lr, method: torch.optim.SGD(
            order(model.parameters()), lr=lr, momentum=0.9
        )

    monkeypatch.setattr(tiny, "make_optimizer", sgd(list))
    before = tiny.make_trainer(tmp_path, max_epoch=1)
    before.train()
    monkeypatch.setattr(tiny, "make_optimizer", sgd(order))
    after = tiny.make_trainer(tmp_path, max_epoch=2)
    after.resume()
    after.log.close()

    for then, now in zip(before.model.parameters(), after.model.parameters(), strict=True):
        expected = before.optimizer.state[then]["momentum_buffer"]
        assert torch.equal(after.optimizer.state[now]["momentum_buffer"], expected)


@pytest.mark.parametrize("is_turned", [False, True])
def test_a_checkpoint_without_names_is_refused_where_its_parameters_had_another_order(
    tmp_path, is_turned
):
    path = tiny.make_trainer(tmp_path, max_epoch=1).train().checkpoint
    content = torch.load(path, weights_only=True)
    for group in content["optimizer_state"]["param_groups"]:
        del group["names"]
    if is_turned:
        content["model_state"] = dict(reversed(content["model_state"].items()))
    torch.save(content, path)
    trainer = tiny.make_trainer(tmp_path, max_epoch=2)

    if not is_turned:
        assert trainer.train().finished
        return
    with pytest.raises(CheckpointError, match=r"has no names, and its .*; choose another OUTPUT"):
        trainer.train()


def test_a_checkpoint_that_counted_batches_goes_on(tmp_path, differences):
    """As 0.1.0 wrote it."""
    tiny.make_trainer(tmp_path / "whole").train()
    loader = CrashingLoader(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    path = tiny.make_trainer(tmp_path / "cut", loader=loader).train().checkpoint
    state = torch.load(path, weights_only=True)
    state["progress"]["batch"] = state["progress"].pop("samples") // 8
    del state["progress"]["step"]
    Path(path).unlink()
    old = "checkpoint_epoch_00001_batch_000002.pyth"
    torch.save(state, tmp_path / "cut/checkpoints" / old)

    tiny.make_trainer(tmp_path / "cut").train()

    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def test_counted_batches_are_those_of_the_run_that_counted_them():
    plan = Plan(steps_per_epoch=6, batch_samples=8, accum_steps=1, epoch_limit=3, step_limit=0)
    progress = asdict(Progress(epoch=1)) | {"batch": 4}
    del progress["samples"], progress["step"]

    found = Progress.from_dict(progress, plan, 4)

    assert (found.samples, found.step) == (16, 8)


@pytest.mark.parametrize("what", ["run", "run/metrics.jsonl"])
def test_a_folder_that_is_removed_in_mid_run_ends_it_with_an_error(tmp_path, what):
    def remove():
        gone = tmp_path / what
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()

    with pytest.raises(OctvideoError, match=r"metrics\.jsonl: "):
        tiny.make_trainer(tmp_path / "run", loader=CrashingLoader(8, remove)).train()


def test_a_full_disk_under_the_metrics_is_one_line_and_the_run_goes_on_later(tmp_path, differences):
    tiny.make_trainer(tmp_path / "whole").train()
    trainer = tiny.make_trainer(tmp_path / "cut")

    def fill():
        trainer.log.metrics.file.close()
        trainer.log.metrics.file = Full()

    trainer.loader = CrashingLoader(9, fill)

    with pytest.raises(OctvideoError, match=r"metrics\.jsonl: cannot be written .No space left"):
        trainer.train()
    tiny.make_trainer(tmp_path / "cut").train()

    assert differences(tmp_path / "whole", tmp_path / "cut") == []


class Full:
    """A file on a disk without room."""

    def write(self, content=b""):
        raise OSError(28, "No space left on device")

    close = write
