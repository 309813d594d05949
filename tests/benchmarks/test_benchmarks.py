"""What holds for all scripts of benchmarks/."""

import ast
from importlib import import_module
from pathlib import Path

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


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "tools"])
def test_what_a_script_imports_from_the_package_is_there(repo, folder):
    """Some scripts run for hours, and so in no test."""
    for file in sorted((repo / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("octvideo") and "triton" not in module:
                for alias in node.names:
                    assert _has(module, alias.name), f"{file.name}: {module} has no {alias.name}"


def _has(module, name):
    if hasattr(import_module(module), name):
        return True
    return (Path(import_module(module).__file__).parent / f"{name}.py").is_file()
