"""Four machines on this one train from shards over HTTP while one is killed, slowed or cut off; the
curve has to be that of the undisturbed run, step by step.

    python benchmarks/nodes.py --folder FOLDER [--kinds killed slowed cut] [--report PAGE]

A machine is a network namespace with an address of its own on a bridge, where torchrun starts one
rank of `octvideo train` (a small octave network, gloo). It needs root and iproute2; without them, a
machine is an address of the loopback device, and cutting it off is stopping its processes.

killed: SIGKILL for all processes of a machine, which starts again two seconds later; torchrun
restarts the others. slowed: a machine's processes are stopped for 90 of every 100 ms, for 40 steps.
cut: the machine's port of the bridge is down for 20 s. Times of steps are when their lines appear
in metrics.jsonl. What is left in FOLDER is not run again.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from compare_runs import differences
from range_server import RangeServer

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare.shard import write_shards
from octvideo.data.video.encode import write_video

REPO = Path(__file__).resolve().parent.parent
KINDS = ("undisturbed", "killed", "slowed", "cut")
VIDEOS = 40
SETTINGS = """
MODEL: {ARCH: i3d, NUM_CLASSES: 2}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 4}
OCTCONV: {ALPHA: 0.25}
DATA: {LIST_FORMAT: shards, NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32}
TRAIN: {BATCH_SIZE: 8, EVAL_PERIOD: 100, CHECKPOINT_PERIOD: 10, CHECKPOINT_MINUTES: 0.05}
SOLVER: {BASE_LR: 0.01}
TEST: {ENABLE: false}
DATA_LOADER: {NUM_WORKERS: 1}
TENSORBOARD: {ENABLE: false}
LOG_PERIOD: 1
LOG_MODEL_INFO: false
"""


class Network:
    """Addresses of machines: namespaces on a bridge, or addresses of the loopback device."""

    # 198.18.0.0/15 is set aside for benchmarks (RFC 2544); here it does not leave the namespaces.
    def __init__(self, count: int, namespaces: bool) -> None:
        self.namespaces = namespaces
        prefix = "198.18.0" if namespaces else "127.0.1"
        self.server = f"{prefix}.254"
        self.addresses = [f"{prefix}.{1 + i}" for i in range(count)]
        if not namespaces:
            return
        Path("/run/netns").mkdir(exist_ok=True)
        _sh("mount -t tmpfs tmpfs /run/netns", "ip link set lo up")
        _sh("ip link add bridge0 type bridge", f"ip addr add {self.server}/24 dev bridge0")
        _sh("ip link set bridge0 up")
        for i, address in enumerate(self.addresses):
            _sh(f"ip netns add node{i}")
            _sh(f"ip link add port{i} type veth peer name eth0 netns node{i}")
            _sh(f"ip link set port{i} master bridge0 up")
            _sh(f"ip -n node{i} addr add {address}/24 dev eth0")
            _sh(f"ip -n node{i} link set eth0 up", f"ip -n node{i} link set lo up")

    def inside(self, node: int) -> list[str]:
        return ["ip", "netns", "exec", f"node{node}"] if self.namespaces else []

    def connect(self, node: int, connected: bool) -> None:
        _sh(f"ip link set port{node} {'up' if connected else 'down'}")


def _sh(*commands: str) -> None:
    for command in commands:
        subprocess.run(command.split(), check=True)


@dataclass
class Outcome:
    """What happened in a run. appeared: seconds from its first step, of each step's (last) line."""

    kind: str
    seconds: float
    appeared: list[float]
    disturbed: tuple[int, int] = (0, 0)
    repeated: int = 0
    problems: list[str] = field(default_factory=list)
    largest_difference: float = 0.0

    def steps(self, first: int = 0, last: int | None = None) -> list[float]:
        """Seconds between the lines of neighboring steps."""
        part = self.appeared[first:last]
        return [after - before for before, after in pairwise(part)]


class Run:
    """One training of all machines."""

    def __init__(self, kind: str, network: Network, url: str, args: argparse.Namespace) -> None:
        self.kind, self._network, self._url, self._steps = kind, network, url, args.steps
        self._folder, self._cut_seconds, self._limit = args.folder, args.cut_seconds, args.limit
        self.output = args.folder / kind
        self._victim = args.nodes // 2
        self._mark = f"OCTVIDEO_NODE_OF={self.output}"
        self._nodes, self._appeared = list[subprocess.Popen[bytes]](), list[float]()
        self._repeated, self._disturbed = 0, (0, 0)

    def start_node(self, node: int) -> "subprocess.Popen[bytes]":
        address, first = self._network.addresses[node], self._network.addresses[0]
        command = [*self._network.inside(node), sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", str(len(self._network.addresses)), "--nproc_per_node", "1"]
        command += ["--max-restarts", "5", "--local_addr", address]
        command += ["--rdzv_backend", "c10d", "--rdzv_id", self.kind]
        command += ["--rdzv_endpoint", f"{first}:29400", "--rdzv_conf", f"is_host={not node}"]
        command += ["-m", "octvideo", "train", "--cfg", str(self._folder / "mine.yaml")]
        command += [f"DATA.PATH_TO_DATA_DIR={self._url}", f"OUTPUT_DIR={self.output}"]
        command += [f"SOLVER.MAX_EPOCH={self._steps * 8 // VIDEOS}"]
        environment = os.environ | {
            "PYTHONPATH": str(REPO),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0" if self._network.namespaces else "lo",
            # Else the agents that live on do not tell a new one where the ranks meet (torch 2.13).
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "OCTVIDEO_NODE_OF": f"{self.output} {node}",
        }
        with Path(f"{self.output}.{node}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def processes(self, node: int) -> list[int]:
        """All of a machine: they carry its mark, whatever started them."""
        mark, found = f"{self._mark} {node}".encode(), []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
        return found

    def signal(self, node: int, number: int) -> None:
        _signal(self.processes(node), number)

    def run(self) -> Outcome:
        start, count = time.monotonic(), len(self._network.addresses)
        self._nodes = [self.start_node(node) for node in range(count)]
        disturb = threading.Thread(target=getattr(self, f"_{self.kind}"), daemon=True)
        try:
            disturb.start()
            while any(node.poll() is None for node in self._nodes):
                self._look(time.monotonic())
                if time.monotonic() > start + self._limit:
                    break
                time.sleep(0.003)
            disturb.join(1)
        finally:
            for node in range(count):
                self.signal(node, signal.SIGKILL)
        appeared = [round(at - self._appeared[0], 4) for at in self._appeared]
        seconds = round(time.monotonic() - start, 1)
        outcome = Outcome(self.kind, seconds, appeared, self._disturbed, self._repeated)
        statuses = [node.wait() for node in self._nodes]
        if any(statuses) or len(appeared) != self._steps:
            outcome.problems.append(f"statuses {statuses}, {len(appeared)} steps")
        return outcome

    def _look(self, now: float) -> None:
        count = len(curve(self.output))
        if count < len(self._appeared):
            self._repeated += len(self._appeared) - count
            del self._appeared[count:]
        self._appeared += [now] * (count - len(self._appeared))

    def _wait_for(self, step: int) -> int:
        while len(self._appeared) < step:
            time.sleep(0.003)
        return len(self._appeared)

    def _undisturbed(self) -> None: ...

    def _killed(self) -> None:
        at = self._wait_for(self._steps // 2)
        self.signal(self._victim, signal.SIGKILL)
        time.sleep(2)
        self._nodes[self._victim].wait()
        self._nodes[self._victim] = self.start_node(self._victim)
        self._disturbed = at, at + 1

    def _slowed(self) -> None:
        at = self._wait_for(self._steps // 2)
        end = at + self._steps // 5
        while len(self._appeared) < end:
            machine = self.processes(self._victim)
            for _ in range(20):
                _signal(machine, signal.SIGSTOP)
                time.sleep(0.09)
                _signal(machine, signal.SIGCONT)
                time.sleep(0.01)
        self._disturbed = at, end

    def _cut(self) -> None:
        at = self._wait_for(self._steps // 2)
        if self._network.namespaces:
            self._network.connect(self._victim, False)
            time.sleep(self._cut_seconds)
            self._network.connect(self._victim, True)
        else:
            self.signal(self._victim, signal.SIGSTOP)
            time.sleep(self._cut_seconds)
            self.signal(self._victim, signal.SIGCONT)
        self._disturbed = at, at + 1


def _signal(processes: Sequence[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def curve(output: Path) -> list[float]:
    """The loss of every step that stands in a run's folder, whole lines only."""
    path = output / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line)["loss"] for line in lines if b'"train_iter"' in line]


def prepare(folder: Path) -> None:
    """Clips of two classes, in shards, and the settings."""
    for split, count in (("train", VIDEOS), ("val", 2)):
        lines = []
        for i in range(count):
            frames = np.random.default_rng(i).integers(0, 120, (10, 40, 48, 3), np.uint8)
            frames[..., i % 2] += 100
            path = folder / "clips" / split / f"{i}.mp4"
            write_video(path, frames)
            lines.append(f"{path} {i % 2}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
        videos = read_list(folder / f"{split}.csv")
        write_shards(videos, str(folder / "shards" / split), name=split, max_bytes=200_000)
    (folder / "shards" / "class_names.txt").write_text("red\ngreen\n")
    (folder / "mine.yaml").write_text(SETTINGS)


def compare(outcome: Outcome, folder: Path) -> None:
    """Add what differs from the undisturbed run, to the bit."""
    one, other = folder / "undisturbed", folder / outcome.kind
    losses = list(zip(curve(one), curve(other), strict=False))
    outcome.largest_difference = max((abs(a - b) for a, b in losses), default=0.0)
    outcome.problems += differences(one, other)


def described(outcome: Outcome) -> str:
    first, last = outcome.disturbed
    slowed = outcome.steps(first, last) if last > first + 1 else []
    row = [
        outcome.kind,
        f"{outcome.seconds:.0f} s",
        f"{statistics.median(outcome.steps(0, first or None)):.2f} s",
        f"{statistics.median(slowed):.2f} s" if slowed else "-",
        f"{max(outcome.steps()):.1f} s",
        str(outcome.repeated),
        f"{outcome.largest_difference:g}",
        "; ".join(outcome.problems) or "none, to the bit",
    ]
    return "| " + " | ".join(row) + " |"


HEAD = """| run | in all | median step before | while slowed | longest step | steps computed twice | largest difference of a loss | other differences from the undisturbed run |
|---|---|---|---|---|---|---|---|"""


def run_all(args: argparse.Namespace) -> list[Outcome]:
    folder = args.folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "mine.yaml").exists():
        prepare(folder)
    network, found = Network(args.nodes, args.namespaces), list[Outcome]()
    print(HEAD, flush=True)
    with RangeServer(folder / "shards", host=network.server) as server:
        for kind in dict.fromkeys(("undisturbed", *args.kinds)):
            result = folder / f"{kind}.json"
            if not result.exists():
                shutil.rmtree(folder / kind, ignore_errors=True)
                outcome = Run(kind, network, server.url, args).run()
                if kind != "undisturbed":
                    compare(outcome, folder)
                result.write_text(json.dumps(asdict(outcome)))
            found.append(Outcome(**json.loads(result.read_text())))
            print(described(found[-1]), flush=True)
    return found


def report(found: Sequence[Outcome], args: argparse.Namespace) -> str:
    failed = [outcome.kind for outcome in found if outcome.problems]
    verdict = f"{', '.join(failed)} differ" if failed else "the same curve, to the bit"
    what = "network namespaces" if args.namespaces else "addresses of the loopback device"
    lines = [
        f"# {args.nodes} machines on one, disturbed: {verdict}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPU cores, {what}, {args.steps} steps.",
        "",
        HEAD,
        *(described(outcome) for outcome in found),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="data, runs and their results")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200, help="a multiple of 5")
    parser.add_argument("--cut-seconds", type=float, default=20)
    parser.add_argument("--limit", type=float, default=480, help="seconds of one run")
    parser.add_argument("--report", type=Path, help="a page to write at the end")
    parser.add_argument("--addresses", choices=("namespaces", "loopback"), help="of the machines")
    args = parser.parse_args()
    possible = os.geteuid() == 0 and bool(shutil.which("ip") and shutil.which("unshare"))
    args.namespaces = possible if args.addresses is None else args.addresses == "namespaces"
    if args.namespaces and "OCTVIDEO_NAMESPACE" not in os.environ:
        # All that is made or started lies in namespaces of this process and goes with it.
        os.environ["OCTVIDEO_NAMESPACE"] = "made"
        own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        os.execvp("unshare", [*own, sys.executable, *sys.argv])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    found = run_all(args)
    if args.report:
        args.report.write_text(report(found, args))
    sys.exit(any(outcome.problems for outcome in found))


if __name__ == "__main__":
    main()
