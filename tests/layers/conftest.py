"""Triton's kernels on a CPU, and what a fused layer did."""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from octvideo.layers import fused


@pytest.fixture(scope="module")
def kernels() -> Iterator[SimpleNamespace]:
    """The modules of octvideo.layers.triton by name, whose kernels Triton's interpreter runs on the
    CPU.

    They leave with the tests of the file: a later test finds a CPU that has no kernels, as users
    do.
    """
    if find_spec("triton") is None:
        pytest.skip("no Triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("kernels are compiled")
    room = "octvideo.layers.triton"
    names = ("maps", "tiles", "ops", "conv_norm", "stem")
    yield SimpleNamespace(**{name: import_module(f"{room}.{name}") for name in names})
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{room}.")]:
        del sys.modules[name]


@pytest.fixture
def calls(kernels, monkeypatch):
    """How the fused path was taken: the names of its two forms, in order."""
    seen = []
    for name in ("_training", "_inference"):
        plain = getattr(fused, name)
        monkeypatch.setattr(
            fused, name, lambda *a, name=name, plain=plain: (seen.append(name), plain(*a))[1]
        )
    return seen
