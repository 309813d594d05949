"""Loader, network and storage of N nodes as queues: clips per second, data share, work that
failures cost.

    python benchmarks/simulate.py check [--batches 20] [--workers 2]     one node: measured beside simulated
    python benchmarks/simulate.py table [--decode .05] [--step .09]      1, 8 and 64 nodes, files and shards

A node has `workers` that take clips in order, at most 2 x max(batch, workers) ahead of training. A
clip is read from the storage, whose requests and bytes per second all nodes share, after a latency,
then decoded; with shards a worker fetches the next clip while it decodes one. A step begins when
every node has its batch, and ends together. Nodes fail at random; a failure costs the work since
the last checkpoint and a restart. check runs the real loader, with a sleep for the step, and feeds
the service times of its own workers to the simulation.
"""

import argparse
import heapq
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from made_videos import write_videos

from octvideo.data import ClipDataset, ClipRule, ClipTransform, Loader
from octvideo.data.lists.video_list import read_list
from octvideo.data.loading.batch import Sample

_SLOT = 0.01


@dataclass(slots=True)
class Storage:
    """Shared by all nodes: so many reads fit into each hundredth of a second; the others wait for a
    later one."""

    requests_per_second: float
    bytes_per_second: float
    latency: Callable[[], float]
    _used: dict[int, int] = field(default_factory=dict)

    def read(self, now: float, num_bytes: float) -> float:
        """When the bytes are there."""
        a_read = max(1 / self.requests_per_second, num_bytes / self.bytes_per_second)
        fits = max(1, round(_SLOT / a_read))
        slot = int(now / _SLOT)
        while self._used.get(slot, 0) >= fits:
            slot += 1
        self._used[slot] = self._used.get(slot, 0) + 1
        return max(now, slot * _SLOT) + self.latency()


@dataclass(slots=True)
class Node:
    """Workers, and the times at which clips were taken by training."""

    workers: int
    batch: int
    decode: Callable[[], float]
    reads_ahead: bool
    slowness: float = 1.0
    free: list[tuple[float, float]] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    started: int = 0

    def __post_init__(self) -> None:
        self.free = [(0.0, 0.0)] * self.workers

    def batch_ready(self, storage: Storage, num_bytes: float) -> float:
        """When the next batch is decoded."""
        ahead, ready = 2 * max(self.batch, self.workers), 0.0
        for _ in range(self.batch):
            free_at, began = heapq.heappop(self.free)
            number = self.started
            allowed = self.taken[number - ahead] if number >= ahead else 0.0
            start = max(free_at, allowed)
            asked = max(began, allowed) if self.reads_ahead else start
            there = storage.read(asked, num_bytes)
            decoding = max(start, there)
            done = decoding + self.slowness * self.decode()
            heapq.heappush(self.free, (done, decoding))
            self.started, ready = number + 1, max(ready, done)
        return ready


@dataclass(frozen=True, slots=True)
class Outcome:
    """clips_per_second: of all nodes. data_share: of the time in which training waits for clips."""

    clips_per_second: float
    data_share: float


def simulate(
    nodes: list[Node], storage: Storage, step: Callable[[], float], num_bytes: float, batches: int
) -> Outcome:
    """The first half of the batches fills the queues and is not counted."""
    now, waited, counted_from = 0.0, 0.0, 0.0
    for number in range(batches):
        if number == batches // 2:
            counted_from, waited = now, 0.0
        ready = [node.batch_ready(storage, num_bytes) for node in nodes]
        begin = max(now, *ready)
        waited += begin - now
        for node, at in zip(nodes, ready, strict=True):
            node.taken += [max(now, at)] * node.batch
        now = begin + max(node.slowness * step() for node in nodes)
    seconds = now - counted_from
    clips = (batches - batches // 2) * sum(node.batch for node in nodes)
    return Outcome(clips / seconds, waited / seconds)


def kept_share(
    nodes: int, mtbf_hours: float, checkpoint_minutes: float, restart_minutes: float
) -> float:
    """Share of the time that is not lost to failures: half a checkpoint interval and a restart for
    each."""
    lost = (checkpoint_minutes / 2 + restart_minutes) / 60
    return max(0.0, 1 - nodes * lost / mtbf_hours)


def spread(mean: float, sigma: float, draw: random.Random) -> Callable[[], float]:
    """Lognormal service times."""
    middle = mean / pow(2.718281828, sigma**2 / 2)
    return lambda: middle * draw.lognormvariate(0, sigma)


class Timed(ClipDataset):
    """Says in each sample's path how long it took."""

    def sample(self, epoch: int, index: int) -> Sample:
        start = time.perf_counter()
        sample = ClipDataset.sample(self, epoch, index)
        return replace(sample, path=repr(time.perf_counter() - start))


def check(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        videos = list(read_list(write_videos(Path(name), 8, 10, 12)))
        count = 8 * -(-args.batches * args.batch // 8)
        dataset = Timed(
            (videos * (count // 8 + 1))[:count], rule=ClipRule(8, 8), transform=ClipTransform(224)
        )
        loader = Loader(dataset, batch_size=args.batch, num_workers=args.workers)
        list(loader.epoch(0))  # starts the workers
        for step in (0.0, 0.05 * args.batch, 0.2 * args.batch):
            services: list[float] = []
            waited = 0.0
            start = before = time.perf_counter()
            for batch in loader.epoch(1):
                waited += time.perf_counter() - before
                services += map(float, batch.paths)
                time.sleep(step)
                before = time.perf_counter()
            seconds = time.perf_counter() - start
            measured = len(services) / seconds
            times = iter(services * 4)
            node = Node(args.workers, args.batch, lambda t=times: next(t), reads_ahead=False)
            nothing = Storage(1e9, 1e15, lambda: 0.0)
            found = simulate([node], nothing, lambda s=step: s, 0.0, 2 * len(loader))
            print(
                f"step {step:.2f} s: measured {measured:.1f} clips/s, data share"
                f" {waited / seconds:.2f}; simulated {found.clips_per_second:.1f}"
                f" ({found.clips_per_second / measured - 1:+.1%}), {found.data_share:.2f}; a clip"
                f" takes a worker {1000 * statistics.mean(services):.0f} ms"
            )
        loader.close()


def table(args: argparse.Namespace) -> None:
    print(
        "nodes  storage  clips/s   of one node x N  data share  kept   clips/s with a node 10 x"
        " slower"
    )
    for form in ("files", "shards"):
        base = 0.0
        for count in (1, 8, 64):
            outcomes = []
            for slowest in (1.0, 10.0):
                draw = random.Random(0)
                nodes = [
                    Node(args.workers, args.batch, spread(args.decode, 0.4, draw), form == "shards")
                    for _ in range(count)
                ]
                nodes[0].slowness = slowest
                requests = args.file_requests if form == "files" else args.range_requests
                latency = spread(args.latency, 1.0, draw)
                storage = Storage(requests, args.bandwidth, latency)
                outcomes.append(
                    simulate(
                        nodes, storage, spread(args.step, 0.05, draw), args.bytes, args.batches
                    )
                )
            usual, straggler = outcomes
            base = base or usual.clips_per_second
            kept = kept_share(count, args.mtbf_hours, args.checkpoint_minutes, args.restart_minutes)
            print(
                f"{count:5}  {form:7} {usual.clips_per_second:8.0f}  "
                f" {usual.clips_per_second / base / count:14.2f}  {usual.data_share:10.2f} "
                f" {kept:.3f}  {straggler.clips_per_second / usual.clips_per_second:.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    kind = kinds.add_parser("check")
    kind.add_argument("--batches", type=int, default=20)
    kind.add_argument("--batch", type=int, default=4)
    kind.add_argument("--workers", type=int, default=2)
    kind = kinds.add_parser("table")
    kind.add_argument(
        "--workers", type=int, default=120, help="cores for decoding per node of 8 GPUs"
    )
    kind.add_argument("--batch", type=int, default=256, help="clips per node and step")
    kind.add_argument("--decode", type=float, default=0.05, help="seconds per clip and core")
    kind.add_argument("--step", type=float, default=0.09, help="seconds of a step with its batch")
    kind.add_argument("--bytes", type=float, default=0.57e6, help="of a video")
    kind.add_argument(
        "--bandwidth", type=float, default=20e9, help="bytes per second of the storage"
    )
    kind.add_argument("--latency", type=float, default=0.02, help="seconds of a read")
    kind.add_argument(
        "--file-requests", type=float, default=1e4, help="opens per second of the storage"
    )
    kind.add_argument("--range-requests", type=float, default=1e5, help="ranges per second")
    kind.add_argument("--batches", type=int, default=60)
    kind.add_argument("--mtbf-hours", type=float, default=2000, help="of a node")
    kind.add_argument("--checkpoint-minutes", type=float, default=10)
    kind.add_argument("--restart-minutes", type=float, default=5)
    args = parser.parse_args()
    {"check": check, "table": table}[args.kind](args)


if __name__ == "__main__":
    main()
