"""Kill a training run with SIGKILL at random times until it ends; compare it to one that ran undisturbed, bit for bit.

    python benchmarks/kill_resume.py --kills 50 -- COMMAND ... {output}

The command must train into the folder that stands for {output}, resume by itself, and be deterministic (CPU, one
thread count). Example:

    python benchmarks/kill_resume.py --kills 50 -- python tools/train_net.py --cfg configs/demo/oct_i3d.yaml \\
        OUTPUT_DIR {output} TRAIN.CHECKPOINT_MINUTES 0.05

Exit status 1 if weights, optimizer, random numbers or metrics.jsonl differ.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def run(
    command: list[str], output: Path, kill_after: float | None = None, training: bool = False
) -> bool:
    """One start of the command; True if it ended by itself. Exits on a failure that is not our kill.

    kill_after: seconds from the start, or with `training` from the moment the command opens metrics.jsonl.
    """
    words = [word.replace("{output}", str(output)) for word in command]
    with (output.parent / f"{output.name}.log").open("ab") as log:
        before = opened(output)
        process = subprocess.Popen(words, stdout=log, stderr=log)
        while training and process.poll() is None and opened(output) == before:
            time.sleep(0.005)
        try:
            status = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
    if status != 0:
        sys.exit(f"the command failed by itself with status {status}; see {log.name}")
    return True


def opened(output: Path) -> int:
    """A number that changes when a run opens (cuts back) or writes its metrics.jsonl."""
    path = output / "metrics.jsonl"
    return path.stat().st_mtime_ns if path.exists() else 0


def same(a: object, b: object) -> bool:
    """Equality of nested plain values and tensors, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished output folders; the configs name different folders and are left out."""
    newest = [
        sorted((folder / "checkpoints").glob("checkpoint_epoch_*.pyth"))[-1]
        for folder in (one, other)
    ]
    best = [folder / "checkpoints" / "best.pyth" for folder in (one, other)]
    found = []
    for name, paths in (("last checkpoint", newest), ("best.pyth", best)):
        states = [torch.load(path, weights_only=True) for path in paths if path.exists()]
        if len(states) == 1:
            found.append(f"{name} exists once only")
        if len(states) == 2:
            found += [
                f"{name}: {key}"
                for key in states[0]
                if key != "cfg" and not same(states[0][key], states[1][key])
            ]
    if (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="where the two runs go (default: a temporary folder)",
    )
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="kill_resume_"))
    folder.mkdir(parents=True, exist_ok=True)
    times = random.Random(args.seed)

    start = time.monotonic()
    run(args.command, folder / "whole")
    seconds = time.monotonic() - start
    kills = runs = 0
    found: list[str] = []
    while kills < args.kills:
        runs += 1
        output = folder / f"killed_{runs}"
        # Every other kill waits for training to begin: most of a short run is its start.
        while kills < args.kills:
            training = kills % 2 == 1
            if run(
                args.command,
                output,
                times.uniform(0, seconds / 2 if training else seconds),
                training,
            ):
                break
            kills += 1
        run(args.command, output)
        found += [f"run {runs}: {what}" for what in differences(folder / "whole", output)]

    verdict = "DIFFERENT: " + ", ".join(found) if found else "the same, bit for bit"
    print(f"{kills} kills, {runs} run(s) of {seconds:.1f} s: {verdict}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
