"""tools/demo_net.py as a user calls it."""

import csv
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from forked import Forked, python
from PIL import Image

import octvideo.download
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError
from octvideo.report.annotate import Label, annotated


def test_a_video_is_named_on_the_console(run_tool, tiny_checkpoint, video):
    result = run_tool(
        "demo_net",
        "--checkpoint",
        tiny_checkpoint,
        "--video",
        video,
        "--views",
        "1x1",
        "--top-k",
        2,
    )

    assert result.status == 0, result.err
    path, first, second = result.out.splitlines()
    assert path == str(video)
    assert {first.split()[-1], second.split()[-1]} < set("abcdef")
    assert first.split()[0].endswith("%")


@pytest.mark.slow
def test_an_optimized_network_names_the_same(run_tool, tiny_checkpoint, video):
    plain, fast = (
        run_tool(
            "demo_net", "--checkpoint", tiny_checkpoint, "--video", video, "--views", "1x1", *option
        )
        for option in ([], ["--optimize"])
    )

    assert fast.status == 0, fast.err
    assert fast.out == plain.out


def test_programs_get_one_json_object_per_video(run_tool, tiny_checkpoint, video):
    result = run_tool(
        "demo_net", "--checkpoint", tiny_checkpoint, "--video", video, "--json", "--top-k", 6
    )

    found = json.loads(result.out)
    assert found["path"] == str(video)
    assert sum(p["probability"] for p in found["predictions"]) == pytest.approx(1, abs=1e-4)


def test_a_folder_gives_a_csv_and_features_and_survives_a_bad_file(
    run_tool, tiny_checkpoint, video, tmp_path
):
    (video.parent / "broken.mp4").write_bytes(b"no video")
    scores, features = tmp_path / "scores.csv", tmp_path / "features.npz"
    options = ["--views", "1x1", "--output", scores, "--features", features, "--workers", 0]

    result = run_tool(
        "demo_net", "--checkpoint", tiny_checkpoint, "--video", video.parent, *options
    )

    assert result.status == 0, result.err
    assert "broken.mp4" in result.err
    note = "1 of 2 videos could not be read; the same command tries them again"
    assert result.err.splitlines()[-2:] == [
        f"written: {each} ({note})" for each in (scores, features)
    ]
    good, bad = csv.DictReader(scores.read_text().splitlines())
    assert good["path"] == str(video)
    assert float(good["probability_1"]) >= float(good["probability_2"])
    assert bad["problem"]
    saved = np.load(features, allow_pickle=False)
    assert saved["paths"].tolist() == [str(video)]
    assert saved["features"].shape == (1, 512)


def test_the_video_comes_back_with_its_classes_drawn_and_its_sound(
    run_tool, tiny_checkpoint, tmp_path
):
    video, with_sound, output = (tmp_path / f"{name}.mp4" for name in ("gray", "sound", "named"))
    write_video(video, np.full((45, 48, 64, 3), 128, np.uint8), fps=15)
    _add_tone(video, with_sound)

    result = run_tool(
        "demo_net", "--checkpoint", tiny_checkpoint, "--video", with_sound, "--output", output
    )

    assert result.status == 0, result.err
    with av.open(str(with_sound)) as before, av.open(str(output)) as after:
        assert after.streams.audio
        was, now = (
            next(c.decode(video=0)).to_ndarray(format="rgb24").astype(int) for c in (before, after)
        )
        assert len(list(after.decode(video=0))) == 45 - 1
    assert abs(now[-8:, :16] - was[-8:, :16]).mean() > 40


@pytest.mark.parametrize("sizes", [((120, 160), (160, 120)), ((120, 160), (96, 128), (60, 80))])
def test_a_video_that_changes_its_size_comes_back_at_the_first_one(
    run_tool, tiny_checkpoint, tmp_path, sizes
):
    """Every frame is there, at its time, scaled; the picture of each part is still that part's."""
    parts = []
    for k, (height, width) in enumerate(sizes):
        with av.open(str(tmp_path / f"{k}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            image = np.full((height, width, 3), 60 + 60 * k, np.uint8)
            for _ in range(25):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
        parts.append((tmp_path / f"{k}.ts").read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))

    result = run_tool(
        *("demo_net", "--checkpoint", tiny_checkpoint, "--video", tmp_path / "joined.ts"),
        *("--output", tmp_path / "named.mp4", "--window-seconds", 0.5, "--stride-seconds", 0.5),
    )

    assert result.status == 0, result.err
    with av.open(str(tmp_path / "named.mp4")) as named:
        frames = list(named.decode(video=0))
    labeled = Label().draw(np.zeros((*sizes[0], 3), np.uint8), [])
    assert {(frame.height, frame.width) for frame in frames} == {labeled.shape[:2]}
    corners = [frame.to_ndarray(format="rgb24")[2, -8:].mean() for frame in frames]
    assert np.allclose(corners, np.repeat([60 + 60 * k for k in range(len(sizes))], 25), atol=6)
    assert np.allclose([frame.time for frame in frames], np.arange(len(frames)) / 25, atol=0.02)


@pytest.fixture
def frames_listed(tmp_path):
    """A list of one folder of pictures, each brighter than the one before it."""
    (tmp_path / "frames").mkdir()
    for k in range(12):
        picture = Image.fromarray(np.full((40, 48, 3), 20 * k, np.uint8))
        picture.save(tmp_path / "frames" / f"img_{k + 1}.png")
    path = tmp_path / "list.csv"
    path.write_text("path,num_frames,label\nframes,11,0\n")
    return path


def test_a_folder_of_frames_in_a_list_comes_back_in_its_order_and_its_rate_is_said(
    run_tool, tiny_checkpoint, frames_listed, tmp_path, caplog
):
    output = tmp_path / "named.mp4"

    done = run_tool("demo_net", "--checkpoint", tiny_checkpoint, frames_listed, "--output", output)

    assert done.status == 0, done.err
    assert f"{tmp_path}/frames: pictures carry no times; taken as 30 frames" in caplog.text
    with av.open(str(output)) as named:
        frames = list(named.decode(video=0))
    brightness = [frame.to_ndarray(format="rgb24")[2, 2].mean() for frame in frames]
    assert brightness == pytest.approx(np.arange(11) * 20, abs=4)
    assert [frame.time for frame in frames] == pytest.approx(np.arange(11) / 30, abs=1e-3)


def test_a_folder_of_fewer_frames_than_listed_is_named(
    run_tool, tiny_checkpoint, frames_listed, tmp_path
):
    (tmp_path / "frames" / "img_3.png").unlink()
    (tmp_path / "frames" / "img_4.png").unlink()

    words = frames_listed, "--output", tmp_path / "named.mp4"
    done = run_tool("demo_net", "--checkpoint", tiny_checkpoint, *words)

    assert done.status == 2
    assert "frames: 11 images are listed; there are 10" in done.err
    assert not (tmp_path / "named.mp4").exists()


def test_a_video_too_narrow_to_resize_is_named(run_tool, tiny_checkpoint, tmp_path):
    write_video(tmp_path / "line.mp4", np.zeros((4, 16, 320, 3), np.uint8), fps=30)

    words = tmp_path / "line.mp4", "--output", tmp_path / "named.mp4"
    done = run_tool("demo_net", "--checkpoint", tiny_checkpoint, *words)

    assert done.status == 2
    assert f"{tmp_path}/line.mp4: 320 x 16 pixels: one side is over" in done.err
    assert not (tmp_path / "named.mp4").exists()


def _add_tone(video: Path, output: Path) -> None:
    with av.open(str(output), "w") as container, av.open(str(video)) as source:
        picture = container.add_stream_from_template(source.streams.video[0])
        sound = container.add_stream("aac", rate=16000)
        tone = np.sin(np.arange(48000) * 0.2).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.rate = 16000
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                container.mux(packet)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def test_a_video_whose_address_a_list_names_is_drawn_with_its_sound(
    run_tool, tiny_checkpoint, video, tmp_path, monkeypatch
):
    _add_tone(video, tmp_path / "clip.mp4")
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        octvideo.download, "_append", lambda url, part: shutil.copy(tmp_path / "clip.mp4", part)
    )
    (tmp_path / "list.txt").write_text("https://host/clip.mp4 0\n")

    words = "--checkpoint", tiny_checkpoint, tmp_path / "list.txt", "--output", tmp_path / "o.mp4"
    done = run_tool("demo_net", *words)

    assert done.status == 0, done.err
    with av.open(str(tmp_path / "o.mp4")) as named:
        assert len(list(named.decode(audio=0))) > 40

    [fetched] = (tmp_path / "cache" / "files").glob("*.mp4")
    words = "--checkpoint", tiny_checkpoint, tmp_path / "list.txt", "--output", fetched
    assert f"{fetched}: is {fetched} itself" in run_tool("demo_net", *words).err


@pytest.mark.parametrize("name", ["a clip.mp4", "../videos/a clip.mp4", "symbolic.mp4", "hard.mp4"])
def test_a_video_is_not_replaced_by_its_annotated_form(run_tool, tiny_checkpoint, video, name):
    (video.parent / "symbolic.mp4").symlink_to(video)
    (video.parent / "hard.mp4").hardlink_to(video)
    (video.parent / "one.txt").write_text("a clip.mp4 0\n")
    before = video.read_bytes()

    for videos in (video, video.parent / "one.txt"):
        words = "--checkpoint", tiny_checkpoint, videos, "--output", video.parent / name
        done = run_tool("demo_net", *words)

        assert done.status == 2
        assert f"{name}: is {video} itself" in done.err
    assert video.read_bytes() == before


def test_a_list_is_not_replaced_by_its_rows(run_tool, video):
    path = video.parent / "list.csv"
    path.write_text("a clip.mp4 0\n")

    words = "--checkpoint", "none.pyth", path, "--output", path, "--overwrite"
    done = run_tool("demo_net", *words)

    assert done.status == 2
    assert "list.csv itself" in done.err
    assert path.read_text() == "a clip.mp4 0\n"


@pytest.mark.parametrize("rows", [-1, 0, 2.5, True])
def test_a_label_has_a_row_at_least(rows):
    with pytest.raises(ConfigError, match="1 or more"):
        Label(rows=rows)


@pytest.mark.parametrize("words", [["a.mp4"], ["a.mp4", "--output", "b.mp4"], ["--live", "0"]])
def test_a_number_of_classes_below_one_is_refused_before_any_work(run_tool, words):
    done = run_tool("demo_net", "--checkpoint", "none.pyth", *words, "--top-k", 0)

    assert done.status == 2
    assert done.err == "error: top_k is 0; give how many classes to name, 1 or more\n"


def test_a_frame_shows_the_ranking_nearest_in_time():
    frames = [np.zeros((120, 160, 3), np.uint8)] * 10
    rankings = [[("first", 1.0)], [("second", 0.0)]]

    drawn = list(annotated(frames, 1.0, rankings, middles=[2.0, 7.0]))

    same = [np.array_equal(f, Label().draw(frames[0], rankings[0], i)) for i, f in enumerate(drawn)]
    assert same == [True] * 5 + [False] * 5


RANKING = [("a very long name of a class that fits into no box", 0.7), ("b", 0.2), ("c", 0.04)]


@pytest.mark.parametrize("size", [(240, 320), (1080, 1920), (48, 64), (640, 360)])
def test_below_the_picture_nothing_of_it_is_hidden(size):
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)

    drawn = Label().draw(frame, RANKING, 75.25)

    np.testing.assert_array_equal(drawn[: size[0]], frame)
    assert drawn.shape[0] % 2 == 0
    assert drawn[size[0] :].std() > 5


@pytest.mark.parametrize("size", [(240, 320), (1080, 1920), (48, 64), (640, 360)])
@pytest.mark.parametrize("position", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_a_box_takes_a_corner_and_at_most_a_quarter(position, size):
    frame = np.full((*size, 3), 128, np.uint8)

    changed = (Label(position).draw(frame, RANKING, 75.25) != frame).any(2)

    assert 0 < changed.mean() <= 0.25
    rows, columns = np.nonzero(changed)
    assert rows.max() < size[0] / 2 if position.startswith("top") else rows.min() >= size[0] / 2
    assert (
        columns.max() <= size[1] / 2 if position.endswith("left") else columns.min() >= size[1] / 2
    )


@pytest.mark.parametrize("position", ["below", "top-left"])
def test_a_frame_shows_its_own_time_only(position):
    frame = np.full((240, 320, 3), 128, np.uint8)
    label = Label(position)

    first, other, again = (label.draw(frame, RANKING, seconds) for seconds in (1.0, 75.25, 1.0))

    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, again)


def test_classes_below_the_threshold_are_left_out():
    frame = np.zeros((240, 320, 3), np.uint8)

    drawn = Label(threshold=0.1).draw(frame, RANKING)

    np.testing.assert_array_equal(drawn, Label().draw(frame, RANKING[:2]))
    assert Label("top-left", threshold=0.9).draw(frame, RANKING) is frame


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "nowhere.mp4"], "there is no such file or folder"),
        (["--video", "FOLDER"], "no video in it"),
        (["--video", "FOLDER", "--output", "x.mp4"], "made of one video"),
        (["--video", "FOLDER", "--output", "x.txt"], r"write an .mp4"),
        (["--video", "a.mp4", "--output", "x.mp4", "--position", "left"], "no position 'left'"),
        (["--video", "a.mp4", "--output", "x.mp4", "--threshold", "1.5"], "it lies in [0, 1)"),
    ],
)
def test_a_mistake_is_one_line(run_tool, tiny_checkpoint, tmp_path, arguments, message):
    arguments = [str(tmp_path) if a == "FOLDER" else a for a in arguments]

    result = run_tool("demo_net", "--checkpoint", tiny_checkpoint, *arguments)

    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_of_a_list_of_videos_no_film_is_made(run_tool, tiny_checkpoint, tmp_path):
    (tmp_path / "list.csv").write_text("a.mp4 0\nb.mp4 1\n")

    result = run_tool(
        *("demo_net", "--checkpoint", tiny_checkpoint, "--video", tmp_path / "list.csv"),
        *("--output", tmp_path / "x.mp4"),
    )

    assert result.status == 2
    assert "an .mp4 is made of one video, and" in result.err
    assert "lists 2; write a .csv" in result.err


@pytest.mark.slow
def test_an_hour_of_video_streams_through_bounded_memory(tiny_checkpoint, repo, tmp_path):
    """3,600 s at 1 fps and small size; the child's peak resident memory stays below 1 GB."""
    hour = tmp_path / "hour.mp4"
    shades = (np.full((32, 48, 3), i % 256, np.uint8) for i in range(3600))
    write_video(hour, shades, fps=1, preset="ultrafast")
    arguments = [
        "--checkpoint",
        tiny_checkpoint,
        "--video",
        hour,
        "--output",
        tmp_path / "named.mp4",
    ]
    arguments += ["--window-seconds", 60, "--stride-seconds", 30]
    tool = repo / "tools" / "demo_net.py"
    run = Forked(python, "-c", RUN_AND_TELL_MEMORY, tool, *arguments, output=tmp_path / "said")

    said = run.communicate(timeout=500)

    assert run.returncode == 0, said

    with av.open(str(tmp_path / "named.mp4")) as named:
        assert named.streams.video[0].frames == 3600
    assert int(said.splitlines()[-1]) < 1_000_000  # KiB


# Of this program alone: getrusage counts what the process was before it became it.
RUN_AND_TELL_MEMORY = r"""
import re, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
print(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
"""
