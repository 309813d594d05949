"""Several processes do what one does: over gloo, under torchrun, on one "node" and on two."""

import json
import os
import re
import signal
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rewrapped
import tiny
import torch
import uneven
from forked import Forked, forked_ranks, free_port, torchrun
from torch import nn

from octvideo.engine.distributed import Processes
from octvideo.engine.liveness import Liveness
from octvideo.engine.process_group import backend_of, name_start, processes
from octvideo.errors import OctvideoError, exit_on_user_error

CHILD = str(Path(tiny.__file__))


def launched(*words, output):
    """torchrun WORDS, in a fork whose ranks are forks."""
    return Forked(torchrun, *words, output=output)


def run_ranks(folder, *options, count=2, program=tiny.main):
    """Ranks without a launcher run to their end."""
    ranks = forked_ranks(count, program, *options, outputs=folder)
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * count, outputs


def last_state(folder):
    newest = sorted((folder / "checkpoints").glob("checkpoint_*"))[-1]
    return torch.load(newest, weights_only=True)


def wait_for_metrics(folder):
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        time.sleep(0.1)


def losses(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if "loss" in r]


def assert_same_run(one, other):
    a, b = last_state(one), last_state(other)
    for name, value in a["model_state"].items():
        torch.testing.assert_close(b["model_state"][name], value, rtol=2e-4, atol=2e-5, msg=name)
    assert losses(other) == pytest.approx(losses(one), rel=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of a single process on the same global batches."""
    folder = tmp_path_factory.mktemp("alone")
    alone = Forked(tiny.main, str(folder), "dropout=0", output=folder / "output.txt")
    assert alone.wait(timeout=120) == 0
    return folder


def test_one_process_needs_no_group():
    procs = Processes()
    values = torch.ones(2)

    assert procs.is_main
    assert procs.any_of(True, False) == [True, False]
    assert procs.total(values) is values
    assert procs.gather("x") == ["x"]
    assert procs.from_main(3) == 3
    assert isinstance(procs.wrap(tiny.TinyNet()), tiny.TinyNet)


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda:1", "cpu:gloo,cuda:nccl")])
def test_gradients_travel_over_nccl_on_a_gpu_and_flags_always_over_gloo(device, backend):
    assert backend_of(torch.device(device)) == backend


def test_a_start_is_told_from_those_before_it_in_the_same_store():
    store = torch.distributed.HashStore()
    for rank in (1, 2):
        store.set(f"octvideo/call_{rank}", f"of dead rank {rank}")

    def start():
        with ThreadPoolExecutor(3) as ranks:
            return set(ranks.map(lambda rank: name_start(store, rank, 3, set()), range(3)))

    first, second = start(), start()

    assert len(first) == len(second) == 1
    assert first != second


@pytest.mark.slow
def test_two_ranks_with_synchronized_batch_norm_are_one_process(tmp_path, alone):
    run_ranks(tmp_path, str(tmp_path), "dropout=0", "sync=1")

    assert_same_run(alone, tmp_path)


@pytest.mark.slow
def test_two_nodes_on_loopback_are_one_process(tmp_path, alone):
    port = free_port()
    place = [
        "--nnodes",
        "2",
        "--nproc_per_node",
        "1",
        "--master_addr",
        "127.0.0.1",
        "--master_port",
        str(port),
    ]
    child = [CHILD, str(tmp_path), "dropout=0", "sync=1"]
    nodes = [
        launched(*place, "--node_rank", str(rank), *child, output=tmp_path / f"node_{rank}")
        for rank in range(2)
    ]

    outputs = [node.communicate(timeout=120) for node in nodes]

    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert_same_run(alone, tmp_path)


@pytest.mark.slow
def test_two_ranks_resume_to_the_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_ranks(whole, str(whole))
    run_ranks(parts, str(parts), "max_iter=8", "checkpoint_period=1")
    (parts / "checkpoints/checkpoint_epoch_00002.pyth").unlink()
    run_ranks(parts, str(parts))

    a, b = last_state(whole), last_state(parts)
    assert all(
        torch.equal(a["model_state"][name], b["model_state"][name]) for name in a["model_state"]
    )
    assert len(a["rng"]) == 2
    assert not torch.equal(a["rng"][0]["torch"], a["rng"][1]["torch"])


@pytest.mark.slow
def test_a_run_of_three_ranks_that_begins_anew_rounds_as_one_that_went_on(tmp_path):
    """Sums of two numbers round alike in any order; those of three do not."""
    run_ranks(tmp_path, count=3, program=rewrapped.main)


@pytest.mark.slow
def test_a_killed_rank_restarts_the_run_from_its_checkpoint(tmp_path):
    """torchrun sees rank 1 die, ends the other, starts both again; they go on and finish."""
    options = ["seconds=0.05", "checkpoint_minutes=0.0001", "die_once=10"]
    place = ["--standalone", "--nproc_per_node", "2", "--max-restarts", "2"]
    run = launched(*place, CHILD, str(tmp_path), *options, output=tmp_path / "said")

    said = run.communicate(timeout=120)

    assert run.returncode == 0, said
    assert "resumed from" in said
    assert "rank 0: finished True" in said
    assert last_state(tmp_path)["epoch"] == 3


@pytest.mark.slow
def test_a_killed_rank_restarts_the_run_on_both_nodes(tmp_path, alone):
    """Two agents that meet at one of them; each counts its restarts by itself."""
    place = [
        "--nnodes",
        "2",
        "--nproc_per_node",
        "1",
        "--max-restarts",
        "3",
        "--local_addr",
        "127.0.0.1",
    ]
    meet = [
        "--rdzv_backend",
        "c10d",
        "--rdzv_id",
        "run",
        "--rdzv_endpoint",
        f"127.0.0.1:{free_port()}",
    ]
    child = [
        CHILD,
        str(tmp_path),
        "dropout=0",
        "sync=1",
        "seconds=0.05",
        "checkpoint_minutes=0.0001",
        "die_once=10",
    ]
    nodes = [launched(*place, *meet, *child, output=tmp_path / f"node_{node}") for node in range(2)]

    outputs = [node.communicate(timeout=120) for node in nodes]

    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert (tmp_path / "died").exists()
    assert "resumed from" in "".join(outputs)
    assert_same_run(alone, tmp_path)


@pytest.mark.slow
def test_sigterm_to_torchrun_saves_and_the_same_ranks_finish(tmp_path):
    place = ["--standalone", "--nproc_per_node", "2"]
    process = launched(*place, CHILD, str(tmp_path), "seconds=0.2", output=tmp_path / "said")
    wait_for_metrics(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.wait()

    assert "stopped by SIGTERM" in (tmp_path / "stdout.log").read_text()
    run_ranks(tmp_path, str(tmp_path))
    assert last_state(tmp_path)["epoch"] == 3


@pytest.mark.slow
def test_a_rank_that_cannot_read_its_data_stops_all_after_a_checkpoint(tmp_path):
    place = ["--standalone", "--nproc_per_node", "2"]
    faults = ["fail_at=3", "fail_rank=1"]
    run = launched(*place, CHILD, str(tmp_path), *faults, output=tmp_path / "said")

    said = run.communicate(timeout=120)

    assert run.returncode != 0
    assert "5 of 20 files are bad" in said
    assert (tmp_path / "checkpoints/checkpoint_epoch_00001_sample_00000024.pyth").exists()
    assert "DataError" not in said  # a line per rank, no traceback of ours


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_written_stops_all_ranks(tmp_path):
    (tmp_path / "file").write_text("in the way")

    ranks = forked_ranks(2, tiny.main, str(tmp_path / "file/run"), outputs=tmp_path)
    outputs = [rank.communicate(timeout=120) for rank in ranks]

    assert [rank.returncode for rank in ranks] == [2, 2]
    assert ["choose another OUTPUT_DIR" in output for output in outputs] == [True, True]


def test_a_clip_counts_the_same_on_ranks_with_more_and_with_fewer_of_them(tmp_path):
    run_ranks(tmp_path, program=uneven.main)


def test_a_group_of_one_rank_trains_as_a_process_without_a_group(tmp_path):
    tiny.make_trainer(tmp_path / "alone").train()
    with tiny.group_of_one(torch.device("cpu")):
        trainer = tiny.make_trainer(tmp_path / "group")
        trainer.train()

    assert isinstance(trainer.step.network, torch.nn.parallel.DistributedDataParallel)
    expected = last_state(tmp_path / "alone")["model_state"]
    for name, value in last_state(tmp_path / "group")["model_state"].items():
        torch.testing.assert_close(value, expected[name])


def test_an_error_that_leaves_the_processes_keeps_nothing_of_them_alive():
    """A DistributedDataParallel that outlives its group can hang the process; an error's frames
    would keep it."""
    kept: list[weakref.ref[object]] = []

    class Wrapper:
        pass

    def fail() -> None:
        wrapper = Wrapper()
        kept.append(weakref.ref(wrapper))
        raise ValueError("inner")

    def fail_twice() -> None:
        outer = Wrapper()
        kept.append(weakref.ref(outer))
        try:
            fail()
        except ValueError as error:
            raise OSError("outer") from error

    with pytest.raises(OSError, match="outer"), processes("cpu"):
        fail_twice()

    assert [reference() for reference in kept] == [None, None]


def test_an_error_that_is_its_own_cause_leaves_the_processes():
    error = ValueError("itself")

    with pytest.raises(ValueError, match="itself"), processes("cpu"):
        raise error from error


SILENT = r"error: rank 1 has not been heard of for 3 seconds: its process is dead"
LOST = r"error: stopped: another process ended \((Connection (closed|reset) by peer|Broken pipe)"


def said_beside(stopped: int, ranks, timeout: float) -> str:
    """What the other of two ranks says until it ends; the stopped one is killed then."""
    output = ranks[1 - stopped].communicate(timeout=timeout)
    ranks[stopped].kill()
    ranks[stopped].wait()
    return output


@pytest.mark.slow
def test_a_rank_that_is_stopped_ends_the_other_with_a_line(tmp_path):
    """Synchronized batch norm waits for the others inside every layer."""
    options = ["sync=1", "seconds=0.1", "max_epoch=50", "silence=3"]
    ranks = forked_ranks(2, tiny.main, str(tmp_path), *options, outputs=tmp_path)
    wait_for_metrics(tmp_path)
    ranks[1].send_signal(signal.SIGSTOP)

    output = said_beside(1, ranks, timeout=60)

    assert ranks[0].returncode == 1
    assert re.search(SILENT, output), output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_rank_that_dies_under_torchrun_ends_the_other_with_a_line(tmp_path):
    """Which comes first depends on the machine: gloo's error, the launcher's SIGTERM, or the
    silence."""
    options = ["sync=1", "seconds=0.1", "max_epoch=50", "silence=3"]
    place = ["--standalone", "--nproc_per_node", "2"]
    process = launched(*place, CHILD, str(tmp_path), *options, output=tmp_path / "said")
    wait_for_metrics(tmp_path)
    others = [int((tmp_path / f"pid_{rank}").read_text()) for rank in (0, 1)]
    os.kill(others[1], signal.SIGKILL)
    start = time.monotonic()

    while Path(f"/proc/{others[0]}").exists():
        time.sleep(0.1)
        assert time.monotonic() - start < 60
    output = process.communicate(timeout=120)

    assert process.returncode != 0
    continues = "stopped by SIGTERM; the same command continues"
    assert re.search(rf"{LOST}|{SILENT}|{continues}", output), output
    assert f'File "{CHILD}"' not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stopped", "place"),
    [(1, "this_process"), (1, "name_start"), (1, "init_process_group"), (0, "init_process_group")],
)
def test_a_rank_that_is_stopped_before_they_have_met_ends_the_other(tmp_path, stopped, place):
    """Rank 0 keeps the store: while it is stopped, who asks the store waits."""
    options = [f"stop_rank={stopped}", f"stop_in={place}", "silence=5"]
    ranks = forked_ranks(2, tiny.main, str(tmp_path), *options, outputs=tmp_path)

    output = said_beside(stopped, ranks, timeout=180)

    assert ranks[1 - stopped].returncode == 1
    line = f"error: rank {stopped} has not been heard of for 5 seconds: its process "
    assert line in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_rank_that_keeps_the_store_and_is_stopped_ends_the_other(tmp_path):
    options = ["silence=5", "seconds=0.1", "max_epoch=500"]
    ranks = forked_ranks(2, tiny.main, str(tmp_path), *options, outputs=tmp_path)
    wait_for_metrics(tmp_path)
    ranks[0].send_signal(signal.SIGSTOP)

    output = said_beside(0, ranks, timeout=180)

    # Rank 1 may not have read a word of rank 0 when that is stopped: it says so then.
    assert "error: rank 0 has not been heard of for 5 seconds: its process " in output


@pytest.mark.slow
def test_a_file_that_hangs_in_the_process_of_a_rank_ends_all_with_its_name(tmp_path):
    options = ["silence=4", "hang_rank=1", "hang_at=2"]
    ranks = forked_ranks(2, tiny.main, str(tmp_path), *options, outputs=tmp_path)

    outputs = [rank.communicate(timeout=180) for rank in ranks]

    line = "clip_of_a_dead_server.mp4: reading it did not end within 4 seconds"
    assert f"error: {line}" in outputs[1]
    assert f"rank 1 ended: {line}" in outputs[0]
    assert [rank.returncode for rank in ranks] == [2, 1]


class Word(dict):
    """A store in this process."""

    def set(self, key, value):
        self[key] = value

    def check(self, keys):
        return all(key in self for key in keys)

    def multi_get(self, keys):
        return [self[key].encode() for key in keys]


@pytest.fixture
def ended(monkeypatch):
    """The lines that ended a rank."""
    lines = []
    monkeypatch.setattr(Liveness, "_end", lambda self, line: lines.append(line))
    return lines


def started_liveness(rank, store, **options):
    liveness = Liveness(rank, 2, **{"silence_seconds": 0.4} | options)
    liveness.start()
    liveness.join(store)
    return liveness


def test_a_rank_that_is_slow_or_has_finished_is_no_lost_one(ended):
    store = Word()
    one, two = (started_liveness(rank, store) for rank in (0, 1))
    time.sleep(1.0)
    two.leave()
    time.sleep(1.0)

    assert ended == []
    one.leave()


def test_a_rank_that_is_silent_is_named(ended):
    store = Word(rank_1="3")
    one = started_liveness(0, store, silence_seconds=0.2)
    time.sleep(1.0)
    one.leave()

    assert ended[0].startswith("rank 1 has not been heard of for 0.2 seconds")


def test_a_store_that_does_not_answer_is_a_silent_rank(ended):
    class Stopped(Word):
        def multi_get(self, keys):
            time.sleep(2)
            raise RuntimeError

    one = started_liveness(1, Stopped(rank_0="3"), silence_seconds=0.2)
    one._words[0] = "3"
    time.sleep(1.0)
    one.leave()

    assert ended[0].startswith("rank 0 has not been heard of for 0.2 seconds")


def test_the_rank_that_was_not_met_is_named(ended, monkeypatch):
    monkeypatch.setattr("octvideo.engine.liveness.START_SECONDS", 0.4)
    one = Liveness(0, 3, silence_seconds=0.2)
    one.met.add(1)
    one.start()
    time.sleep(1.5)
    one.leave()

    assert ended[0].startswith("rank 2 has not been heard of for 0.4 seconds")
    assert "has not started" in ended[0]


def test_a_rank_in_trouble_ends(ended):
    one = started_liveness(0, Word(), trouble=lambda: "clip.mp4 hangs")
    time.sleep(0.5)
    one.leave()

    assert ended[0] == "clip.mp4 hangs"


def test_a_rank_that_failed_says_why():
    store = Word()
    one, two = (started_liveness(rank, store, silence_seconds=9) for rank in (0, 1))

    two.leave("5 of 20 files are bad")

    assert one.reason() == "rank 1 ended: 5 of 20 files are bad"
    one.leave()


def test_a_launcher_that_has_gone_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("octvideo.engine.process_group.CONNECT_SECONDS", 1.0)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    for name, value in (place | {"RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit, match="2"), exit_on_user_error(), processes("cpu"):
        pass

    assert (
        "where the ranks meet, cannot be used (The client socket has timed out"
        in capsys.readouterr().err
    )


def test_a_launcher_that_says_half_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)

    with (
        pytest.raises(OctvideoError, match="WORLD_SIZE is 2 and RANK is not set"),
        processes("cpu"),
    ):
        pass


def test_ranks_that_differ_are_named(monkeypatch):
    procs = Processes(rank=0, world_size=3)
    facts = [{"LR": 1, "list": "a"}, {"LR": 1, "list": "a"}, {"LR": 2, "list": "a"}]
    monkeypatch.setattr(Processes, "gather", lambda self, own: facts)

    with pytest.raises(OctvideoError, match="rank 2 differs from rank 0: LR 2, not 1; start"):
        procs.agree(facts[0])

    facts[2] = facts[0] | {"torch": 2}
    with pytest.raises(OctvideoError, match="rank 2 differs from rank 0: torch 2, not None; start"):
        procs.agree(facts[0])

    facts[2] = facts[0]
    procs.agree(facts[0])


@pytest.mark.parametrize(("weight", "mean"), [(1.0, 2.0), (3.0, 1.5)])
def test_buffers_become_the_mean_over_ranks_by_their_weights(monkeypatch, weight, mean):
    """The other rank has three times what this one has, and weighs 1."""

    def all_reduce(tensor):
        tensor += 1 if tensor.ndim == 0 else 3 * 2 / (weight + 1)

    monkeypatch.setattr("torch.distributed.all_reduce", all_reduce)
    model = nn.BatchNorm1d(2)

    Processes(world_size=2).average_buffers(model, weight)

    assert model.running_var.tolist() == [mean, mean]
    assert model.num_batches_tracked == 0
