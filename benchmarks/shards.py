"""Shards against files: clips per second, over HTTP too; memory of a worker; opening a large index.

    python benchmarks/shards.py speed [--videos 24] [--rounds 5] [--workers 4] [--latency .02]
    python benchmarks/shards.py memory [--entries 100000]
    python benchmarks/shards.py table [--rounds 30]
    python benchmarks/shards.py index [--entries 1000000] [--rounds 5]

speed: 340 x 256 H.264, 10 s, a keyframe every 12 frames; a training clip is 8 x 8, jittered,
cropped to 224. Rounds
take turns: files, shards on this disk, shards from an HTTP server on loopback (another process)
that waits `latency` before every answer. memory: one worker reads a clip of every video of a set
with that many entries (64 x 48, 16 frames), one after another. table: a clip read by PyAV from a
member, with the table of the index and without. index: a set of that many entries in shards of 1,800
is opened in a fresh process.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made_videos import write_videos
from range_server import RangeServer

from octvideo.data import ClipDataset, ClipRule, ClipTransform, Loader
from octvideo.data.lists.video_list import VideoEntry, read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.shards.index import StoredVideo, encode
from octvideo.data.shards.scan import index_address
from octvideo.data.shards.shard_list import open_shards
from octvideo.data.shards.shard_set import FILE_NAME, Shard, ShardSet
from octvideo.data.video.decode import probe
from octvideo.data.video.encode import write_video
from octvideo.data.video.examine import frame_table
from octvideo.data.video.frame_source import open_entry

PER_SHARD = 1800
BATCH = 8


def dataset(videos: Sequence[VideoEntry], index: Any = None) -> ClipDataset:
    return ClipDataset(videos, rule=ClipRule(8, 8), transform=ClipTransform(224), index=index)


def serve(folder: str, latency: float, answer: Any) -> None:
    with RangeServer(Path(folder), latency=latency) as server:
        answer.send(server.url)
        answer.recv()


class Served:
    """A server of a folder in a process of its own."""

    def __init__(self, folder: Path, latency: float) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(str(folder), latency, theirs), daemon=True
        )
        self._process.start()
        self.url = self._pipe.recv()

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()


class InMemoryIndex:
    """What `check` would have found of the files, so that both sides know their videos."""

    def __init__(self, paths: list[str]) -> None:
        self._known = {path: probe(path) for path in paths}

    def get(self, path: str) -> Any:
        return self._known.get(path)


def speed(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = read_list(write_videos(folder, args.videos, 10, 12))
        write_shards(videos, str(folder / "shards"), name="a", max_bytes=4_000_000)
        server = Served(folder / "shards", args.latency)
        sources = {
            "files": dataset(list(videos) * 4, InMemoryIndex([entry.path for entry in videos])),
            "shards": dataset(list(open_shards(str(folder / "shards"))) * 4),
            f"shards over HTTP, {1000 * args.latency:g} ms": dataset(
                list(open_shards(server.url)) * 4
            ),
        }
        loaders = {
            name: Loader(data, batch_size=BATCH, num_workers=args.workers)
            for name, data in sources.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for number in range(args.rounds + 1):
            order = list(loaders)
            for name in order[number % 3 :] + order[: number % 3]:
                loader = loaders[name]
                start = time.perf_counter()
                clips = sum(len(batch) for batch in loader.epoch(number))
                if number:  # the first round starts the workers
                    rates[name].append(clips / (time.perf_counter() - start))
        for loader in loaders.values():
            loader.close()
        server.close()
    for name, values in rates.items():
        ratios = [ours / files for ours, files in zip(values, rates["files"], strict=True)]
        print(
            f"{name:24} {statistics.median(values):6.1f} clips/s"
            f" ({min(values):.1f}-{max(values):.1f}), {statistics.median(ratios):.3f} of files in"
            f" its round ({min(ratios):.3f}-{max(ratios):.3f})"
        )


def write_large_set(folder: Path, entries: int, video: Path) -> None:
    """Shards that all are one tar of PER_SHARD copies of a video, with an index each and other
    paths."""
    folder.mkdir()
    info = probe(str(video))
    one, size = folder / "one.csv", video.stat().st_size
    one.write_text(f"{video} 0\n" * PER_SHARD)
    first = write_shards(read_list(one), str(folder / "one"), name="a", max_bytes=10**12)
    tar = folder / "one" / first.shards.shards[0].file
    parts = [entry.part for entry in open_shards(str(folder / "one"))]
    found = frame_table(str(video), info)
    encoded = found.encode()
    described = ShardSet(str(folder), fingerprint="made", class_names=["a"])
    for start in range(0, entries, PER_SHARD):
        name = f"train-{start // PER_SHARD:06d}.tar"
        rows = [
            StoredVideo(
                f"train/playing the flute/abcdefghijk_{start + i:06d}_000010.mp4",
                (0,),
                part.offset,
                size,
                part.crc32,
                replace(info, num_bytes=size),
                "",
                found.keyframes(),
                found.times,
                encoded,
            )
            for i, part in enumerate(parts[: min(PER_SHARD, entries - start)])
        ]
        (folder / name).hardlink_to(tar)
        Path(index_address(str(folder / name))).write_bytes(encode(rows, {"shard": name}))
        described.shards.append(Shard(name, tar.stat().st_size, len(rows)))
    (folder / FILE_NAME).write_bytes(described.as_json())


def resident_megabytes(pid: int | str = "self") -> float:
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1]
    return int(fields.split()[0]) / 1024


def with_large_set(entries: int, action: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as name:
        noise = np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), np.uint8)
        write_video(Path(name, "small.mp4"), noise, 30, gop=8)
        write_large_set(Path(name, "set"), entries, Path(name, "small.mp4"))
        action(Path(name, "set"))


def memory(args: argparse.Namespace) -> None:
    def measure(folder: Path) -> None:
        videos = ClipDataset(
            open_shards(str(folder)), rule=ClipRule(4, 2), transform=ClipTransform(32, (40, 48))
        )
        loader, seen, paths = Loader(videos, batch_size=BATCH, num_workers=1), 0, set()
        # The first clips load the libraries.
        marks = [min(1000, args.entries // 10), *range(0, args.entries + 1, args.entries // 10)]
        for batch in loader.epoch(0):
            before, seen = seen, seen + len(batch)
            paths.update(batch.paths)
            if loader._pool and any(before < mark <= seen for mark in marks):
                worker = loader._pool._workers[0]._process.pid
                print(
                    f"{seen:7} clips of {len(paths)} videos: worker"
                    f" {resident_megabytes(worker):.1f} MB, trainer {resident_megabytes():.0f} MB",
                    flush=True,
                )
        loader.close()

    with_large_set(args.entries, measure)


def table(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        videos = read_list(write_videos(Path(name), 4, 10, 12))
        write_shards(videos, str(Path(name, "shards")), name="a")
        entries = list(open_shards(str(Path(name, "shards"))))
        ratios, milliseconds = [], []
        for number in range(args.rounds):
            times = []
            for kept in (True, False):
                start = time.perf_counter()
                for entry in entries:
                    part = entry.part if kept else entry.part._replace(table=None)
                    with open_entry(entry._replace(part=part), backend="pyav") as video:
                        video.read(range(100 + number, 164 + number, 8))
                times.append(1000 * (time.perf_counter() - start) / len(entries))
            ratios.append(times[0] / times[1])
            milliseconds.append(times)
        kept, scanned = (statistics.median(column) for column in zip(*milliseconds, strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"a clip by PyAV: {kept:.1f} ms with the table, {scanned:.1f} ms without; {middle:.3f}"
            f" of it ({low:.3f}-{high:.3f})"
        )


OPENING = """
import json, sys, time
from octvideo.data.shards.shard_list import open_shards
from octvideo.data import ClipDataset
from octvideo.engine.training.records import peak_resident_bytes
import iopath.common.file_io
before = peak_resident_bytes()
start, cpu = time.perf_counter(), time.process_time()
videos = open_shards(sys.argv[1])
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = peak_resident_bytes()
print(json.dumps([len(videos), seconds, cpu, (peak - before) / 2**20, peak / 2**20, videos[len(videos) - 1].path]))
"""


def index(args: argparse.Namespace) -> None:
    def measure(folder: Path) -> None:
        for _ in range(args.rounds):
            command = [sys.executable, "-c", OPENING, str(folder)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            count, seconds, cpu, added, peak, _ = json.loads(found)
            print(
                f"{count} entries: {seconds:.2f} s, {cpu:.2f} CPU s, {added:.0f} MB more at the peak ({peak:.0f} MB"
                " in all)"
            )

    with_large_set(args.entries, measure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    kind = kinds.add_parser("speed")
    kind.add_argument("--videos", type=int, default=24)
    kind.add_argument("--rounds", type=int, default=5)
    kind.add_argument("--workers", type=int, default=4)
    kind.add_argument("--latency", type=float, default=0.02)
    kind = kinds.add_parser("memory")
    kind.add_argument("--entries", type=int, default=100_000)
    kinds.add_parser("table").add_argument("--rounds", type=int, default=30)
    kind = kinds.add_parser("index")
    kind.add_argument("--entries", type=int, default=1_000_000)
    kind.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    {"speed": speed, "memory": memory, "table": table, "index": index}[args.kind](args)


if __name__ == "__main__":
    main()
