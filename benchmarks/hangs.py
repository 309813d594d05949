"""Run each test that joins a process group many times in one process, after a training with
torch.compile, and train on two ranks many times; count the hangs.

    python benchmarks/hangs.py runs/hangs [--tests 300] [--trainings 50] [--only two_]

A process group that is destroyed while a wrapper still refers to it hangs rarely, and only where
torch.compile has run before. Every pass is a line of runs/hangs/<test>.txt; the same command
continues an interrupted series. A process that hangs ends after --patience seconds, with the stacks
of its threads on stderr, and counts as a hang. Exit status 1 if there was one.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
COMPILED = "tests/engine/training/test_train_options.py::test_a_compiled_octave_network_learns_as_the_plain_one_and_its_checkpoint_is_the_same"
NETWORKS = "tests/models/test_video_in_torch.py::"
TESTS = (
    "tests/layers/test_octconv_in_torch.py::test_distributed_data_parallel_gives_the_same_gradients",
    f"{NETWORKS}test_one_process_in_ddp_has_the_gradients_of_the_model_itself",
    f"{NETWORKS}test_two_processes_have_the_gradients_of_one_with_both_halves",
)
TRAINING = "tests/engine/test_distributed.py::test_two_ranks_resume_to_the_bit"


class Repeat:
    """A pytest plugin: run one of the collected tests `count` times; `log` gets a line per pass."""

    def __init__(self, test: str, count: int, log: Path) -> None:
        self.name, self.count, self.log = test.partition("::")[2], count, log

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if metafunc.function.__name__ == self.name:
            metafunc.fixturenames.append("repetition")
            metafunc.parametrize("repetition", range(self.count))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and f"::{self.name}[" in report.nodeid:
            with self.log.open("a") as file:
                file.write("passed\n")


def repeat(test: str, count: int, log: Path, patience: float) -> int:
    """Within a child process."""
    options = ["-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-o"]
    options += [f"faulthandler_timeout={patience}", "-o", f"timeout={2 * patience}"]
    return int(pytest.main([*options, COMPILED, test], plugins=[Repeat(test, count, log)]))


def passes(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.is_file() else 0


def series(test: str, count: int, folder: Path, patience: float) -> tuple[int, int]:
    """(passes, processes that hung or failed) of all starts so far."""
    log = folder / f"{test.rpartition('::')[2]}.txt"
    hangs = log.with_suffix(".hangs")
    while passes(log) < count:
        left = str(count - passes(log))
        command = [sys.executable, __file__, str(folder), "--child", test, left, str(log)]
        environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, "--patience", str(patience)], cwd=REPO, env=environment, check=False
        )
        if done.returncode == -signal.SIGTERM:
            sys.exit("ended by SIGTERM; the same command continues")
        if done.returncode:
            with hangs.open("a") as file:
                file.write(f"exit status {done.returncode} after {passes(log)} passes\n")
        print(f"{test}: {passes(log)} passes, {passes(hangs)} hangs or failures", flush=True)
        if passes(hangs) >= 5:
            break
    return passes(log), passes(hangs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the counts")
    parser.add_argument("--tests", type=int, default=300, help="passes of each test")
    parser.add_argument("--trainings", type=int, default=50, help="passes of the training")
    parser.add_argument("--only", default="", help="the series with this in their names")
    parser.add_argument("--patience", type=float, default=300, help="seconds that one may take")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        test, count, log = args.child
        return repeat(test, int(count), Path(log), args.patience)
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(TESTS, args.tests) | {TRAINING: args.trainings}
    found = {
        test: series(test, count, folder, args.patience)
        for test, count in counts.items()
        if args.only in test.rpartition("::")[2]
    }
    for test, (passed, hung) in found.items():
        print(f"{passed} passes, {hung} hangs or failures: {test}")
    return int(any(hung for _, hung in found.values()))


if __name__ == "__main__":
    sys.exit(main())
