"""Videos made small: the same frames at the same times, each file whole, and what was gained."""

from pathlib import Path

import numpy as np
import pytest

from octvideo.data.prepare import resize
from octvideo.data.prepare.resize import measure_gain, resize_folder, resize_video
from octvideo.data.video.decode import open_video
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    """Run the jobs in this process."""
    monkeypatch.setattr(resize, "for_each", lambda job, tasks, **_: (job(*task) for task in tasks))


@pytest.fixture
def frames() -> np.ndarray:
    """(T, H, W, 3): frame i has the gray value 5 i."""
    return np.broadcast_to(5 * np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 72, 96, 3))


def gray_of(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return video.read(range(video.info.num_frames)).mean((1, 2, 3))


def test_frame_k_stays_frame_k_at_the_new_size(tmp_path, frames):
    write_video(tmp_path / "in" / "run fast" / "a.mp4", frames, gop=250)

    result = resize_folder(tmp_path / "in", tmp_path / "out", short_side=36)

    target = tmp_path / "out" / "run fast" / "a.mp4"
    assert result.pairs == [(str(tmp_path / "in" / "run fast" / "a.mp4"), str(target))]
    assert np.abs(gray_of(target) - 5 * np.arange(40)).max() < 3
    with open_video(target) as video:
        assert (video.info.height, video.info.width, video.info.fps) == (36, 48, 30)


def test_small_videos_keep_their_size(tmp_path, frames):
    write_video(tmp_path / "in" / "a.mp4", frames)

    resize_folder(tmp_path / "in", tmp_path / "out", short_side=256)

    with open_video(tmp_path / "out" / "a.mp4") as video:
        assert (video.info.height, video.info.width) == (72, 96)


def test_uneven_times_are_kept(tmp_path, frames):
    times = np.cumsum(np.linspace(0.02, 0.1, 40)).tolist()
    write_video(tmp_path / "a.mp4", frames, times=times)

    assert resize_video(str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), 36, 12, 20) == ""

    with open_video(tmp_path / "b.mp4") as video:
        shown = np.array(video.timing(exact_times=True).times)
    assert np.allclose(shown, np.array(times) - times[0], atol=1e-3)


def test_bad_files_are_named_and_good_ones_are_not_made_twice(tmp_path, frames):
    write_video(tmp_path / "in" / "a.mp4", frames[:5])
    (tmp_path / "in" / "b.avi").write_text("no video")

    first = resize_folder(tmp_path / "in", tmp_path / "out")
    made = (tmp_path / "out" / "a.mp4").stat().st_mtime_ns
    second = resize_folder(tmp_path / "in", tmp_path / "out")

    assert list(first.failed) == list(second.failed) == [str(tmp_path / "in" / "b.avi")]
    assert (first.kept, second.kept) == (0, 1)
    assert (tmp_path / "out" / "a.mp4").stat().st_mtime_ns == made
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["a.mp4"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"short_side": 36}, "made with --short-side 64 --gop 12 .*, not with --short-side 36 "),
        ({"gop": 6}, "made with .* --gop 12 .*, not with .* --gop 6 "),
        ({"crf": 40}, "made with .* --crf 20 .*, not with .* --crf 40 "),
    ],
)
def test_videos_of_other_options_are_not_taken_for_the_result(tmp_path, frames, changed, named):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / name, frames[:3])
    resize_folder(tmp_path / "in", tmp_path / "out", short_side=64)
    (tmp_path / "out" / "b.mp4").unlink()
    before = (tmp_path / "out" / "a.mp4").read_bytes()

    with pytest.raises(DataError, match=f"a.mp4: {named}.* 1 of the 1 videos that are there"):
        resize_folder(tmp_path / "in", tmp_path / "out", **{"short_side": 64, **changed})

    assert (tmp_path / "out" / "a.mp4").read_bytes() == before
    assert resize_folder(tmp_path / "in", tmp_path / "out", short_side=64).kept == 1
    (tmp_path / "out" / "a.mp4").unlink()
    (tmp_path / "out" / "b.mp4").unlink()
    assert resize_folder(tmp_path / "in", tmp_path / "out", **changed).kept == 0


def test_a_video_of_another_file_is_not_taken_for_the_result(tmp_path, frames):
    write_video(tmp_path / "train" / "a.mp4", frames[:3])
    write_video(tmp_path / "val" / "a.mp4", frames[:9])
    resize_folder(tmp_path / "train", tmp_path / "out")

    with pytest.raises(DataError, match=r"from a file of \d+ bytes, not .* give another folder"):
        resize_folder(tmp_path / "val", tmp_path / "out")


def test_a_file_that_it_has_not_made_is_neither_the_result_nor_lost(tmp_path, frames):
    write_video(tmp_path / "in" / "a.mp4", frames[:3])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_text("of the user")

    with pytest.raises(DataError, match=r"a\.mp4: made with unknown options, not with"):
        resize_folder(tmp_path / "in", tmp_path / "out")

    assert (tmp_path / "out" / "a.mp4").read_text() == "of the user"


def test_an_interrupted_run_goes_on_with_its_own_videos(tmp_path, frames, monkeypatch):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / name, frames[:3])

    def first_only(job, tasks, **_):
        yield job(*tasks[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resize, "for_each", first_only)
        with pytest.raises(KeyboardInterrupt):
            resize_folder(tmp_path / "in", tmp_path / "out")

    assert resize_folder(tmp_path / "in", tmp_path / "out").kept == 1
    assert gray_of(tmp_path / "out" / "b.mp4").size == 3


def test_a_damaged_file_gives_its_good_frames(tmp_path, frames):
    noise = np.random.default_rng(0).integers(0, 255, frames.shape, np.uint8)
    write_video(tmp_path / "whole.mp4", noise)
    resize_video(str(tmp_path / "whole.mp4"), str(tmp_path / "whole.mkv"), 256, 12, 20)
    data = bytearray((tmp_path / "whole.mp4").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    (tmp_path / "torn.mp4").write_bytes(data)

    cause = resize_video(str(tmp_path / "torn.mp4"), str(tmp_path / "out.mp4"), 36, 12, 20)

    assert cause or 1 <= len(gray_of(tmp_path / "out.mp4")) <= 40


@pytest.mark.parametrize(("names", "out", "message"), [
    (("a.mp4", "a.avi"), "out", "would become one file"),
    (("a.mp4",), "in", "would be overwritten"),
])  # fmt: skip
def test_files_that_would_be_lost_stop_it(tmp_path, frames, names, out, message):
    for name in names:
        write_video(tmp_path / "in" / name, frames[:2])

    with pytest.raises(DataError, match=message):
        resize_folder(tmp_path / "in", tmp_path / out)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"short_side": -4}, "a short side of -4 pixels; give 2 or more"),
        ({"short_side": 0}, "a short side of 0 pixels"),
        ({"short_side": 1}, "a short side of 1 pixels"),
        ({"gop": 0}, r"a keyframe every 0 frames \(gop\); give 1 or more"),
        ({"gop": -1}, "a keyframe every -1 frames"),
        ({"crf": -3}, "a crf of -3; give 0 to 51"),
        ({"crf": 52}, "a crf of 52; give 0 to 51"),
    ],
)
def test_an_encoding_that_cannot_be_is_refused_before_a_video_is_read(tmp_path, given, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()

    with pytest.raises(ConfigError, match=message):
        resize_folder(tmp_path / "in", tmp_path / "out", **given)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [(2, 1, 0), (2, 12, 51)])
def test_the_bounds_of_an_encoding_can_be_written_and_read(tmp_path, frames, given):
    write_video(tmp_path / "in" / "a.mp4", frames[:3])
    short_side, gop, crf = given

    resize_folder(tmp_path / "in", tmp_path / "out", short_side=short_side, gop=gop, crf=crf)

    assert len(gray_of(tmp_path / "out" / "a.mp4")) == 3


def test_a_folder_that_cannot_be_written_is_a_mistake_and_not_a_bad_video(tmp_path, frames):
    write_video(tmp_path / "a.mp4", frames[:2])
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match="nothing can be written there"):
        resize_video(str(tmp_path / "a.mp4"), str(tmp_path / "file" / "a.mp4"), 36, 12, 20)


def test_the_gain_compares_clips_of_both_versions(tmp_path, frames):
    write_video(tmp_path / "in" / "a.mp4", frames)
    result = resize_folder(tmp_path / "in", tmp_path / "out", short_side=36)

    gain = measure_gain(result.pairs, rounds=1)

    assert gain.num_videos == 1
    assert min(gain.seconds) > 0
    assert "times as fast" in str(gain)
