"""The tests are run, all of them, and a run ends."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from forked import Forked


def _pytest(*arguments: object, cwd: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def test_no_two_test_files_have_one_name(repo):
    """pytest imports them by their names alone, and stops at the second."""
    names = Counter(path.name for path in (repo / "tests").rglob("*.py"))

    assert [name for name, count in names.items() if count > 1] == ["conftest.py"]


@pytest.mark.slow
def test_every_test_file_is_collected_and_the_number_of_tests_is_the_documented_one(repo, request):
    files = {str(path.relative_to(repo)) for path in (repo / "tests").rglob("test_*.py")}
    stated = re.search(r"at least ([\d,]+) tests", (repo / "CONTRIBUTING.md").read_text())
    expected = int(stated[1].replace(",", ""))

    tests = [item.nodeid for item in request.session.items]
    if len(tests) < expected:  # This run is of a part of them.
        done = _pytest("--collect-only", "-q", cwd=repo)
        assert done.returncode == 0, done.stdout[-2000:]
        tests = [line for line in done.stdout.splitlines() if "::" in line]

    assert files == {test.partition("::")[0] for test in tests}
    assert len(tests) >= expected


def test_a_native_hang_that_holds_the_gil_ends_with_a_stack(repo, tmp_path):
    (tmp_path / "test_hang.py").write_text(
        "import ctypes\ndef test_hang():\n    ctypes.PyDLL(None).pause()\n"
    )

    done = _pytest(
        "-c", repo / "pyproject.toml", "-o", "faulthandler_timeout=1", "test_hang.py", cwd=tmp_path
    )

    assert done.returncode != 0
    assert "Timeout (0:00:01)!" in done.stderr
    assert "in test_hang" in done.stderr


def _say_where():
    print(Path.cwd())


def test_a_fork_runs_in_the_folder_of_the_test_that_starts_it(tmp_path, monkeypatch):
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)

        said = Forked(_say_where, output=tmp_path / "said.txt").communicate()

        assert said == f"{folder}\n"
        monkeypatch.undo()
        folder.rmdir()
