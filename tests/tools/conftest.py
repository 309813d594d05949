"""Calling a tool as the command line does, without paying for a new process."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from octvideo.cli import main
from octvideo.data.video.encode import write_video


class Finished(NamedTuple):
    """Exit status, standard output, standard error."""

    status: int
    out: str
    err: str


@pytest.fixture
def run_tool(repo: Path, monkeypatch, capsys) -> Callable[..., Finished]:
    """run_tool("make_lists", "folders", path, ...): `python tools/make_lists.py folders path ...`
    in this process."""

    def run(tool: str, *arguments: object) -> Finished:
        path = str(repo / "tools" / f"{tool}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        return _finish(lambda: runpy.run_path(path, run_name="__main__"), capsys)

    return run


@pytest.fixture
def run_command(capsys) -> Callable[..., Finished]:
    """run_command(["octvideo", "lists", ...]) in this process."""
    return lambda words: _finish(lambda: main(list(map(str, words[1:]))), capsys)


def _finish(call: Callable[[], object], capsys) -> Finished:
    status: object = 0
    try:
        call()
    except SystemExit as stop:
        status = stop.code or 0
    return Finished(status if isinstance(status, int) else 1, *capsys.readouterr())


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """videos/a clip.mp4: 45 frames of noise at 15 frames per second."""
    frames = np.random.default_rng(0).integers(0, 255, (45, 48, 64, 3), np.uint8)
    write_video(tmp_path / "videos" / "a clip.mp4", frames, fps=15)
    return tmp_path / "videos" / "a clip.mp4"
