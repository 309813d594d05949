"""Calling a tool as the command line does, without paying for a new process."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Finished(NamedTuple):
    """Exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def run_tool(repo: Path, monkeypatch, capsys) -> Callable[..., Finished]:
    """run_tool("make_lists", "folders", path, ...): `python tools/make_lists.py folders path ...` in this process."""

    def run(tool: str, *arguments: object) -> Finished:
        path = str(repo / "tools" / f"{tool}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        status: object = 0
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
        return Finished(status if isinstance(status, int) else 1, *capsys.readouterr())

    return run
