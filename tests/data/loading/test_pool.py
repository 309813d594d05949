"""Processes that read, when what waits for them is interrupted."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress

import pytest
from forked import Forked

from octvideo.data.loading.pool import ReaderPool, _Run, _Worker
from octvideo.errors import ConfigError, DataError


def double(number: int) -> int:
    return 2 * number


@pytest.fixture
def pool():
    pool = ReaderPool(double, num_workers=1, timeout_seconds=60)
    yield pool
    pool.close()


@pytest.mark.parametrize("number", [0, -1])
def test_a_pool_without_workers_is_refused_for_its_results_would_never_come(number):
    with pytest.raises(ConfigError, match=rf"{number} loader workers; give 1 or more"):
        ReaderPool(double, num_workers=number, timeout_seconds=60)


class Interrupt(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_signal_while_the_thread_starts_leaves_nothing_at_work(pool, monkeypatch, has_begun):
    start, late = threading.Thread.start, []

    def interrupted(thread):
        if has_begun:
            start(thread)
        late.append(thread)
        raise Interrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Interrupt):
        list(pool.run([(k,) for k in range(1000)], ahead=2))
    monkeypatch.undo()
    if not has_begun:
        late[0].start()  # as a busy machine does it: after the consumer has left
    late[0].join(30)

    assert not late[0].is_alive()
    assert list(pool.run([(1,), (2,)], ahead=2)) == [2, 4]


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_consumer_that_leaves_anywhere_leaves_no_task_behind(pool, taken):
    results = pool.run([(k,) for k in range(100)], ahead=4)
    found = [next(results) for _ in range(taken)]
    with suppress(Interrupt):
        results.throw(Interrupt)

    assert found == [2 * k for k in range(taken)]
    assert list(pool.run([(3,)], ahead=1)) == [6]


@pytest.mark.parametrize("lost", [1, 2])
def test_a_pool_whose_dead_worker_could_not_be_replaced_works_again_later(pool, monkeypatch, lost):
    assert list(pool.run([(1,)], ahead=1)) == [2]
    os.kill(pool._workers[0]._process.pid, signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(_Worker, "__init__", no_room)
        for _ in range(lost):
            with pytest.raises(DataError, match=r"cannot be started .*Too many open files"):
                list(pool.run([(2,)], ahead=1))

    assert list(pool.run([(3,)], ahead=1)) == [6]


def no_room(*_):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_closed_pool_starts_anew_whatever_its_workers_died_of(pool):
    pool._unexplained = 3
    pool.close()

    results = pool.run([(k,) for k in range(9)], ahead=1)
    next(results)
    os.kill(pool._workers[0]._process.pid, signal.SIGKILL)

    assert list(results) == [2 * k for k in range(1, 9)]


SCRIPT = """
from octvideo.data.loading.pool import ReaderPool

print(list(ReaderPool(abs, num_workers=1, timeout_seconds=60).run([(-1,)], ahead=1)))
"""


def run_script(repo, folder, text):
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, folder / "script.py"],
        env=os.environ | {"PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


GUARDED = """
from octvideo.data.loading.pool import ReaderPool

if __name__ == "__main__":
    pool = ReaderPool(abs, num_workers=2, timeout_seconds=60)
    results = pool.run([(-i,) for i in range(9)], ahead=2)
    print(next(results))
"""


@pytest.mark.slow
@pytest.mark.parametrize("rest", ["", "    print(*results)\n", "    del pool, results\n"])
def test_a_script_that_leaves_its_workers_to_themselves_ends(repo, tmp_path, rest):
    found = run_script(repo, tmp_path, GUARDED + rest)

    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.slow
def test_a_script_that_starts_workers_while_it_is_imported_is_told_where_to(repo, tmp_path):
    found = run_script(repo, tmp_path, SCRIPT)

    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 1
    assert 'below `if __name__ == "__main__":`' in last


def test_results_that_wait_after_the_last_task_are_all_taken():
    run = _Run(20_000, 20_000)
    run.begin()
    for number in range(20_000):
        run.put(number, number)
    run.end()

    assert [run.take(number) for number in range(20_000)] == list(range(20_000))


def test_a_consumer_ahead_of_the_thread_is_not_held_up():
    run = _Run(20_000, 20_000)
    run.begin()
    for number in range(20_000):
        run.put(number, number)

    assert [run.take(number) for number in range(20_000)] == list(range(20_000))
    run.heard()
    assert not run.wake_up.poll()


def read_in_a_worker():
    pool = ReaderPool(double, num_workers=1, timeout_seconds=60)
    print(list(pool.run([(1,)], ahead=1)))
    pool.close()


def test_a_folder_of_temporary_files_with_a_long_path_is_named(tmp_path):
    """Sockets have paths of at most 107 characters; newer versions of Python put them elsewhere."""
    folder = tmp_path / ("deep" * 20)
    folder.mkdir()

    said = Forked(
        read_in_a_worker, output=tmp_path / "said", environment={"TMPDIR": str(folder)}
    ).communicate()

    assert "[2]" in said or f"set TMPDIR to a folder of a shorter path than {folder}" in said


def test_a_fork_has_the_folder_of_temporary_files_of_its_own_test(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        environment = {"TMPDIR": str(tmp_path / name)}
        output = tmp_path / f"{name}.txt"
        Forked(say_temporary_folder, output=output, environment=environment).wait()

        assert output.read_text().strip() == str(tmp_path / name)


def say_temporary_folder():
    print(tempfile.gettempdir())
