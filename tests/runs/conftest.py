"""Folders of videos as a person has them, and settings with which a run takes seconds."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octvideo.data.video.encode import write_video
from octvideo.runs.fit import Run

TINY = {
    "DATA": {
        "NUM_FRAMES": 4,
        "SAMPLING_RATE": 2,
        "TRAIN_JITTER_SCALES": [32, 40],
        "TRAIN_CROP_SIZE": 32,
        "TEST_CROP_SIZE": 32,
    },
    "RESNET": {"WIDTH_PER_GROUP": 16},
    "TRAIN": {"MIXED_PRECISION": False},
    "DATA_LOADER": {"NUM_WORKERS": 0},
    "TENSORBOARD": {"ENABLE": False},
    "LOG_MODEL_INFO": False,
}


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """One place for the videos and the runs of all tests, each of which begins without them: lists
    and checkpoints hold their paths, so that what one test made can be put there for another."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _offline_and_one_core(monkeypatch, tmp_path, home):
    """No test asks the net, nor finds what lies in a developer's cache, nor runs of another test."""
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)
    monkeypatch.setattr("octvideo.runs.machine.available_cores", lambda: 1)
    shutil.rmtree(home / "here", ignore_errors=True)
    (home / "here").mkdir()
    monkeypatch.chdir(home / "here")


@pytest.fixture
def write_clips() -> Callable[..., None]:
    """write_clips(folder, count, brightness): clips of noise around a brightness, which tells the
    classes apart."""

    def write(folder: Path, count: int, brightness: int, length: int = 12) -> None:
        for i in range(count):
            generator = np.random.default_rng(1000 * brightness + i)
            frames = brightness + generator.integers(0, 60, (length, 40, 48, 3))
            write_video(folder / f"{i}.mp4", frames.astype(np.uint8))

    return write


@pytest.fixture
def my_videos(write_clips: Callable[..., None], home: Path) -> Path:
    """Two classes of five videos."""
    if not (home / "kept" / "my_videos").exists():
        for name, brightness in (("dark", 0), ("light", 180)):
            write_clips(home / "kept" / "my_videos" / name, 5, brightness)
    shutil.rmtree(home / "my_videos", ignore_errors=True)
    return shutil.copytree(home / "kept" / "my_videos", home / "my_videos")


@pytest.fixture(scope="session")
def made() -> dict[str, Run]:
    """What `fit` returned, by the name of what it made."""
    return {}


@pytest.fixture
def once(made: dict[str, Run], home: Path) -> Callable[[str, Callable[[], Run]], Run]:
    """once("a probe", fit): what fit() returns; from the second test on, the folder "run" is there as
    fit() left it."""

    def run(name: str, fit: Callable[[], Run]) -> Run:
        kept = home / "kept" / name
        if name in made:
            shutil.copytree(kept, "run")
        else:
            made[name] = fit()
            shutil.copytree("run", kept)
        return replace(made[name], config=made[name].config.clone())

    return run


@pytest.fixture
def tiny() -> Callable[..., dict]:
    """tiny(SOLVER={...}): settings for `fit`."""
    return lambda **more: {**TINY, **more}
