"""Do to runs what happens to runs, by seed, and compare their end with that of an undisturbed one,
to the bit.

    python benchmarks/faults.py --rounds 100 --folder FOLDER --report benchmarks/faults_DATE.md

A round starts a training with loader workers, a test, or both on two ranks; kills it, sends it a
signal, stops it for a while, limits the size of its files (as a full disk does), or damages what it
wrote; and starts it again. It fails where a process hangs or outlives its run, a traceback is
printed, an interrupted run ends with status 0, a file is blamed, or the result differs. Rounds that
FOLDER/rounds.jsonl holds are not repeated: the same command continues.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from compare_runs import differences, different_results

REPO = Path(__file__).resolve().parent.parent
SETTINGS = """
MODEL: {ARCH: i3d, NUM_CLASSES: 8}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 4}
OCTCONV: {ALPHA: 0.25}
DATA: {NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 40], TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}
TRAIN: {BATCH_SIZE: 4, EVAL_PERIOD: 2, CHECKPOINT_PERIOD: 1, CHECKPOINT_MINUTES: 0.002}
SOLVER: {BASE_LR: 0.01, MAX_EPOCH: 3}
DATA_LOADER: {NUM_WORKERS: 2, TIMEOUT: 30.0}
TEST: {NUM_ENSEMBLE_VIEWS: 2, NUM_SPATIAL_CROPS: 1}
TENSORBOARD: {ENABLE: false}
LOG_PERIOD: 1
LOG_MODEL_INFO: false
"""
KINDS = ("training", "test", "two ranks")
FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "stop", "full disk", "damage")
HANG_SECONDS = 240.0


@dataclass(frozen=True)
class Round:
    """What one round does, as its number and the seed decide."""

    number: int
    kind: str
    faults: tuple[str, ...]
    seed: str

    @classmethod
    def of(cls, seed: int, number: int) -> "Round":
        draw = random.Random(f"{seed} {number}")
        kind = KINDS[number % len(KINDS)]
        faults = tuple(draw.choice(FAULTS) for _ in range(draw.randint(1, 2)))
        return cls(number, kind, faults, f"{seed} {number} times")


class Bench:
    """The runs of a folder. seconds: that an undisturbed run of each kind took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def prepare(self, kinds: Iterable[str] = KINDS) -> None:
        """Data, settings, and an undisturbed run of each kind by the code of today."""
        if not (self.folder / "data").is_dir():
            make = "from octvideo.data.prepare.demo import write_demo_data; import sys, pathlib; "
            make += (
                "write_demo_data(pathlib.Path(sys.argv[1]), num_clips={'train': 16, 'val': 4,"
                " 'test': 8})"
            )
            subprocess.run([sys.executable, "-c", make, str(self.folder / "data")], check=True)
        (self.folder / "mine.yaml").write_text(SETTINGS)
        for kind in kinds:
            output = self.folder / f"undisturbed {kind}"
            start = time.monotonic()
            made_by = output / "code"
            if not made_by.exists() or made_by.read_text() != code():
                shutil.rmtree(output, ignore_errors=True)
                self.before(kind, output)
                status = self.start(kind, output).wait()
                if status:
                    sys.exit(f"{kind}: an undisturbed run ended with {status}; see {output}.log")
                (output / "seconds").write_text(str(time.monotonic() - start))
                made_by.write_text(code())
            self.seconds[kind] = float((output / "seconds").read_text())

    def before(self, kind: str, output: Path) -> None:
        """A test needs a checkpoint: that of the undisturbed training."""
        if kind == "test":
            trained = self.folder / "undisturbed training" / "checkpoints" / "best.pyth"
            output.mkdir(parents=True)
            shutil.copy(trained, self.folder / "tested.pyth")

    def start(
        self, kind: str, output: Path, file_limit: int | None = None
    ) -> "subprocess.Popen[bytes]":
        """The leader of a session of its own; what it prints goes to OUTPUT.log."""
        tool = "test_net.py" if kind == "test" else "train_net.py"
        command = [sys.executable, str(REPO / "tools" / tool), "--cfg", f"{self.folder}/mine.yaml"]
        command += [f"OUTPUT_DIR={output}", f"DATA.PATH_TO_DATA_DIR={self.folder}/data"]
        if kind == "test":
            command += [f"TEST.CHECKPOINT_FILE_PATH={self.folder}/tested.pyth"]
        if kind == "two ranks":
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            command[1:1] = launch
            command += ["DATA_LOADER.NUM_WORKERS=1", "DATA_LOADER.TIMEOUT=5.0"]

        def limit() -> None:
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

        environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        with Path(f"{output}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=limit,
                start_new_session=True,
            )

    def run(self, what: Round) -> list[str]:
        """The problems of a round; [] where all went well."""
        output, draw = self.folder / f"round {what.number}", random.Random(what.seed)
        shutil.rmtree(output, ignore_errors=True)
        Path(f"{output}.log").unlink(missing_ok=True)
        self.before(what.kind, output)
        problems: list[str] = []
        for fault in what.faults:
            problems += self.disturbed(what.kind, output, fault, draw)
        process = self.start(what.kind, output)
        status = self.wait(process, HANG_SECONDS)
        if status != 0:
            return [*problems, f"the run that follows ended with {status}"]
        text = Path(f"{output}.log").read_text(errors="replace")
        # torchrun prints a traceback of its own for a rank that ends with an error.
        ours = [
            part for part in text.split("Traceback (most recent")[1:] if "/octvideo/" in part[:2000]
        ]
        problems += ["a traceback"] * bool(ours)
        problems += ["a file was blamed"] * ("could not be read" in text)
        undisturbed = self.folder / f"undisturbed {what.kind}"
        if what.kind != "test":
            problems += differences(undisturbed, output)
        return problems + (different_results(undisturbed, output) if what.kind == "test" else [])

    def disturbed(self, kind: str, output: Path, fault: str, draw: random.Random) -> list[str]:
        """Start a run and let the fault happen to it."""
        if fault == "damage":
            self.disturbed(kind, output, "SIGKILL", draw)
            damage(output, draw)
            return []
        limit = draw.choice((100, 3_000, 60_000, 400_000)) if fault == "full disk" else None
        process = self.start(kind, output, limit)
        at = draw.uniform(0.2, 1.0) * self.seconds[kind]
        status = self.wait(process, at, hang=False)
        if status is None and limit is not None:
            status = self.wait(process, HANG_SECONDS)
        if status is None and fault == "stop":
            status = self.stopped(process, kind, draw)
        elif status is None:
            os.killpg(process.pid, getattr(signal, fault))
            status = self.wait(process, HANG_SECONDS)
            if status == 0 and fault in ("SIGTERM", "SIGINT", "SIGHUP") and kind == "training":
                text = Path(f"{output}.log").read_text(errors="replace")
                if "stopped by" in text.rpartition("recipe:")[2]:
                    return [f"status 0 after {fault}"]
        problems = [] if status is not None else [f"it hung after {fault}"]
        return problems + [
            f"processes outlived it: {left}" for left in [outlived(process, output)] if left
        ]

    def stopped(
        self, process: "subprocess.Popen[bytes]", kind: str, draw: random.Random
    ) -> int | None:
        """SIGSTOP: of one rank for good, which the other notices; else of the whole run, which then
        goes on."""
        ranks = children(process.pid)
        if kind == "two ranks" and ranks:
            victim = draw.choice(ranks)
            os.kill(victim, signal.SIGSTOP)
            end = time.monotonic() + HANG_SECONDS
            while set(children(process.pid)) - {victim} and time.monotonic() < end:
                time.sleep(0.2)
            # The other has noticed, or had finished before: then nobody waits for this one.
            os.kill(victim, signal.SIGCONT)
            return self.wait(process, HANG_SECONDS / 4)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(draw.uniform(0, 2))
        os.killpg(process.pid, signal.SIGCONT)
        return self.wait(process, HANG_SECONDS)

    def wait(
        self, process: "subprocess.Popen[bytes]", seconds: float, hang: bool = True
    ) -> int | None:
        """The status; None where it does not end in time, and then with `hang` everything is
        killed."""
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            if hang:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return None


def code() -> str:
    """A fingerprint of the package: what another version of it made is no reference."""
    files = sorted((REPO / "octvideo").rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def children(pid: int) -> list[int]:
    """Those that are alive; a zombie is not."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [child for child in map(int, text.split()) if is_alive(child)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def outlived(process: "subprocess.Popen[bytes]", output: Path) -> list[str]:
    """Processes of the run that are alive a while after its end, ranks in their own sessions too;
    they are killed."""
    for _ in range(300):
        alive = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/stat")
            if in_session(path, process.pid) or (writes_to(path.parent, output))
        ]
        if not alive:
            return []
        time.sleep(0.1)
    names = [f"{pid} {command_of(Path('/proc') / pid)[-80:]}" for pid in alive]
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return names


def writes_to(process: Path, output: Path) -> bool:
    return f"OUTPUT_DIR={output} " in command_of(process) and is_alive(int(process.name))


def command_of(process: Path) -> str:
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def in_session(stat: Path, session: int) -> bool:
    try:
        state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return False  # it ended meanwhile
    return int(of) == session and state != "Z"


def damage(output: Path, draw: random.Random) -> None:
    """Flip a bit of the newest checkpoint or journal line, or cut it off anywhere."""
    files = sorted((output / "checkpoints").glob("checkpoint_*.pyth"))[-1:]
    files += list(output.glob("evaluation_*/rank_*.jsonl"))
    for file in files:
        content = bytearray(file.read_bytes())
        if not content:
            continue
        place = draw.randrange(len(content))
        if draw.random() < 0.5:
            content[place] ^= 1 << draw.randrange(8)
        else:
            del content[place:]
        file.write_bytes(content)


def report(rows: list[dict[str, object]], seed: int) -> str:
    """A page: verdict, counts, what failed."""
    failed = [row for row in rows if row["problems"]]
    kinds = Counter(str(row["kind"]) for row in rows)
    faults = Counter(fault for row in rows for fault in row["faults"])  # type: ignore[attr-defined]
    days = sorted({str(row["date"])[:10] for row in rows})
    lines = [
        f"# {len(rows)} rounds of faults: {len(failed)} failed",
        "",
        (
            f"{days[0]} to {days[-1]}, seed {seed}, {os.cpu_count()} CPU cores."
            " `benchmarks/faults.py` says what"
        ),
        "a round is.",
        "",
        "| run | rounds |",
        "|---|---|",
        *(f"| {kind} | {count} |" for kind, count in sorted(kinds.items())),
        "",
        "| fault | times |",
        "|---|---|",
        *(f"| {fault} | {count} |" for fault, count in sorted(faults.items())),
        "",
    ]
    lines += [f"Round {r['number']} ({r['kind']}: {r['faults']}): {r['problems']}" for r in failed]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="data, runs and what was found")
    parser.add_argument("--report", type=Path, help="a page to write at the end")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    found = args.folder / "rounds.jsonl"
    rows = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    bench = Bench(args.folder.resolve())
    bench.prepare(KINDS[: args.first + args.rounds])
    for number in range(args.first, args.first + args.rounds):
        if any(row["number"] == number for row in rows):
            continue
        what = Round.of(args.seed, number)
        problems = bench.run(what)
        row = {"number": number, "kind": what.kind, "faults": what.faults, "problems": problems}
        rows.append(row | {"date": datetime.now(UTC).isoformat(timespec="seconds")})
        with found.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(
            f"round {number}: {what.kind}, {', '.join(what.faults)}:"
            f" {problems or 'as undisturbed'}",
            flush=True,
        )
        if not problems:
            shutil.rmtree(args.folder / f"round {number}", ignore_errors=True)
    if args.report and rows:
        args.report.write_text(report(rows, args.seed))
    sys.exit(any(row["problems"] for row in rows))


if __name__ == "__main__":
    main()
