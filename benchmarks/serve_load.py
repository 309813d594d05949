"""A load test of `octvideo serve` on the loopback: hostile requests among good ones, every answer
checked.

    python benchmarks/serve_load.py [FOLDER] [--requests 200] [--concurrency 16] [--workers 2]

Starts a server with an untrained network in a process of its own. A good answer must be what the
recognizer says of that video here, to 1e-4; a hostile request must get a 4xx. At the end every
decoder must still work. Printed: answers by status, the latency of good ones while hostile ones are
mixed in, and requests per second. Exit status 1 for any wrong answer.
"""

import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from untrained import CLASS_NAMES, preprocessing

import octvideo
from octvideo.data.prepare.demo import make_clip
from octvideo.data.prepare.video_files import find_videos
from octvideo.data.video.encode import write_video

LARGEST = 4 * 2**20


class Request(NamedTuple):
    """kind: of a good one, "good". expected: the probabilities of a good one, by name."""

    kind: str
    body: bytes
    query: str = "?views=1x1&top_k=27"
    is_json: bool = False
    expected: dict[str, float] | None = None


class Outcome(NamedTuple):
    kind: str
    status: int
    seconds: float
    wrong: str


def write_checkpoint(path: Path) -> None:
    """An untrained Oct-I3D R26 for 8 x 4 clips of 112 x 112."""
    torch.manual_seed(0)
    model = octvideo.create_model("i3d_r26", alpha=0.5, num_classes=len(CLASS_NAMES), crop_size=112)
    meta = {"format": 1, "model": model.config, "class_names": CLASS_NAMES}
    meta["preprocessing"] = preprocessing(112, 128)
    torch.save({"model_state": model.state_dict(), "meta": meta}, path)


def good_requests(videos: list[Path], checkpoint: Path) -> list[Request]:
    recognizer = octvideo.load(checkpoint, device="cpu")
    found = []
    for video in videos:
        named = recognizer.predict(video, views="1x1", top_k=27)
        expected = {p.name: p.probability for p in named}
        found.append(Request("good", video.read_bytes(), expected=expected))
    return found


def hostile_requests(content: bytes, draw: random.Random) -> list[Request]:
    """One of each kind, with new damage each time."""
    damaged = bytearray(content)
    for _ in range(200):
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    addresses = [
        "http://127.0.0.1:22/",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "http://localhost@example.org/",
        "x" * 5000,
    ]
    as_json = [json.dumps({"address": address}).encode() for address in addresses]
    return [
        Request("random bytes", draw.randbytes(20000)),
        Request("cut off", content[: draw.randrange(1, len(content) // 2)]),
        Request("empty", b""),
        Request("too large", bytes(LARGEST + 1)),
        Request("playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        Request("concat script", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        Request("wrong views", content, "?views=1000x3"),
        Request("wrong top_k", content, "?top_k=-1"),
        Request("no JSON", b"[" * 10000, is_json=True),
        *(Request("address", body, is_json=True) for body in as_json),
        Request("damaged", bytes(damaged)),
        Request("gone", content),
    ]


def ask(port: int, request: Request) -> Outcome:
    begin = time.monotonic()
    if request.kind == "gone":
        _go_away(port, request.body)
        return Outcome("gone", 0, time.monotonic() - begin, "")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    headers = {"Content-Type": "application/json" if request.is_json else "video/mp4"}
    try:
        connection.request("POST", f"/predict{request.query}", request.body, headers)
        answer = connection.getresponse()
        content, status = json.loads(answer.read()), answer.status
    except (BrokenPipeError, ConnectionResetError):
        # The server answers an upload that is too large and hangs up before it has come.
        content, status = {}, 413 if request.kind == "too large" else -1
    finally:
        connection.close()
    return Outcome(request.kind, status, time.monotonic() - begin, judge(request, status, content))


def _go_away(port: int, content: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content[: len(content) // 2])


def judge(request: Request, status: int, content: dict[str, object]) -> str:
    """What is wrong with an answer, "" for nothing. A damaged video may be read or refused."""
    if request.kind == "damaged" and status == 200:
        return ""
    if request.expected is None:
        return "" if 400 <= status < 500 else f"{request.kind}: {status} {content}"
    if status != 200:
        return f"a good video got {status} {content}"
    found = {p["name"]: p["probability"] for p in content["predictions"]}  # type: ignore[union-attr,index]
    worst = max(abs(found[name] - value) for name, value in request.expected.items())
    return "" if worst < 1e-4 else f"a good video's probabilities differ by {worst:.1e}"


def start_server(checkpoint: Path, workers: int, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "octvideo", "serve", "--checkpoint", str(checkpoint)]
    options = ["--port", str(port), "--workers", str(workers), "--request-seconds", "170"]
    options += ["--max-megabytes", str(LARGEST / 2**20)]
    process = subprocess.Popen(command + options, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    for _ in range(1800):
        if process.poll() is not None:
            sys.exit(f"the server ended:\n{log.read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return process, port
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start within three minutes")


def processes_below(process: int) -> int:
    """How many processes there are below this one."""
    below = 0
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            below += 1 + processes_below(int(child))
    return below


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="of videos; by default demo clips")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--hostile", type=float, default=0.3, help="share of the requests")
    args = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.folder is None:
            for k in range(8):
                write_video(folder / "videos" / f"{k}.mp4", make_clip(k % 8, seed=k))
        videos = find_videos(args.folder or folder / "videos")[:12]
        checkpoint, log = folder / "best.pyth", folder / "log"
        write_checkpoint(checkpoint)
        good = good_requests(videos, checkpoint)
        hostile: list[Request] = []
        while len(hostile) < args.requests * args.hostile:
            hostile += hostile_requests(draw.choice(good).body, draw)
        hostile = hostile[: round(args.requests * args.hostile)]
        requests = [draw.choice(good) for _ in range(args.requests - len(hostile))] + hostile
        draw.shuffle(requests)

        process, port = start_server(checkpoint, args.workers, log)
        try:
            ask(port, good[0])
            before = processes_below(process.pid)
            begin = time.monotonic()
            with ThreadPoolExecutor(args.concurrency) as pool:
                outcomes = list(pool.map(lambda request: ask(port, request), requests))
            seconds = time.monotonic() - begin
            # One after another each decoder gets its turn: one that is lost would never answer.
            after = [ask(port, good[k % len(good)]) for k in range(2 * args.workers)]
            processes = before, processes_below(process.pid)
        finally:
            process.terminate()
            process.wait(60)
        report(outcomes, after, seconds, processes, log)


def report(
    outcomes: list[Outcome],
    after: list[Outcome],
    seconds: float,
    processes: tuple[int, int],
    log: Path,
) -> None:
    wrong = [outcome.wrong for outcome in [*outcomes, *after] if outcome.wrong]
    by_status = Counter(outcome.status for outcome in outcomes)
    print(f"{len(outcomes)} requests in {seconds:.1f} s, {os.cpu_count()} cores")
    print(
        "answers: "
        + ", ".join(f"{count} x {s or 'gone'}" for s, count in sorted(by_status.items()))
    )
    latencies = sorted(o.seconds for o in outcomes if o.kind == "good")
    cuts = statistics.quantiles(latencies, n=100)
    middle, late, last = cuts[49], cuts[89], cuts[98]
    print(
        f"latency of {len(latencies)} good requests: median {middle:.2f} s, 90 % {late:.2f} s, 99 %"
        f" {last:.2f} s, longest {latencies[-1]:.2f} s; {len(outcomes) / seconds:.1f} requests/s"
    )
    print(
        f"afterwards: {len(after)} good requests answered, {processes} processes below the server"
    )
    for line in wrong:
        print(f"WRONG: {line}")
    if wrong:
        print(log.read_text()[-3000:])
        sys.exit(1)
    print("every answer was right, or a 4xx for a hostile request")


if __name__ == "__main__":
    main()
