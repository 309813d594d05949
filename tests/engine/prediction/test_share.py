"""`octvideo predict` under torchrun: each video once, whatever stops the ranks and however many
continue."""

import csv
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from forked import Forked, forked_ranks, torchrun

from octvideo.cli.main import main
from octvideo.data.video.encode import write_video
from octvideo.engine.distributed import Processes
from octvideo.engine.prediction.named import NamedVideo, Prediction
from octvideo.engine.prediction.outputs import PREDICTIONS, Output, prediction_row
from octvideo.engine.prediction.share import Share, Wanted
from octvideo.errors import DataError, OctvideoError

SUFFIXES = pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
FACTS = {"views": "1x1", "weights": "abc"}


class Table:
    """Where ranks that are threads meet, round after round, until one leaves."""

    def __init__(self, world_size: int) -> None:
        self._rounds = [(threading.Barrier(world_size), [None] * world_size) for _ in range(9)]
        self._next = [0] * world_size

    def exchange(self, rank: int, value):
        barrier, values = self._rounds[self._next[rank]]
        self._next[rank] += 1
        values[rank] = value
        barrier.wait(30)
        return values

    def leave(self, rank: int) -> None:
        for barrier, _ in self._rounds[self._next[rank] :]:
            barrier.abort()


@dataclass(frozen=True)
class Rank(Processes):
    table: Table | None = None

    def gather(self, value):
        return self.table.exchange(self.rank, value)

    def from_main(self, value):
        return self.gather(value)[0]


def _name(path: str) -> NamedVideo:
    problem = "broken" if path.endswith("2") else ""
    return NamedVideo(path, [] if problem else [Prediction(Path(path).name, 0.5)], problem)


def _readable(path: str) -> NamedVideo:
    return NamedVideo(path, [Prediction(Path(path).name, 0.5)], "")


def _run(
    paths, *outputs, world_size=1, stop_after=None, facts=FACTS, overwrite=False, name=_name
) -> int:
    """The number of videos that all ranks looked at. stop_after: of each rank, which then dies."""
    made_with = facts | {"top_k": "1"}
    wanted = [Wanted(path, PREDICTIONS, made_with, prediction_row, 1) for path in outputs]
    table = Table(world_size)

    def work(rank: int) -> int:
        procs = Rank(rank, world_size, table=table) if world_size > 1 else Processes()
        share = Share(
            dict.fromkeys(map(str, paths), ""), wanted, facts, overwrite=overwrite, procs=procs
        )
        found = share.written(map(name, share.left), lambda done, total: None)
        count = 0
        with closing(found), suppress(threading.BrokenBarrierError):
            for _ in found:
                count += 1
                if count == stop_after:
                    table.leave(rank)
                    break
        return count

    with ThreadPoolExecutor(world_size) as threads:
        return sum(threads.map(work, range(world_size)))


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "0123456789":
        (folder / name).write_text(name)
    return sorted(folder.iterdir())


@SUFFIXES
@pytest.mark.parametrize("world_size", [2, 3, 12])
def test_ranks_write_the_file_of_one_process(suffix, world_size, paths, tmp_path):
    alone, shared = tmp_path / f"alone{suffix}", tmp_path / f"shared{suffix}"

    assert _run(paths, alone) == _run(paths, shared, world_size=world_size) == 10

    assert shared.read_bytes() == alone.read_bytes()
    assert not list(tmp_path.glob("*.rank_*"))


@SUFFIXES
def test_any_number_of_ranks_continues_and_each_video_is_looked_at_once(suffix, paths, tmp_path):
    alone, shared = tmp_path / f"alone{suffix}", tmp_path / f"shared{suffix}"
    _run(paths, alone, name=_readable)

    counts = [
        _run(paths, shared, world_size=ranks, stop_after=stop, name=_readable)
        for ranks, stop in ((4, 1), (3, 1), (1, 1), (2, None), (3, None))
    ]

    assert counts == [4, 3, 1, 2, 0]
    assert shared.read_bytes() == alone.read_bytes()


@SUFFIXES
@pytest.mark.parametrize("world_size", [1, 3])
def test_what_could_not_be_read_is_tried_again_until_it_can_be(suffix, world_size, paths, tmp_path):
    rows, whole = tmp_path / f"rows{suffix}", tmp_path / f"whole{suffix}"
    _run(paths, rows)
    first = rows.read_bytes()
    _run(paths, whole, name=_readable)

    assert _run(paths, rows, world_size=world_size) == 1
    assert rows.read_bytes() == first
    assert _run(paths, rows, world_size=world_size, name=_readable) == 1
    assert _run(paths, rows, world_size=world_size) == 0
    assert sorted(rows.read_bytes().splitlines()) == sorted(whole.read_bytes().splitlines())


@SUFFIXES
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_row_with_a_problem_gives_way_to_what_another_file_needed(
    suffix, world_size, paths, tmp_path
):
    rows, whole, more = (tmp_path / f"{name}{suffix}" for name in ("rows", "whole", "more"))
    _run(paths, rows)
    first = rows.read_bytes()
    _run(paths, whole, name=_readable)

    assert _run(paths, rows, more, world_size=world_size) == 10
    assert rows.read_bytes() == first
    more.unlink()
    assert _run(paths, rows, more, world_size=world_size, name=_readable) == 10
    assert rows.read_bytes() == whole.read_bytes()
    more.unlink()
    assert _run(paths, rows, more, world_size=world_size) == 10
    assert rows.read_bytes() == whole.read_bytes()


def test_rows_of_ranks_with_other_weights_are_refused_and_overwritten_on_request(paths, tmp_path):
    output = tmp_path / "rows.csv"
    _run(paths, output, world_size=2, stop_after=1)
    output.unlink()
    other = FACTS | {"weights": "def"}

    with pytest.raises(DataError, match=r"rows\.csv\.rank_00001: .* made with weights abc"):
        _run(paths, output, facts=other)
    assert _run(paths, output, facts=other, overwrite=True) == 10


def test_a_folder_that_another_rank_does_not_see_ends_all(paths, tmp_path, monkeypatch):
    of_rank = Output.of_rank
    elsewhere = lambda file, rank: of_rank(file, rank).with_name("elsewhere")  # noqa: E731
    opened = Output.__init__

    def begin(file, *args, rank, **how):
        monkeypatch.setattr(Output, "of_rank", elsewhere if rank else of_rank)
        opened(file, *args, rank=rank, **how)
        monkeypatch.setattr(Output, "of_rank", of_rank)

    monkeypatch.setattr(Output, "__init__", begin)

    with pytest.raises(OctvideoError, match="rank 1 writes to another folder of that name"):
        _run(paths, tmp_path / "rows.csv", world_size=2)


@pytest.fixture
def clips(tmp_path):
    """Six clips, of which one is none, in a list."""
    for k in range(6):
        frames = np.random.default_rng(k).integers(0, 255, (8, 36, 40, 3), np.uint8)
        write_video(tmp_path / f"{k}.mp4", frames)
    (tmp_path / "3.mp4").write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("".join(f"{k}.mp4\n" for k in range(6)))
    return tmp_path / "list.txt"


def _words(checkpoint, videos, output) -> list[str]:
    words = ["predict", "--checkpoint", checkpoint, videos, "--output", output, "--views", "1x1"]
    return [*map(str, words), "--workers", "0", "--top-k", "1"]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_ranks_of_torchrun_name_what_one_process_does(tiny_checkpoint, clips, tmp_path):
    launch = ["--standalone", "--nproc_per_node", "2", "-m", "octvideo"]
    words = _words(tiny_checkpoint, clips, tmp_path / "two.csv")
    one = Forked(
        main, _words(tiny_checkpoint, clips, tmp_path / "one.csv"), output=tmp_path / "one.txt"
    )
    two = Forked(torchrun, *launch, *words, output=tmp_path / "two.txt")

    said = [run.communicate(timeout=200) for run in (one, two)]

    assert (one.returncode, two.returncode) == (0, 0), said
    assert said[1].count(".mp4") == 6
    assert said[1].count("written: ") == 1
    rows, expected = (_rows(tmp_path / name) for name in ("two.csv", "one.csv"))
    assert [row["path"] for row in rows] == [str(tmp_path / f"{k}.mp4") for k in range(6)]
    assert [bool(row["problem"]) for row in rows] == [k == 3 for k in range(6)]
    for row, other in zip(rows, expected, strict=True):
        assert float(row.pop("probability_1") or 0) == pytest.approx(
            float(other.pop("probability_1") or 0), abs=2e-4
        )
        assert row == other


@pytest.mark.slow
def test_ranks_that_were_killed_are_continued_by_one_process(tiny_checkpoint, clips, tmp_path):
    output = tmp_path / "rows.csv"
    words = _words(tiny_checkpoint, clips, output)
    ranks = forked_ranks(2, main, words, outputs=tmp_path)
    share = tmp_path / "rows.csv.rank_00001"
    end = time.monotonic() + 200
    while not (share.exists() and share.read_bytes().count(b"\n") > 1):  # its head and a row
        assert time.monotonic() < end
        assert ranks[1].poll() is None
        time.sleep(0.002)
    for rank in ranks:
        rank.kill()
        rank.wait()

    done = Forked(main, words, output=tmp_path / "done.txt")
    said = done.communicate(timeout=200)

    assert done.returncode == 0, said
    named = sorted(row["path"] for row in _rows(output))
    assert named == [str(tmp_path / f"{k}.mp4") for k in range(6)]
    assert not share.exists()
