"""tools/visualize.py and tools/doctor.py as a user calls them."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import octvideo
from octvideo import visualize
from octvideo.checkpoint import Checkpoint
from octvideo.files import OutputError

LAYER = "res3.block1.spatial.conv"
STRIP = Image.new("RGB", (320, 80))


def draw(run_tool, tmp_path, *arguments):
    """Run and return the pictures as arrays."""
    result = run_tool("visualize", *arguments, "--output", tmp_path / "pictures")
    assert result.status == 0, result.err
    return {
        line: np.asarray(Image.open(line))
        for line in result.out.splitlines()
        if line.endswith(".png")
    }


def shows_something(picture: np.ndarray) -> bool:
    return min(picture.shape[:2]) > 60 and picture[..., :3].std() > 5


def test_frequency_draws_the_spectra_of_a_network_beside_a_baseline(
    run_tool, tiny_checkpoint, video, tmp_path
):
    arguments = ["--checkpoint", tiny_checkpoint, "--baseline", tiny_checkpoint, "--video", video]

    (picture,) = draw(run_tool, tmp_path, "frequency", *arguments).values()

    assert shows_something(picture)


def test_octave_draws_what_each_path_adds(run_tool, tiny_checkpoint, video, tmp_path):
    pictures = draw(run_tool, tmp_path, "octave", "--checkpoint", tiny_checkpoint, "--video", video)

    ((path, picture),) = pictures.items()
    assert path.endswith("/octave_res3.block1.spatial.conv.png")
    assert shows_something(picture)


def test_octave_draws_a_picture_of_each_video(run_tool, tiny_checkpoint, video, tmp_path):
    other = tmp_path / "b.mp4"
    shutil.copy(video, other)
    arguments = ["--checkpoint", tiny_checkpoint, "--video", video, other]

    pictures = draw(run_tool, tmp_path, "octave", *arguments)

    assert [Path(path).name for path in pictures] == [
        "octave_res3.block1.spatial.conv_a clip.png",
        "octave_res3.block1.spatial.conv_b.png",
    ]


@pytest.mark.parametrize(
    ("videos", "names"),
    [
        (["1.avi"], ["1"]),
        (["a/1.avi", "b/2.avi"], ["1", "2"]),
        (["a/1.avi", "b/1.avi", "c/1.mp4"], ["1", "1_2", "1_3"]),
        (["a/1.avi", "b/1.avi", "1_2.avi"], ["1", "1_3", "1_2"]),
        (["a/Run.avi", "b/run.avi"], ["Run", "run_2"]),
    ],
)
def test_no_video_takes_the_name_of_another_ones_pictures(videos, names):
    assert visualize.picture_names([Path(video) for video in videos]) == names


def test_gradcam_keeps_the_pictures_of_videos_of_one_name_apart(
    run_tool, tiny_checkpoint, video, tmp_path
):
    other = tmp_path / "other" / video.name
    other.parent.mkdir()
    shutil.copy(video, other)
    arguments = ["--checkpoint", tiny_checkpoint, "--video", video, other]

    draw(run_tool, tmp_path, "gradcam", *arguments)

    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == [
        "gradcam_a clip.png",
        "gradcam_a clip_2.png",
        "gradcam_a clip_2_high.mp4",
        "gradcam_a clip_2_low.mp4",
        "gradcam_a clip_high.mp4",
        "gradcam_a clip_low.mp4",
    ]


def test_gradcam_draws_a_strip_and_writes_a_video_per_octave(
    run_tool, tiny_checkpoint, video, tmp_path
):
    (picture,) = draw(
        run_tool, tmp_path, "gradcam", "--checkpoint", tiny_checkpoint, "--video", video
    ).values()

    assert shows_something(picture)
    assert {p.name for p in (tmp_path / "pictures").glob("*.mp4")} == {
        "gradcam_a clip_high.mp4",
        "gradcam_a clip_low.mp4",
    }


def test_gradcam_prints_the_probability_that_the_network_predicts(
    tiny_checkpoint, video, tmp_path, monkeypatch
):
    path = str(tmp_path / "net.pyth")
    dataclasses.replace(Checkpoint.read(tiny_checkpoint), head_act="sigmoid").write(path)
    recognizer = octvideo.load(path, device="cpu")
    titles = []
    monkeypatch.setattr(
        visualize, "film_strip", lambda rows: titles.extend(title for title, _ in rows) or STRIP
    )

    visualize.draw_gradcam(recognizer, video, "", tmp_path, "b")

    expected = recognizer.scores(video, views="1x1")[1]
    assert titles[1].startswith(f"b ({expected:.0%})")


def test_clips_draws_what_a_config_feeds_its_network(run_tool, video, tmp_path):
    data = tmp_path / "videos"
    for split in ("train", "val"):
        (data / f"{split}.csv").write_text("a clip.mp4 0\n" * 4)
    cfg = tmp_path / "mine.yaml"
    cfg.write_text(
        f"DATA: {{PATH_TO_DATA_DIR: {data}, NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES:"
        " [40, 48], TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32}\nMODEL: {ARCH: i3d, NUM_CLASSES:"
        " 3}\nTRAIN: {BATCH_SIZE: 2}\nDATA_LOADER: {NUM_WORKERS: 0}\n"
    )

    (picture,) = draw(run_tool, tmp_path, "clips", "--cfg", cfg, "--count", 3).values()

    assert shows_something(picture)


def test_tradeoff_draws_finished_runs_beside_the_paper(run_tool, tmp_path):
    for alpha, gflops, accuracy in ((0.0, 28.4, 80.0), (0.5, 15.9, 79.0)):
        network = {"name": "i3d_r50", "alpha": alpha, "gflops_per_view": gflops}
        (tmp_path / f"{alpha}.json").write_text(
            json.dumps({"top1_acc": accuracy, "protocol": {"network": network}})
        )

    results = sorted(tmp_path.glob("*.json"))
    (picture,) = draw(run_tool, tmp_path, "tradeoff", "--results", *results).values()

    assert shows_something(picture)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["octave", "--layer", "res9"], "there is no layer 'res9'"),
        (["octave", "--layer", "res3"], "no octave convolution"),
        (["gradcam", "--class-name", "fly"], "there is no class 'fly'"),
    ],
)
def test_a_mistake_is_one_line(run_tool, tiny_checkpoint, video, tmp_path, arguments, message):
    kind, *rest = arguments

    result = run_tool(
        "visualize",
        kind,
        "--checkpoint",
        tiny_checkpoint,
        "--video",
        video,
        *rest,
        "--output",
        tmp_path,
    )

    assert result.status == 2
    assert message in result.err


def test_the_doctor_names_versions_and_how_to_add_what_is_missing(run_tool):
    result = run_tool("doctor", "env")

    assert result.status == 0
    for part in ("torch", "decord", "av", "CPU", "openvino"):
        assert any(line.startswith(part) for line in result.out.splitlines())
    assert all(
        "pip install" in line or "install" in line
        for line in result.out.splitlines()
        if "missing" in line
    )


def test_the_doctor_names_versions_that_are_known_to_be_wrong(run_tool, monkeypatch):
    monkeypatch.setattr("torch.__version__", "2.8.0+cu128")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91002)

    lines = run_tool("doctor", "env").out.splitlines()

    assert any(line.startswith("known problem 1   wrong: cuDNN 9.8-9.10") for line in lines)


def test_the_doctor_tells_what_a_checkpoint_is(run_tool, tiny_checkpoint):
    result = run_tool("doctor", "checkpoint", tiny_checkpoint)

    assert result.status == 0
    for fact in (
        "i3d_r26",
        "0.25",
        "a, b, c, d, e, ...",
        "num_frames",
        "epoch             3",
        "res3",
    ):
        assert fact in result.out


def test_the_doctor_tells_what_would_not_load(run_tool, tiny_checkpoint, tmp_path):
    cfg = tmp_path / "other.yaml"
    cfg.write_text("MODEL: {ARCH: i3d, NUM_CLASSES: 3}\nRESNET: {DEPTH: 26, WIDTH_PER_GROUP: 32}\n")

    result = run_tool("doctor", "checkpoint", tiny_checkpoint, "--cfg", cfg)

    assert result.status == 2
    assert "does not fit" in result.err


def test_a_picture_that_cannot_be_written_is_named(tiny_checkpoint, video, tmp_path):
    network, gone = octvideo.load(tiny_checkpoint), tmp_path / "gone"
    clips = SimpleNamespace(
        inputs=torch.zeros(1, 3, 2, 32, 32, dtype=torch.uint8),
        targets=torch.tensor([0]),
        paths=["a.mp4"],
    )

    for name, draw_it in (
        ("frequency", lambda: visualize.draw_frequency({"": network}, [video], "res3", gone)),
        ("octave", lambda: visualize.draw_octave(network, video, LAYER, gone)),
        ("gradcam", lambda: visualize.draw_gradcam(network, video, "", gone)),
        ("clips", lambda: visualize.draw_clips(iter([clips]), ["wave"], 1, gone)),
    ):
        with pytest.raises(OutputError, match=rf"gone/{name}.*\.png: cannot be written"):
            draw_it()
