"""Scripts and modules of benchmarks/, by their names."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def benchmarks(repo: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """benchmarks("cifar10"): the module, which finds its neighbors."""
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def side_by_side(benchmarks: Callable[[str], ModuleType]) -> ModuleType:
    return benchmarks("side_by_side")
