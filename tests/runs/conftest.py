"""Folders of videos as a person has them, and settings with which a run takes seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from octvideo.data.video.encode import write_video

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


@pytest.fixture(autouse=True)
def _offline_and_one_core(monkeypatch, tmp_path):
    """No test asks the net, nor finds what lies in a developer's cache; runs go to a folder of
    their own."""
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("octvideo.engine.threads.available_cores", lambda: 1)
    monkeypatch.setattr("octvideo.runs.machine.available_cores", lambda: 1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


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
def my_videos(write_clips: Callable[..., None], tmp_path: Path) -> Path:
    """Two classes of five videos."""
    for name, brightness in (("dark", 0), ("light", 180)):
        write_clips(tmp_path / "my_videos" / name, 5, brightness)
    return tmp_path / "my_videos"


@pytest.fixture
def tiny() -> Callable[..., dict]:
    """tiny(SOLVER={...}): settings for `fit`."""
    return lambda **more: {**TINY, **more}
