"""`Recognizer.features` over time: which frames and seconds each window is of, at every edge."""

import csv
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import octvideo
import octvideo.cli
import octvideo.recognizer
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError, ListError
from octvideo.predict import videos_of


@pytest.fixture(scope="module")
def recognizer(tiny_checkpoint: Path) -> octvideo.recognizer.Recognizer:
    return octvideo.load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (33, 40, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        (1.0, 0.5, [(0, 10), (5, 15), (10, 20), (15, 25), (20, 30)]),  # 3 frames fill no window
        (1.0, None, [(0, 10), (10, 20), (20, 30)]),
        (1.0, 2.0, [(0, 10), (20, 30)]),  # longer strides than windows leave frames out
        (3.3, 1.0, [(0, 33)]),
        (9.0, 1.0, [(0, 33)]),  # shorter than a window: it ends with the video
        (0.01, 1.5, [(0, 1), (15, 16), (30, 31)]),  # at least a frame
    ],
)
def test_windows_have_exact_frames_and_seconds(recognizer, frames, window, stride, expected):
    found = recognizer.features(frames, window_seconds=window, stride_seconds=stride, fps=10)

    assert list(zip(found.first_frames, found.end_frames, strict=True)) == expected
    np.testing.assert_allclose(found.starts, found.first_frames / 10)
    np.testing.assert_allclose(found.ends, found.end_frames / 10)
    assert found.features.shape == (len(expected), 512)
    assert found.features.dtype == np.float32


def test_a_window_is_seen_as_its_frames_by_themselves(recognizer, frames):
    found = recognizer.features(frames, window_seconds=0.4, stride_seconds=1, fps=10)

    for first, end, vector in zip(
        found.first_frames, found.end_frames, found.features, strict=True
    ):
        # Four frames, which the network takes, all of them.
        alone = recognizer.features(frames[first:end], window_seconds=0.4, fps=10)
        np.testing.assert_allclose(vector, alone.features[0], rtol=1e-4, atol=1e-5)


def test_windows_of_a_file_of_varying_rate_end_when_their_frames_do(recognizer, frames, tmp_path):
    times = [k / 10 for k in range(20)] + [2.0 + k for k in range(11)]
    write_video(tmp_path / "vfr.mp4", frames[:30], 3, times=times)

    found = recognizer.features(tmp_path / "vfr.mp4", window_seconds=2, stride_seconds=2)

    assert found.starts.tolist() == pytest.approx([times[n] for n in found.first_frames], abs=1e-3)
    assert found.ends.tolist() == pytest.approx([times[n] for n in found.end_frames])


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_lengths_that_are_not_positive_are_refused(recognizer, frames, lengths):
    with pytest.raises(ConfigError, match="must be positive"):
        recognizer.features(frames, window_seconds=lengths[0], stride_seconds=lengths[1])


def test_windows_are_saved_with_their_ranges(recognizer, frames, tmp_path):
    found = recognizer.features(frames, window_seconds=1, fps=10)

    found.save(tmp_path / "windows.npz")

    saved = np.load(tmp_path / "windows.npz", allow_pickle=False)
    np.testing.assert_array_equal(saved["features"], found.features)
    for name, values in found.ranges().items():
        np.testing.assert_array_equal(saved[name], values)
    with pytest.raises(ConfigError, match=r"\.npz, \.parquet"):
        found.save(tmp_path / "windows.txt")


def test_windows_of_many_videos_are_one_file_that_is_continued(
    recognizer, tiny_checkpoint, frames, tmp_path, capsys
):
    folder = tmp_path / "videos"
    for name, count in (("a", 33), ("b", 12)):
        write_video(folder / f"{name}.mp4", frames[:count], fps=10)
    (folder / "c.mp4").write_bytes(b"no video")
    command = ["features", "--checkpoint", str(tiny_checkpoint), str(folder), "--output"]
    command += [str(tmp_path / "windows.npz"), "--window-seconds", "1"]

    octvideo.cli.main(command)
    first = dict(np.load(tmp_path / "windows.npz"))
    write_video(folder / "d.mp4", frames, fps=10)
    octvideo.cli.main(command)

    assert "left out: " in capsys.readouterr().err
    names = [Path(path).stem for path in np.load(tmp_path / "windows.npz")["paths"]]
    assert names == ["a"] * 3 + ["b"] + ["d"] * 3
    for name, values in first.items():
        np.testing.assert_array_equal(np.load(tmp_path / "windows.npz")[name][:4], values)
    alone = recognizer.features(folder / "b.mp4", window_seconds=1)
    np.testing.assert_allclose(first["features"][3], alone.features[0], rtol=1e-4, atol=1e-5)


def test_windows_of_a_folder_of_frames_are_those_of_its_pictures(
    recognizer, tiny_checkpoint, frames, tmp_path, capsys
):
    for folder, count in (("whole", 33), ("short", 3)):
        (tmp_path / folder).mkdir()
        for k, frame in enumerate(frames[:count]):
            Image.fromarray(frame).save(tmp_path / folder / f"{k}.png")
    (tmp_path / "list.csv").write_text("path,num_frames,label\nwhole,33,0\nshort,4,0\n")
    command = ["features", "--checkpoint", str(tiny_checkpoint), str(tmp_path / "list.csv")]

    octvideo.cli.main([*command, "--output", str(tmp_path / "f.npz"), "--window-seconds", "0.5"])

    expected = recognizer.features(frames, window_seconds=0.5, fps=30)
    found = np.load(tmp_path / "f.npz")
    np.testing.assert_allclose(found["features"], expected.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["ends"], expected.ends)
    assert set(found["paths"]) == {str(tmp_path / "whole")}
    assert "short: 4 images are listed; there are 3" in capsys.readouterr().err


def test_wrong_lengths_are_refused_before_a_file_is_touched(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (tmp_path / "windows.npz").write_bytes(b"features of before")
    command = ["features", "--checkpoint", str(tiny_checkpoint), str(tmp_path / "a.mp4")]
    command += ["--output", str(tmp_path / "windows.npz"), "--overwrite"]

    for wrong in (["--window-seconds", "-1"], ["--window-seconds", "1", "--stride-seconds", "0"]):
        with pytest.raises(SystemExit, match="2"):
            octvideo.cli.main([*command, *wrong])
        assert "must be positive" in capsys.readouterr().err

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "windows.npz"]


def test_a_list_is_read_with_and_without_labels(tiny_checkpoint, frames, tmp_path, capsys):
    write_video(tmp_path / "a clip.mp4", frames[:12], fps=10)
    for name, lines in (("with.txt", "a clip.mp4 3\n"), ("without.txt", "a clip.mp4\n")):
        (tmp_path / name).write_text(lines)
        command = ["predict", "--checkpoint", str(tiny_checkpoint), str(tmp_path / name)]
        octvideo.cli.main([*command, "--views", "1x1", "--output", str(tmp_path / f"{name}.csv")])

        (row,) = csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines())
        assert row["path"] == str(tmp_path / "a clip.mp4")
        assert not row["problem"]


@pytest.mark.parametrize(
    "lines",
    [
        ("a.mp4 0", "b.mp4 1", "c.mp4", "d.mp4 2"),
        ("a.mp4,0", "b.mp4,1", "c.mp4,", "d.mp4,2"),
        ("a b.mp4", "x.mp4", "c.mp4\t0"),
        ("a.MP4 zero", "b.mp4"),
    ],
)
def test_a_label_that_is_missing_or_no_number_is_an_error_of_its_line(tmp_path, lines):
    (tmp_path / "list.txt").write_text("\n".join(lines))

    with pytest.raises(ListError, match=r"list\.txt:[13]: "):
        videos_of(tmp_path / "list.txt")


@pytest.mark.parametrize(
    "lines", [("a.mp4", "b c.mp4"), ("a.mp4 copy.mp4", "b.mp4"), ("part 1.mkv", "a, b.mkv", "c")]
)
def test_paths_with_separators_are_no_labels(tmp_path, lines):
    (tmp_path / "list.txt").write_text("\n".join(lines))

    found = videos_of(tmp_path / "list.txt")

    assert [video.path for video in found] == [str(tmp_path / line) for line in lines]


def test_a_list_at_an_address_is_read_anew_and_names_the_videos_beside_it():
    for name in ("a.mp4", "b.mp4"):
        fsspec.filesystem("memory").pipe("/predicted/list.txt", f"{name} 0\n".encode())

        found = videos_of("memory://predicted/list.txt")

        assert [video.path for video in found] == [f"memory://predicted/{name}"]
