"""Loader, network and storage of N nodes as queues: clips per second, data share, work that
failures cost.

    python benchmarks/simulate.py check [--batches 20] [--workers 2]     one node: measured beside simulated
    python benchmarks/simulate.py measure --machine "2-core Xeon" --date 2026-11-27      CPU seconds of clips
    python benchmarks/simulate.py table --page docs/scaling.md           1, 8 and 64 nodes, files and shards

A node has `workers` that take clips in order, at most 2 x max(batch, workers) ahead of training. A
clip is read from the storage, whose requests and bytes per second all nodes share, after a latency,
then decoded; with shards a worker fetches the next clip while it decodes one. A step begins when
every node has its batch, and ends together. Nodes fail at random; a failure costs the work since
the last checkpoint and a restart. check runs the real loader, with a sleep for the step, and feeds
the service times of its own workers to the simulation. measure keeps CPU seconds of clips in
results/service_times.json, from which table draws; the step is that of the named note.
"""

import argparse
import heapq
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from made_videos import write_videos

from octvideo.data import ClipDataset, ClipRule, ClipTransform, Loader
from octvideo.data.lists.video_list import read_list
from octvideo.data.loading.batch import Sample
from octvideo.data.prepare.shard import write_shards
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.video.decode import probe

_SLOT = 0.01
SERVICE_TIMES = Path(__file__).parent / "results" / "service_times.json"
# i3d_r50, 8 x 224, training, fused, alpha 0: benchmarks/gpu_2026-11-26_h200.md
STEP = {"seconds": 0.0371, "clips": 32, "gpu": "H200"}
BEGIN, END = "<!-- benchmarks/simulate.py table writes this -->", "<!-- end of the table -->"


@dataclass(slots=True)
class Storage:
    """Shared by all nodes: so many reads fit into each hundredth of a second; the others wait for a
    later one."""

    requests_per_second: float
    bytes_per_second: float
    latency: Callable[[], float]
    _used: dict[int, int] = field(default_factory=dict)
    _later: dict[int, int] = field(default_factory=dict)  # of full slots, one that was free

    def read(self, now: float, num_bytes: float) -> float:
        """When the bytes are there."""
        a_read = max(1 / self.requests_per_second, num_bytes / self.bytes_per_second)
        fits = max(1, round(_SLOT / a_read))
        slot, full = int(now / _SLOT), []
        while self._used.get(slot, 0) >= fits:
            full.append(slot)
            slot = self._later.get(slot, slot + 1)
        self._later.update(dict.fromkeys(full, slot))
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
    nodes: int,
    mtbf_hours: float,
    checkpoint_minutes: float,
    restart_minutes: float,
    draw: random.Random,
    failures: int = 4000,
) -> float:
    """Share of the time whose work outlives failures: each takes what was done since the last
    checkpoint, and a restart."""
    kept = wall = 0.0
    for _ in range(failures):
        gap = 60 * draw.expovariate(nodes / mtbf_hours)
        wall += gap
        kept += checkpoint_minutes * (max(gap - restart_minutes, 0) // checkpoint_minutes)
    return kept / wall


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


class TimedOnCPU(ClipDataset):
    """Says in each sample's path how many CPU seconds it took."""

    def sample(self, epoch: int, index: int) -> Sample:
        start = time.process_time()
        sample = ClipDataset.sample(self, epoch, index)
        return replace(sample, path=repr(time.process_time() - start))


def measure(args: argparse.Namespace) -> None:
    """CPU seconds of training clips in a loader worker, from files and from shards."""
    with tempfile.TemporaryDirectory() as name:
        files = read_list(write_videos(Path(name), 8, 10, 12))
        write_shards(files, str(Path(name, "shards")), name="a")
        found: dict[str, list[float]] = {}
        known = {entry.path: probe(entry.path) for entry in files}  # as `octvideo check` does
        for form, videos in (("files", files), ("shards", open_shards(str(Path(name, "shards"))))):
            dataset = TimedOnCPU(
                list(videos) * (args.clips // 8),
                rule=ClipRule(8, 8),
                transform=ClipTransform(224),
                index=known if form == "files" else None,
            )
            loader = Loader(dataset, batch_size=8, num_workers=1)
            list(loader.epoch(0))  # loads the libraries
            services = [float(path) for batch in loader.epoch(1) for path in batch.paths]
            loader.close()
            found[form] = [round(seconds, 4) for seconds in services]
            print(f"{form}: {1000 * statistics.mean(services):.1f} CPU ms a clip")
    written = {"machine": args.machine, "date": args.date, "step": STEP, "decode": found}
    SERVICE_TIMES.write_text(json.dumps(written) + "\n")


def rows(args: argparse.Namespace) -> Iterator[str]:
    """The lines of the table, in Markdown."""
    measured = json.loads(SERVICE_TIMES.read_text())
    means = {form: statistics.mean(times) for form, times in measured["decode"].items()}
    yield (
        f"*Measured*: {1000 * means['files']:.0f} CPU ms to read and decode a clip from a file,"
        f" {1000 * means['shards']:.0f} from a shard (the simulation draws from"
        f" {len(measured['decode']['files'])} clips each; {measured['machine']},"
        f" {measured['date']}); {1000 * measured['step']['seconds']:.0f} ms for a step of"
        f" {measured['step']['clips']} clips on one {measured['step']['gpu']}."
    )
    yield (
        f"*Assumed*: nodes of 8 such GPUs and {args.workers} cores that decode; storage with"
        f" {args.bandwidth / 1e9:.0f} GB/s, {args.file_requests:,.0f} opens of small files or"
        f" {args.range_requests:,.0f} ranges per second, {1000 * args.latency:.0f} ms each (lognormal, sigma 1);"
        f" a node fails every {args.mtbf_hours:,.0f} hours, and a restart takes"
        f" {args.restart_minutes:.0f} minutes."
    )
    yield ""
    yield (
        "| nodes | from | clips/s | of one node x N | data share | one node 10 x slower |"
        " kept, CHECKPOINT_MINUTES 10 | 60 |"
    )
    yield "|---" * 8 + "|"
    for form in ("files", "shards"):
        base = 0.0
        for count in (1, 8, 64):
            usual, straggler = (
                outcome(args, measured, form, count, slowest) for slowest in (1.0, 10.0)
            )
            base = base or usual.clips_per_second
            kept = [
                kept_share(count, args.mtbf_hours, minutes, args.restart_minutes, random.Random(0))
                for minutes in (10, 60)
            ]
            yield (
                f"| {count} | {form} | {usual.clips_per_second:,.0f} |"
                f" {usual.clips_per_second / base / count:.2f} | {usual.data_share:.2f} |"
                f" {straggler.clips_per_second / usual.clips_per_second:.2f} of it |"
                f" {kept[0]:.3f} | {kept[1]:.3f} |"
            )


def outcome(
    args: argparse.Namespace, measured: dict[str, Any], form: str, count: int, slowest: float
) -> Outcome:
    """Of so many nodes, the first of which takes `slowest` times as long for everything."""
    draw, seconds = random.Random(0), measured["decode"][form]
    nodes = [
        Node(args.workers, args.batch, lambda: draw.choice(seconds), form == "shards")
        for _ in range(count)
    ]
    nodes[0].slowness = slowest
    requests = args.file_requests if form == "files" else args.range_requests
    storage = Storage(requests, args.bandwidth, spread(args.latency, 1.0, draw))
    step = spread(measured["step"]["seconds"], 0.05, draw)
    # Of few nodes more batches: those that are decoded ahead must not count.
    batches = round(8 * args.batches / math.sqrt(count))
    return simulate(nodes, storage, step, args.bytes, batches)


def table(args: argparse.Namespace) -> None:
    lines = "\n".join(rows(args))
    print(lines)
    if args.page:
        page = args.page.read_text()
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        args.page.write_text(f"{before}{BEGIN}\n{lines}\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    kind = kinds.add_parser("check")
    kind.add_argument("--batches", type=int, default=20)
    kind.add_argument("--batch", type=int, default=4)
    kind.add_argument("--workers", type=int, default=2)
    kind = kinds.add_parser("measure")
    kind.add_argument("--clips", type=int, default=96)
    kind.add_argument("--machine", required=True)
    kind.add_argument("--date", required=True)
    kind = kinds.add_parser("table")
    kind.add_argument("--page", type=Path, help="whose table is written anew")
    kind.add_argument(
        "--workers", type=int, default=120, help="cores for decoding per node of 8 GPUs"
    )
    kind.add_argument("--batch", type=int, default=256, help="clips per node and step")
    kind.add_argument("--bytes", type=float, default=0.57e6, help="of a video")
    kind.add_argument(
        "--bandwidth", type=float, default=20e9, help="bytes per second of the storage"
    )
    kind.add_argument("--latency", type=float, default=0.02, help="seconds of a read")
    kind.add_argument(
        "--file-requests", type=float, default=1e4, help="opens per second of the storage"
    )
    kind.add_argument("--range-requests", type=float, default=1e5, help="ranges per second")
    kind.add_argument("--batches", type=int, default=24, help="of 64 nodes")
    kind.add_argument("--mtbf-hours", type=float, default=2000, help="of a node")
    kind.add_argument("--restart-minutes", type=float, default=5)
    args = parser.parse_args()
    {"check": check, "measure": measure, "table": table}[args.kind](args)


if __name__ == "__main__":
    main()
