"""Many short trainings of graph_training.py beside each other, which a kill or a deadline may cut:
a line per epoch in DIR/epochs.jsonl, and a file in DIR to go on from.

A run is named by what tells it from others, as ("small", "ResNet-20", "1").
"""

import json
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from graph_training import Trainee, computes_bf16

SAVE_SECONDS = 30
Key = tuple[str, ...]


def machine() -> str:
    """The card, "CPU", or "CPU, fp32" where it has no bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "CPU" if computes_bf16(torch.device("cpu")) else "CPU, fp32"


def state_file(out: Path, key: Key) -> Path:
    return out / f"{', '.join(key)}.pt"


def weights_file(out: Path, key: Key) -> Path:
    """The weights of a run that is whole."""
    return out / "weights" / f"{', '.join(key)}.pt"


def train(learner: Trainee, key: Key, about: Mapping[str, Any], out: Path) -> None:
    """The epochs that are left of a run; `about` goes into each line. Its state file stays, for the
    caller to remove when the run has left all that it leaves."""
    kept = state_file(out, key)
    if kept.is_file():
        learner.load(torch.load(kept, map_location=learner.device, weights_only=True))
    saved = time.time()
    for line in learner.train():
        write_line(out / "epochs.jsonl", {**about, **line})
        is_last = line["epoch"] == learner.work.epochs
        if is_last or time.time() - saved > SAVE_SECONDS:
            save(learner.state(), kept)
            saved = time.time()


def save(state: Any, path: Path) -> None:
    """The file is the old one or the new one, never a part."""
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def write_line(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        # The newline comes first: it also ends a line that a kill cut short.
        file.write("\n" + json.dumps(line))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Without lines that a kill cut short. (octvideo.files does this too, but needs iopath.)"""
    for line in path.read_text().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)


def run_all(
    waiting: Collection[Key],
    command: Sequence[str],
    jobs: int,
    minutes: float,
    needs: Mapping[Key, Path] | None = None,
) -> int:
    """`command --run KEY...` for each run, at most `jobs` at a time; what is under way after
    `minutes` is killed. needs: files that a run waits for. A run that a signal ends goes on once:
    on a GPU that processes share, one that is killed takes others with it. Returns the number of
    runs that ended with an error."""
    deadline, failed, left = time.time() + 60 * minutes, 0, list(waiting)
    again = set[Key]()
    under_way = dict[Key, subprocess.Popen[bytes]]()
    while (left or under_way) and time.time() < deadline:
        for key in [key for key, child in under_way.items() if child.poll() is not None]:
            code = under_way.pop(key).returncode
            goes_on = code < 0 and key not in again
            if goes_on:
                again.add(key)
                left.insert(0, key)
            failed += code != 0 and not goes_on
            status = f"ended with status {code}" if code else "done"
            print(f"{', '.join(key)}: {status}{', goes on' * goes_on}", flush=True)
        ready = [key for key in left if not needs or key not in needs or needs[key].is_file()]
        if left and not (ready or under_way):
            absent = sorted({str(path) for key, path in (needs or {}).items() if key in left})
            print(f"{len(left)} runs wait for weights that are not there: {', '.join(absent)}")
            return failed + len(left)
        for key in ready[: jobs - len(under_way)]:
            left.remove(key)
            under_way[key] = subprocess.Popen([*command, "--run", *key])
        time.sleep(0.2)
    for child in under_way.values():
        child.kill()
    for child in under_way.values():
        child.wait()
    ended = len(waiting) - len(left) - len(under_way)
    print(f"{ended} of {len(waiting)} runs ended; the same command does the rest", flush=True)
    return failed
