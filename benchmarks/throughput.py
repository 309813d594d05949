"""Videos per second and core of the ways to name many videos: `octvideo predict`, a pool of
processes, and Ray Data where it is installed.

    python benchmarks/throughput.py [--videos 120] [--rounds 3] [--processes 2]
        [--model i3d_r26 --alpha 0.5 --width 32 --size 64] [--views 1x1]

Videos are H.264 of 340 x 256, 10 s, a keyframe every 12 frames. The network is untrained: time does
not depend on weights. By default it is that of `make demo`, beside which decoding takes most of the
time, as it does beside a GPU. Each way runs in its own process, one after another, round by round;
the clock runs from the first video to the last, without imports and the start of a cluster. CPU
seconds per video are those of the processes that decode and compute; a busy machine changes them
less than videos per second.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from made_videos import write_videos
from untrained import CLASS_NAMES, preprocessing

import octvideo
from octvideo.batch import Predictor
from octvideo.data.lists.video_list import read_list

Row = dict[str, Any]
WARM_UP = 2  # videos that each process names before its clock starts


class Timed:
    """A `Predictor` that adds to each row when it began and ended, and its CPU seconds."""

    def __init__(self, checkpoint: str, views: str, warm_up: str) -> None:
        torch.set_num_threads(1)
        self._predictor = Predictor(checkpoint, views=views, device="cpu")
        for _ in range(WARM_UP):
            self._predictor({"path": warm_up})

    def __call__(self, row: Row) -> Row:
        began, cpu = time.time(), time.process_time()
        found = self._predictor(row)
        assert not found["error"], found["error"]
        return {"began": began, "ended": time.time(), "cpu": time.process_time() - cpu}


def pool(args: argparse.Namespace) -> tuple[float, float]:
    """(seconds, CPU seconds) of all videos."""
    context = multiprocessing.get_context("spawn")
    arguments = args.checkpoint, args.views, args.paths[0]
    with context.Pool(args.processes, start, arguments) as processes:
        return of_rows(list(processes.imap_unordered(predict, args.paths)))


timed: Timed


def start(*arguments: str) -> None:
    global timed
    timed = Timed(*arguments)


def predict(path: str) -> Row:
    return timed({"path": path})


def ray(args: argparse.Namespace) -> tuple[float, float]:
    import ray as engine

    # Workers import this file by its name.
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([*sys.path])}}
    engine.init(num_cpus=args.processes + 1, log_to_driver=False, runtime_env=environment)
    try:
        rows = (
            engine.data.from_items([{"path": path} for path in args.paths])
            .map(
                Timed,
                fn_constructor_args=[args.checkpoint, args.views, args.paths[0]],
                compute=engine.data.ActorPoolStrategy(size=args.processes),
            )
            .take_all()
        )
        return of_rows(rows)
    finally:
        engine.shutdown()


def of_rows(rows: list[Row]) -> tuple[float, float]:
    seconds = max(row["ended"] for row in rows) - min(row["began"] for row in rows)
    return seconds, sum(row["cpu"] for row in rows)


def one_command(args: argparse.Namespace) -> tuple[float, float]:
    """`octvideo predict` with a list: `predict_many`."""
    recognizer = octvideo.load(args.checkpoint, device="cpu")
    torch.set_num_threads(args.processes)

    videos = recognizer.predict_many(args.paths, views=args.views, workers=args.processes)
    assert not next(videos).problem
    began, before = time.perf_counter(), session_cpu_seconds()
    now = before.copy()
    for video in videos:
        assert not video.problem, video.problem
        ended = time.perf_counter()
        now |= session_cpu_seconds()  # those that decode end before the last video comes
    rest = len(args.paths) / (len(args.paths) - 1)
    return (ended - began) * rest, (sum(now.values()) - sum(before.values())) * rest


def session_cpu_seconds() -> dict[str, float]:
    """Of each process of this session; those that decode are children of a fork server."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == os.getsid(0):
                ticks = int(fields[11]) + int(fields[12])
                found[stat.parent.name] = ticks / os.sysconf("SC_CLK_TCK")
    return found


WAYS = {"octvideo predict": one_command, "pool of processes": pool, "Ray Data": ray}


def make_checkpoint(args: argparse.Namespace, path: Path) -> str:
    options = {"alpha": args.alpha, "width_per_group": args.width, "crop_size": args.size}
    network = octvideo.create_model(args.model, num_classes=len(CLASS_NAMES), **options)
    described = {
        "class_names": CLASS_NAMES,
        "preprocessing": preprocessing(args.size, args.size * 8 // 7),
    }
    meta = {"format": 1, "model": network.config} | described
    torch.save({"model_state": network.state_dict(), "meta": meta, "epoch": 0}, path)
    return str(path)


def measure(args: argparse.Namespace, folder: Path) -> None:
    args.checkpoint = make_checkpoint(args, folder / "untrained.pyth")
    videos = read_list(write_videos(folder, min(args.videos, 6), 10, 12))
    args.paths = [videos[i % len(videos)].path for i in range(args.videos)]
    args.paths = linked(args.paths, folder)
    ways = [name for name in WAYS if name != "Ray Data" or find_spec("ray")]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name in ways:
            found[name].append(in_own_process(name, args))
    what = f"{args.model} alpha {args.alpha} width {args.width} at {args.size}, {args.views}"
    print(f"{what}; {args.videos} videos, {args.processes} processes, {args.rounds} rounds\n")
    print("| way | videos/s and core | CPU ms per video |\n|---|---|---|")
    for name, times in found.items():
        rates = [args.videos / seconds / args.processes for seconds, _ in times]
        cpu = [1e3 * cpu / args.videos for _, cpu in times]
        print(f"| {name} | {spread(rates, '.1f')} | {spread(cpu, '.0f')} |", flush=True)


def linked(paths: list[str], folder: Path) -> list[str]:
    """A name of its own for each, since a run names each path once."""
    names = [folder / f"video_{i}.mp4" for i in range(len(paths))]
    for name, path in zip(names, paths, strict=True):
        name.hardlink_to(path)
    return list(map(str, names))


def in_own_process(name: str, args: argparse.Namespace) -> tuple[float, float]:
    command = [sys.executable, __file__, "--way", name, "--arguments", json.dumps(vars(args))]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    seconds, cpu = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--model", default="i3d_r26")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--views", default="1x1")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(WAYS[args.way](argparse.Namespace(**json.loads(args.arguments)))))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(args, Path(name))


if __name__ == "__main__":
    main()
