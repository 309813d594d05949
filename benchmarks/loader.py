"""What the loader delivers, against the same clips read by bare loops in as many processes.

    python benchmarks/loader.py [--videos 24] [--rounds 5] [--workers 2]
    python benchmarks/loader.py --places      # where to resize, crop, flip and jitter

340 x 256 H.264, 10 s, a keyframe every 12 frames; a training clip is 8 x 8, jittered, cropped to
224 and flipped. The bare loop opens decord with one thread, reads 8 frames, resizes and crops; so
many such processes as the loader has workers run at once, and rounds take turns. Wall clocks show
the throughput; where other work fills the machine, trust the CPU time, of all processes on each
side.
Also printed: CPU milliseconds per clip of resize, crop and color jitter, and what a worker holds in
memory.

--places compares uint8 augmentation in the workers (the default) with whole uint8 frames that are
sent to the training process and augmented there in float, as a device would; normalization is the
training process's in both.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import decord
import torch
from made_videos import write_videos

from octvideo.data import ClipDataset, ClipRule, ClipTransform, Loader, probe
from octvideo.data.lists.video_list import read_list
from octvideo.data.sampling import Timing
from octvideo.data.transforms import Change, color_jitter, normalize
from octvideo.data.video.index import read_index, write_index

RULE, TRANSFORM = ClipRule(8, 8), ClipTransform(224)
BATCH = 8


def bare_clips(paths: list[str], seed: int, start: Any, done: Any) -> None:
    torch.set_num_threads(1)
    for _ in iter(start.get, None):
        draw = random.Random(seed)
        for path in paths:
            reader = decord.VideoReader(path, num_threads=1)
            indices = RULE.clip(Timing(len(reader), reader.get_avg_fps()), draw.random)
            TRANSFORM(torch.from_numpy(reader.get_batch(indices).asnumpy()).movedim(-1, 0), draw)
        done.put(len(paths))


class BareProcesses:
    """Share the clips out among processes that have nothing else to do, and wait for the last
    one."""

    def __init__(self, paths: list[str], num_workers: int) -> None:
        context = multiprocessing.get_context("forkserver")
        self._start, self._done = context.Queue(), context.Queue()
        self._processes = [
            context.Process(
                target=bare_clips,
                args=(paths[k::num_workers], k, self._start, self._done),
                daemon=True,
            )
            for k in range(num_workers)
        ]
        for process in self._processes:
            process.start()
        self.pids = [process.pid for process in self._processes]

    def epoch(self) -> None:
        for _ in self._processes:
            self._start.put(True)
        for _ in self._processes:
            self._done.get()


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def cpu_of(pids: list[int]) -> float:
    """Seconds of CPU that processes have used so far. (Linux.)"""
    ticks = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids
    ]
    return sum(int(user) + int(system) for user, system in ticks) / os.sysconf("SC_CLK_TCK")


def cpu_milliseconds(action: Callable[[], object], repeats: int = 20) -> float:
    action()
    start = time.process_time()
    for _ in range(repeats):
        action()
    return 1000 * (time.process_time() - start) / repeats


def own_megabytes(pid: int) -> tuple[float, float]:
    """(private, proportional share) of a process's memory. (Linux.)"""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if ":" in line
    )
    kilobytes = {
        name: int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty", "Pss")
    }
    return (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1000, kilobytes["Pss"] / 1000


class Whole(ClipTransform):
    """Frames as they were decoded: all videos must be of one size."""

    def crop_for(self, height: int, width: int, draw: random.Random) -> Change:
        return lambda clip: clip

    def vary(self, clip: torch.Tensor, draw: random.Random) -> torch.Tensor:
        return clip


def augmented(
    inputs: torch.Tensor, transform: ClipTransform | None, draw: random.Random
) -> torch.Tensor:
    """What the network gets. transform: what the workers have left to the training process."""
    if transform is not None:
        inputs = torch.stack([transform(clip.float(), draw) for clip in inputs])
    return normalize(inputs, [0.45] * 3, [0.225] * 3)


def report_places(
    dataset: Callable[[ClipTransform], ClipDataset], rounds: int, num_workers: int
) -> None:
    for strength in (0.0, 0.4):
        transform = ClipTransform(224, color_jitter=strength)
        for place, sent, rest in (
            ("workers", transform, None),
            ("training process", Whole(224), transform),
        ):
            loader, draw = (
                Loader(dataset(sent), batch_size=BATCH, num_workers=num_workers),
                random.Random(0),
            )
            rates, here, everywhere = [], [], []
            for epoch in range(rounds + 1):
                before = time.perf_counter(), time.process_time(), cpu_of(worker_pids(loader))
                for batch in loader.epoch(epoch):
                    augmented(batch.inputs, rest, draw)
                clips = BATCH * len(loader)
                if epoch:  # the first one starts the workers
                    own = time.process_time() - before[1]
                    rates.append(clips / (time.perf_counter() - before[0]))
                    here.append(1000 * own / clips)
                    everywhere.append(
                        here[-1] + 1000 * (cpu_of(worker_pids(loader)) - before[2]) / clips
                    )
            loader.close()
            print(
                f"in the {place:16} color jitter {strength}: {statistics.median(rates):5.1f}"
                f" clips/s, CPU ms a clip: {statistics.median(everywhere):.1f}, of it"
                f" {statistics.median(here):.1f} in the training process;"
                f" {batch.inputs[0].numel() / 1e6:.2f} MB a clip travel"
            )


def worker_pids(loader: Loader) -> list[int]:
    return [worker._process.pid for worker in loader._pool._workers] if loader._pool else []


def report_pixels() -> None:
    clip = torch.randint(256, (8, 256, 340, 3), dtype=torch.uint8).movedim(-1, 0)
    draw = random.Random(0)
    plain = cpu_milliseconds(lambda: TRANSFORM(clip, draw).contiguous())
    small = TRANSFORM(clip, draw)
    color = cpu_milliseconds(lambda: color_jitter(small, 0.4, draw.random))
    print(f"resize, crop, flip: {plain:.1f} ms of CPU a clip; color jitter: {color:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--places", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos = read_list(write_videos(Path(folder), args.videos, 10, 12))
        paths = [entry.path for entry in videos] * 4
        write_index(
            Path(folder, "index.csv"), [(path, probe(path)) for path in paths[: args.videos]]
        )
        index = read_index(Path(folder, "index.csv"))

        def dataset(transform: ClipTransform) -> ClipDataset:
            return ClipDataset(list(videos) * 4, rule=RULE, transform=transform, index=index)

        if args.places:
            report_places(dataset, args.rounds, args.workers)
            return
        report_pixels()
        loader = Loader(dataset(TRANSFORM), batch_size=BATCH, num_workers=args.workers)
        bare = BareProcesses(paths, args.workers)
        ratios, rates, cpu = [], [], []
        for number in range(args.rounds + 1):
            if number == 0:  # this round starts the workers
                bare.epoch()
                list(loader.epoch(0))
                pids = [os.getpid(), *worker_pids(loader)]
                continue
            before = cpu_of(bare.pids), cpu_of(pids)
            theirs = seconds(bare.epoch)
            ours = seconds(lambda epoch=number: [batch.inputs for batch in loader.epoch(epoch)])
            ratios.append(theirs / ours)
            rates.append(len(paths) / ours)
            cpu.append((cpu_of(bare.pids) - before[0]) / (cpu_of(pids) - before[1]))
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{args.workers} workers: {statistics.median(rates):.1f} clips/s, {middle:.3f} of"
            f" {args.workers} bare processes ({low:.3f}-{high:.3f})"
        )
        print(
            f"by CPU time, of all processes: {statistics.median(cpu):.3f}"
            f" ({min(cpu):.3f}-{max(cpu):.3f})"
        )
        for worker in loader._pool._workers:
            private, share = own_megabytes(worker._process.pid)
            print(
                f"a worker: {private:.0f} MB of its own, {share:.0f} MB with its share of what is"
                " common"
            )
        loader.close()


if __name__ == "__main__":
    main()
