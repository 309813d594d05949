"""The loader: the same batches for any number of workers and ranks, and no file can stop it."""

import ctypes
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from itertools import chain

import pytest
import torch
from coded_videos import write_clip
from hypothesis import assume, given
from hypothesis import strategies as st

from octvideo.data import Batch, ClipDataset, ClipRule, ClipTransform, Loader, Sample
from octvideo.data.lists.video_list import VideoEntry, VideoList
from octvideo.data.loading.batch import Problem
from octvideo.data.reading import reading
from octvideo.errors import DataError

NUM_VIDEOS = 12


class HostileClips(ClipDataset):
    """Files whose names say so block in native code, holding the interpreter's lock, or end the
    process."""

    def _read(self, position, draw):
        entry = self.videos[position]
        with reading(entry.path):
            if "hang" in entry.path:
                ctypes.PyDLL(None).sleep(1000)
            if "crash" in entry.path:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "bug" in entry.path:
                raise KeyError("a mistake in the program")
        return super()._read(position, draw)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for k in range(NUM_VIDEOS):
        write_clip(folder / f"{k}.mp4", num_frames=12, options={"g": "6"})
    return folder


def clips(folder, *hostile: str) -> HostileClips:
    """Twelve videos; each name in `hostile` takes the place of one."""
    names = [*hostile, *(f"{k}.mp4" for k in range(len(hostile), NUM_VIDEOS))]
    videos = VideoList([VideoEntry(name, (k,)) for k, name in enumerate(names)], root=folder)
    return HostileClips(videos, rule=ClipRule(4, 2), transform=ClipTransform(48, (48, 64)))


def read(loader: Loader, epoch: int = 0, start_sample: int = 0) -> list[Batch]:
    batches = list(loader.epoch(epoch, start_sample))
    loader.close()
    return batches


def assert_same(these: list[Batch], those: list[Batch]) -> None:
    assert [batch.paths for batch in these] == [batch.paths for batch in those]
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(these, those, strict=True))
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(these, those, strict=True))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing(folder, num_workers):
    here = read(Loader(clips(folder), batch_size=3))

    there = read(Loader(clips(folder), batch_size=3, num_workers=num_workers))

    assert_same(here, there)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_divide_the_same_global_batches(folder, world_size):
    alone = read(Loader(clips(folder), batch_size=6, seed=5))

    ranks = [
        read(
            Loader(
                clips(folder), batch_size=6 // world_size, seed=5, rank=rank, world_size=world_size
            )
        )
        for rank in range(world_size)
    ]

    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert torch.equal(whole.inputs, torch.cat([part.inputs for part in parts]))


def test_an_epoch_takes_each_video_once_in_an_order_of_its_own(folder):
    loader = Loader(clips(folder), batch_size=4)

    orders = [
        [index for batch in loader.epoch(epoch) for index in batch.indices.tolist()]
        for epoch in range(2)
    ]

    assert all(sorted(order) == list(range(NUM_VIDEOS)) for order in orders)
    assert orders[0] != orders[1]


def test_an_epoch_goes_on_where_it_stopped(folder):
    whole = read(Loader(clips(folder), batch_size=3), epoch=1)

    rest = read(Loader(clips(folder), batch_size=3, num_workers=1), epoch=1, start_sample=6)

    assert_same(rest, whole[2:])


class Numbers:
    """Samples that are their index."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        return str(self.count)

    def sample(self, epoch: int, index: int) -> Sample:
        return Sample(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), 0, index, str(index))


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 60))
def test_an_epoch_goes_on_at_any_sample_with_any_batch_and_ranks(count, batch, ranks, start):
    assume(count >= batch * ranks)
    size, options = batch * ranks, {"batch_size": batch, "world_size": ranks, "seed": 3}
    loaders = [Loader(Numbers(count), rank=rank, **options) for rank in range(ranks)]
    order = Loader(Numbers(count), batch_size=1, seed=3)._order(0)

    parts = [[batch.indices.tolist() for batch in loader.epoch(0, start)] for loader in loaders]

    ends, trained = loaders[0].ends(start), count // size * size
    together = [list(chain(*shares)) for shares in zip(*parts, strict=True)]
    assert list(chain(*together)) == order[start : ends[-1] if ends else start]
    assert all(shares for rank in parts for shares in rank)
    assert all(len(shares) <= batch + 1 for rank in parts for shares in rank)
    assert [start + sum(map(len, together[: i + 1])) for i in range(len(together))] == ends
    # Nothing of what an epoch takes is left out, but for less than a sample per rank.
    assert (ends[-1] == trained) if ends else (trained - start < ranks)


def test_the_last_batch_can_be_kept_and_is_shared_by_all_ranks(folder):
    loaders = [
        Loader(clips(folder), batch_size=5, shuffle=False, drop_last=False, rank=rank, world_size=2)
        for rank in (0, 1)
    ]

    indices = [[batch.indices.tolist() for batch in read(loader)] for loader in loaders]

    assert indices == [[[0, 1, 2, 3, 4], [10]], [[5, 6, 7, 8, 9], [11]]]
    assert [len(loader) for loader in loaders] == [2, 2]
    odd = Loader(clips(folder), batch_size=1, shuffle=False, drop_last=False, rank=4, world_size=5)
    assert [batch.indices.tolist() for batch in read(odd)] == [[4], [9], [2]]


@pytest.mark.parametrize(
    ("name", "cause"), [("hang", "did not end within 3 seconds"), ("crash", "SIGSEGV")]
)
def test_a_file_that_hangs_or_kills_its_reader_is_named_and_replaced(folder, name, cause):
    start = time.monotonic()
    loader = Loader(
        clips(folder, f"{name}.mp4"),
        batch_size=3,
        num_workers=2,
        timeout_seconds=3,
        max_bad_ratio=0.1,
    )

    batches = read(loader)

    path = str(folder / f"{name}.mp4")
    assert time.monotonic() - start < 60
    assert list(loader.bad) == [path]
    assert cause in loader.bad[path]
    assert path in [problem.path for batch in batches for problem in batch.problems]
    # As if that file were simply missing: the others are what they would have been.
    missing = read(Loader(clips(folder, "missing.mp4"), batch_size=3, max_bad_ratio=0.1))
    assert_same(batches, missing)


def test_too_many_bad_files_stop_the_run(folder):
    dataset = clips(folder, "missing.mp4", "crash.mp4")
    loader = Loader(dataset, batch_size=4, num_workers=1, max_bad_ratio=0.1)

    with pytest.raises(
        DataError, match=r"2 of 12 files cannot be read.*10\.0% may be \(DATA\.MAX_BAD_RATIO\)"
    ):
        read(loader)


def test_as_many_bad_files_as_are_allowed_stop_nothing(folder):
    dataset = clips(folder, "missing 0.mp4", "missing 1.mp4", "missing 2.mp4")
    loader = Loader(dataset, batch_size=4, max_bad_ratio=0.25)

    assert len(read(loader)) == 3
    assert len(loader.bad) == 3


def number_of_steps(ranks: int, bad: set[int], ratio: float) -> int:
    """How many steps of 4 samples some ranks do before damaged files stop all of them."""

    class Damaged(Numbers):
        def sample(self, epoch: int, index: int) -> Sample:
            problems = (Problem(str(index), "torn"),) if index in bad else ()
            return replace(super().sample(epoch, index), problems=problems)

    options = {"batch_size": 4 // ranks, "world_size": ranks, "max_bad_ratio": ratio}
    loaders = [Loader(Damaged(40), rank=rank, **options) for rank in range(ranks)]
    epochs = [loader.epoch(0) for loader in loaders]
    for step in range(10):
        for batches in epochs:
            with suppress(DataError):
                next(batches)
        found, stopped = [dict(loader.bad) for loader in loaders], 0
        for loader in loaders:
            try:
                loader.share_bad(lambda _, found=found: found)
            except DataError:
                stopped += 1
        assert stopped in (0, ranks)
        if stopped:
            return step
    return 10


@given(st.sets(st.integers(0, 39), max_size=8), st.sampled_from([0.0, 0.05, 0.1]))
def test_too_many_bad_files_stop_any_number_of_ranks_at_the_same_step(bad, ratio):
    alone, *others = (number_of_steps(ranks, bad, ratio) for ranks in (1, 2, 4))

    assert others == [alone, alone]
    assert (alone < 10) == (len(bad) > ratio * 40)


def test_no_epoch_of_one_seed_has_the_order_of_another(folder):
    orders = [
        Loader(clips(folder), batch_size=3, seed=s)._order(e) for s in range(3) for e in (0, 1)
    ]

    assert len(set(map(tuple, orders))) == 6


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 60))
def test_an_epoch_whose_last_batch_is_kept_goes_on_anywhere(count, batch, ranks, start):
    assume(start <= count)
    options = {"batch_size": batch, "world_size": ranks, "shuffle": False, "drop_last": False}
    loaders = [Loader(Numbers(count), rank=rank, **options) for rank in range(ranks)]

    parts = [[batch.indices.tolist() for batch in loader.epoch(0, start)] for loader in loaders]

    assert all(shares for rank in parts for shares in rank)
    together = [list(chain(*shares)) for shares in zip(*parts, strict=True)]
    if count >= ranks:
        assert all(len(set(batch)) == len(batch) for batch in together)
    trained = list(chain(*together))
    # Each sample once, and those that give every rank one of the last batch.
    assert trained[: count - start] == list(range(start, count))
    assert len(trained) - (count - start) < ranks


@pytest.mark.parametrize(
    ("count", "start", "expected"),
    [
        (10, 1, [[1, 2, 3], [4, 5, 6, 7], [8, 9]]),  # goes on in the middle of a batch
        (3, 0, [[0, 1, 2]]),  # less than a batch
        (9, 0, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 0]]),  # less than a sample per rank
    ],
)
def test_a_batch_that_is_kept_is_divided_as_it_is(count, start, expected):
    options = {"batch_size": 2, "world_size": 2, "shuffle": False, "drop_last": False}

    parts = [Loader(Numbers(count), rank=r, **options).epoch(0, start) for r in (0, 1)]

    shares = zip(*parts, strict=True)
    assert [[*a.indices.tolist(), *b.indices.tolist()] for a, b in shares] == expected


def test_a_last_batch_that_is_kept_ends_with_the_list(folder):
    assert Loader(clips(folder), batch_size=5, drop_last=False).ends() == [5, 10, 12]


def test_a_mistake_in_the_program_is_raised_with_its_place(folder):
    loader = Loader(clips(folder, "bug.mp4"), batch_size=4, num_workers=1)

    with pytest.raises(KeyError, match="a mistake in the program") as caught:
        read(loader)
    assert "_read" in caught.value.__notes__[0]


def test_an_epoch_may_be_left_in_the_middle(folder):
    loader = Loader(clips(folder), batch_size=3, num_workers=2)

    next(loader.epoch(0))

    assert_same(read(loader, epoch=1), read(Loader(clips(folder), batch_size=3), epoch=1))


@pytest.mark.parametrize("left", [lambda loader: next(loader.epoch(1)), Loader.close])
def test_an_epoch_ends_in_one_line_where_another_begins_or_the_loader_is_closed(left):
    loader = Loader(Numbers(40), batch_size=2, num_workers=1)
    first = loader.epoch(0)
    next(first)

    left(loader)

    with pytest.raises(DataError, match="epoch 0: its loader was closed or began another epoch"):
        list(first)
    assert_same(read(loader, epoch=1), read(Loader(Numbers(40), batch_size=2), epoch=1))


def test_closing_ends_the_workers():
    before = set(multiprocessing.active_children())
    loader = Loader(Numbers(4), batch_size=2, num_workers=2)
    list(loader.epoch(0))
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2

    loader.close()

    assert not workers & set(multiprocessing.active_children())


def test_epochs_without_workers_may_be_read_in_turns():
    loader = Loader(Numbers(8), batch_size=2)

    assert len(list(zip(loader.epoch(0), loader.epoch(1), strict=True))) == 4


def test_a_list_that_fills_no_batch_is_refused(folder):
    with pytest.raises(
        DataError, match=r"12 samples do not fill one batch of 16; make TRAIN\.BATCH_SIZE smaller"
    ):
        Loader(clips(folder), batch_size=16)
