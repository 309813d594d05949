"""Shared fixtures: one seed per test, one torch thread, and the optional measurement data beside
the checkout."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_input import PREPROCESSING

from octvideo.errors import send_no_statistics

# A skip for any other reason is a test that silently stopped testing; the session then fails.
SKIP_REASONS = (
    "no GPU",
    "../shared absent",
    "no Chromium",
    "no Triton",
    "kernels are compiled",
    "no huggingface_hub",
    "no Ray",
    "no energon",
    "no S3 server",
    "no torchcodec",
)

# Triton asks for it wherever a kernel is defined, those of its own library included: before
# anything imports Triton. On a GPU the kernels are compiled, and tests/cuda compares them.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Tests import optional libraries by themselves, too.
send_no_statistics()

# Two workers share a machine; the threads of what their tests start would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without kept bytecode, each of the hundreds of programs that tests start compiles the package
# anew, and each session the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Under nohup, and in the background of a shell, a program and those that it starts ignore these.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared"


@pytest.fixture(autouse=True)
def _seed_and_threads() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def one_thread_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run in this process takes one thread, as on a machine of one core."""
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """A worker of real-time priority, and what it starts, would keep the others from the cores."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a library made this thread real-time"


@pytest.fixture(autouse=True, scope="session")
def _in_an_empty_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests find neither the data nor the runs that a user of this checkout keeps in it."""
    os.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What optimizations keep on disk is shared by the tests of a session, and never the user's."""
    os.environ["OCTVIDEO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Tools that run in this process set up the log; their handlers would go on in the next
    test."""
    logger = logging.getLogger("octvideo")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def _determinism_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    """A process group for DistributedDataParallel, destroyed when no wrapper refers to it any more.

    A wrapper that outlives its group can hang the process (octvideo.engine.process_group.processes).
    """
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    yield
    gc.collect()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, oracles and weights; tests that need it skip where it is absent."""
    if not (SHARED / "README.md").is_file():
        pytest.skip("../shared absent")
    return SHARED


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as training writes it, of an untrained Oct-I3D that knows the classes a to f."""
    # Imported here, so that a bare `pytest --collect-only` stays quick.
    from octvideo import create_model

    torch.manual_seed(0)
    model = create_model("i3d_r26", alpha=0.25, num_classes=6, width_per_group=16, crop_size=32)
    meta = {
        "format": 1,
        "model": model.config,
        "class_names": list("abcdef"),
        "preprocessing": PREPROCESSING,
    }
    path = tmp_path_factory.mktemp("run") / "best.pyth"
    torch.save({"model_state": model.state_dict(), "meta": meta, "epoch": 3}, path)
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    """A GPU machine may lack pytest-timeout; pytest would refuse its setting in pyproject.toml."""
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "seconds per test, which nobody watches without pytest-timeout")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU"))


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: full collections of garbage need not go through them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    outcomes = ("passed", "failed", "skipped", "xfailed", "xpassed")
    count = sum(len(terminalreporter.stats.get(outcome, [])) for outcome in outcomes)
    terminalreporter.write_line(f"{count} tests; CONTRIBUTING.md says how many to expect")
    for report in _skipped_otherwise(terminalreporter):
        terminalreporter.write_line(
            f"skipped for a reason that conftest.py does not list: {report.nodeid}", red=True
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _skipped_otherwise(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _skipped_otherwise(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    skipped = [
        report for report in reporter.stats.get("skipped", []) if not hasattr(report, "wasxfail")
    ]
    return [
        report
        for report in skipped
        if str(report.longrepr[2]).removeprefix("Skipped: ") not in SKIP_REASONS
    ]
