"""Kill a training run with SIGKILL at random times until it ends; compare it to one that ran
undisturbed, bit for bit.

    python benchmarks/kill_resume.py --kills 50 -- COMMAND ... {output}

The command must train into the folder that stands for {output}, resume by itself, and be
deterministic (CPU, one thread count). Example:

    python benchmarks/kill_resume.py --kills 50 -- python tools/train_net.py \\
        --cfg configs/demo/oct_i3d.yaml OUTPUT_DIR {output} TRAIN.CHECKPOINT_MINUTES 0.05

Exit status 1 if weights, optimizer, random numbers or metrics.jsonl differ.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare_runs import differences


def run(
    command: list[str], output: Path, kill_after: float | None = None, training: bool = False
) -> bool:
    """One start of the command; True if it ended by itself. Exits on a failure that is not our
    kill.

    kill_after: seconds from the start, or with `training` from the moment the command opens
    metrics.jsonl.
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
