"""Videos that we write: every frame, equal bytes for equal frames, never half a file."""

from pathlib import Path

import av
import numpy as np
import pytest

from octvideo.data import probe
from octvideo.data.video.encode import write_video
from octvideo.errors import DataError


@pytest.fixture
def frames() -> np.ndarray:
    """(T, H, W, 3): frame i has the gray value 10 i."""
    return np.broadcast_to(10 * np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 32, 48, 3))


def read_all(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_frame_is_written_in_order(tmp_path, frames):
    count = write_video(tmp_path / "new" / "a.mp4", frames, fps=25)

    assert count == 20
    assert np.abs(read_all(tmp_path / "new" / "a.mp4").astype(int) - frames).max() <= 3


def test_equal_frames_give_equal_bytes(tmp_path, frames):
    write_video(tmp_path / "a.mp4", frames)
    write_video(tmp_path / "b.mp4", iter(frames))

    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("size", "written"), [(None, (32, 48)), ((16, 24), (16, 24)), ((17, 23), (18, 24))]
)
def test_frames_are_scaled_to_an_even_size(tmp_path, frames, size, written):
    write_video(tmp_path / "a.mp4", frames[:, :31, :47], size=size)

    assert read_all(tmp_path / "a.mp4").shape == (20, *written, 3)
    assert np.abs(read_all(tmp_path / "a.mp4").mean((1, 2, 3)) - 10 * np.arange(20)).max() <= 3


def test_frames_keep_uneven_times(tmp_path, frames):
    times = np.cumsum(np.linspace(0.02, 0.1, 20)).tolist()
    write_video(tmp_path / "a.mp4", frames, times=times)

    with av.open(str(tmp_path / "a.mp4")) as container:
        shown = [float(frame.time) for frame in container.decode(video=0)]
    assert np.allclose(np.array(shown) - shown[0], np.array(times) - times[0], atol=1e-4)


def test_keyframes_stand_every_gop_frames(tmp_path, frames):
    write_video(tmp_path / "a.mp4", frames, gop=5)

    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    assert keys == [0, 5, 10, 15]


def test_a_failure_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="no frame to write"):
        write_video(tmp_path / "a.mp4", [])

    assert list(tmp_path.iterdir()) == []


def test_frames_that_are_almost_simultaneous_follow_each_other(tmp_path):
    frames = np.zeros((4, 32, 48, 3), np.uint8)

    count = write_video(tmp_path / "a.mp4", frames, times=[0, 0.1, 0.100004, 0.100005])

    assert count == probe(tmp_path / "a.mp4").num_frames == 4
