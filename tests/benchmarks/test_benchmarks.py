"""What holds for all scripts of benchmarks/."""

import ast
import importlib

import pytest


def test_a_script_imports_modules_and_no_other_script(repo):
    files = sorted((repo / "benchmarks").rglob("*.py"))
    scripts = {file.stem for file in files if 'if __name__ == "__main__"' in file.read_text()}

    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not scripts & set(names), f"{file.name} imports a script"


@pytest.fixture
def runs(repo, monkeypatch):
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    return importlib.import_module("runs")


def test_the_mean_of_pairs_has_an_interval_by_student(runs):
    # 3, 4, 5: standard deviation 1, and Student's t of two degrees of freedom is 4.303.
    assert runs.difference([3.0, 4.0, 5.0], digits=1) == "+4.0 (+1.5 to +6.5)"
    assert runs.difference([3.0]) == "+3.0"
    assert runs.difference([]) == ""
