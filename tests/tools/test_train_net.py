"""tools/train_net.py as a user calls it, on clips of its own; and what it says to every mistake."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from small_run import SETTINGS

from octvideo.data.video.encode import write_video

pytestmark = pytest.mark.usefixtures("one_thread_per_run")


@pytest.fixture
def data(tmp_path):
    """Four clips, two classes, one of them with spaces in its path."""
    names = ["a.mp4", "b.mp4", "a name with spaces.mp4", "d.mp4"]
    for i, name in enumerate(names):
        frames = np.random.default_rng(i).integers(0, 255, (10, 40, 48, 3), np.uint8)
        write_video(tmp_path / "data" / name, frames)
    lines = "".join(f"{name} {i % 2}\n" for i, name in enumerate(names))
    for split in ("train", "val", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text(lines)
    return tmp_path / "data"


@pytest.fixture
def train(run_tool, data, tmp_path):
    """train(*settings) runs the tool on a small config."""
    (tmp_path / "mine.yaml").write_text(SETTINGS + f"OUTPUT_DIR: {tmp_path / 'run'}\n")

    def train(*settings):
        return run_tool(
            "train_net", "--cfg", tmp_path / "mine.yaml", f"DATA.PATH_TO_DATA_DIR={data}", *settings
        )

    return train


def error_of(result):
    """The one line that a mistake gets."""
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.status == 2
    assert len(lines) == 1
    assert "Traceback" not in result.err
    return lines[0]


def test_it_trains_tests_and_says_where_everything_is(train, tmp_path):
    result = train("OCTCONV.ALPHA", 0.5, "LOG_MODEL_INFO", "true")

    run = tmp_path / "run"
    assert result.status == 0, result.err
    assert (
        "recipe: batch 2 (1 process x 2), lr 0.01 cosine, 1 epochs x 2 iterations (2), no warm-up"
        in result.out
    )
    assert json.loads(result.out.splitlines()[-1])["split"] == "test_final"
    files = {
        "metrics.jsonl",
        "timing.jsonl",
        "predictions.csv",
        "results.json",
        "scores.npz",
        "report.html",
    }
    assert files <= {path.name for path in run.iterdir()}
    assert (run / "checkpoints" / "checkpoint_epoch_00001.pyth").is_file()
    assert (run / "checkpoints" / "best.pyth").is_file()
    assert "a name with spaces.mp4" in (run / "predictions.csv").read_text()
    assert list(json.loads((run / "results.json").read_text())["views"]) == ["1x1", "2x1"]


def test_the_same_command_goes_on_from_the_newest_checkpoint(train, tmp_path):
    train("TEST.ENABLE", "false")
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()

    again = train("TEST.ENABLE", "false")

    assert "resumed from" in again.out
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics


def test_odd_crop_sizes_train_and_test(train):
    result = train(
        "OCTCONV.ALPHA=0.5",
        "DATA.TRAIN_CROP_SIZE=37",
        "DATA.TEST_CROP_SIZE=45",
        "DATA.TRAIN_JITTER_SCALES=[45,53]",
    )

    assert result.status == 0, result.err


def test_unreadable_videos_are_counted_named_and_replaced(train, data):
    (data / "zero.mp4").write_bytes(b"")
    (data / "text.mp4").write_text("this is no video")
    (data / "torn.mp4").write_bytes((data / "a.mp4").read_bytes()[:200])
    write_video(data / "single.mp4", np.zeros((1, 40, 48, 3), np.uint8))
    for split in ("train", "val", "test"):
        with (data / f"{split}.csv").open("a") as file:
            file.write("zero.mp4 0\ntext.mp4 1\ntorn.mp4 0\nsingle.mp4 1\n")

    result = train("DATA.MAX_BAD_RATIO=0.5")

    assert result.status == 0, result.err
    for name in ("zero.mp4", "text.mp4", "torn.mp4"):
        assert f"{name}: could not be read (" in result.out
    assert "single.mp4: could not be read" not in result.out
    assert "8 videos, 3 of them unreadable (counted as wrong)" in result.out


def test_too_many_unreadable_videos_stop_the_run(train, data):
    (data / "a.mp4").write_bytes(b"")

    message = error_of(train())

    assert "1 of 4 files cannot be read" in message
    assert str(data / "a.mp4") in message
    assert "DATA.MAX_BAD_RATIO" in message


def test_a_folder_that_is_not_there_is_named_before_what_should_be_in_it(train, tmp_path):
    message = error_of(train(f"DATA.PATH_TO_DATA_DIR={tmp_path / 'none' / 'data'}"))

    assert message.startswith(
        f"error: {tmp_path / 'none' / 'data'}: there is no folder {tmp_path / 'none'}"
    )
    assert "DATA.PATH_TO_DATA_DIR" in message


def test_a_missing_list_says_which_and_how_to_make_it(train, data):
    (data / "train.csv").unlink()

    message = error_of(train())

    assert message.startswith(f"error: {data / 'train.csv'}: there is no such list")
    assert "`octvideo lists`" in message


@pytest.mark.parametrize(
    ("lines", "expected"),
    [("", "the list is empty"), ("a.mp4 0\nb.mp4 2\n", "train.csv:2: label 2 is outside 0..1")],
    ids=["empty", "label"],
)
def test_a_list_that_cannot_be_used_is_named(train, data, lines, expected):
    (data / "train.csv").write_text(lines)

    assert expected in error_of(train())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["OCTCONV.ALPHA=1"], "OCTCONV.ALPHA is 1; it lies in [0, 1)"),
        (
            ["OCTCONV.ALFA=0.1"],
            "command line: there is no setting OCTCONV.ALFA; did you mean OCTCONV.ALPHA?",
        ),
        (["TRAIN.BATCH_SIZE=16"], "4 samples do not fill one batch of 16"),
        (["TRAIN.CHECKPOINT_FILE_PATH=absent.pyth"], "absent.pyth: there is no such file"),
    ],
    ids=["alpha", "typo", "batch", "weights"],
)
def test_a_setting_that_cannot_work_is_one_line(train, settings, expected):
    assert expected in error_of(train(*settings))


def test_an_output_folder_that_cannot_be_written_is_one_line(train, tmp_path):
    (tmp_path / "occupied").write_text("a file")

    message = error_of(train(f"OUTPUT_DIR={tmp_path / 'occupied'}"))

    assert "occupied: cannot be written to" in message
    assert "choose another OUTPUT_DIR" in message


def test_a_dry_run_needs_no_data_and_leaves_nothing(train, data, tmp_path):
    result = train(
        "--dry-run",
        "DATA.PATH_TO_DATA_DIR=nowhere",
        "SOLVER.ACCUM_STEPS=2",
        "BN.USE_PRECISE_STATS=true",
    )

    assert result.status == 0, result.err
    assert "dry run: two training and two evaluation steps went through" in result.out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_trains_and_tests_on_two_processes(train, data, tmp_path, repo):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    settings = [
        f"DATA.PATH_TO_DATA_DIR={data}",
        "BN.NORM_TYPE=sync_batchnorm",
        "DATA_LOADER.NUM_WORKERS=1",
    ]
    tool = [repo / "tools" / "train_net.py", "--cfg", tmp_path / "mine.yaml"]

    result = subprocess.run(
        [*map(str, command + tool), *settings],
        env=os.environ | {"PYTHONWARNINGS": "error::FutureWarning,error::UserWarning"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert "recipe: batch 2 (2 processes x 1)" in result.stdout
    assert len((tmp_path / "run" / "predictions.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.slow
def test_real_people_train_and_test_through_the_same_tools(train, run_tool, shared, tmp_path):
    source = shared / "data" / "ut_interaction"
    (tmp_path / "people").mkdir()
    for split, step in (("train", 8), ("test", 8)):
        lines = (source / f"{split}.csv").read_text().splitlines()[::step]
        for name in ("train",) if split == "train" else ("val", "test"):
            (tmp_path / "people" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    people = [
        f"DATA.PATH_TO_DATA_DIR={tmp_path / 'people'}",
        f"DATA.PATH_PREFIX={source}",
        "MODEL.NUM_CLASSES=6",
    ]

    trained = train(*people, "OCTCONV.ALPHA=0.5", "TEST.ENABLE=false")
    tested = run_tool("test_net", "--cfg", tmp_path / "mine.yaml", *people, "OCTCONV.ALPHA=0.5")

    assert trained.status == 0, trained.err
    assert "could not be read" not in trained.out
    assert tested.status == 0, tested.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["num_unread"] == 0


@pytest.mark.parametrize(
    ("config", "what", "remedy"),
    [
        (
            "kinetics400/oct_i3d",
            "data/kinetics400: there is no folder data",
            "`octvideo lists ... --out data/kinetics400` makes it from videos (--help shows how)",
        ),
        ("demo/oct_i3d", "demo_data: there is no such folder", "`octvideo demo-data` writes it"),
        ("imagenet/resnet50", "data/imagenet: there is no folder data", "put train/<class>/"),
        ("cifar10/resnet20", "data/cifar10: there is no folder data", "put data_batch_1"),
    ],
)
def test_data_that_are_not_there_come_with_the_way_to_make_them(
    run_tool, tmp_path, monkeypatch, repo, config, what, remedy
):
    monkeypatch.chdir(tmp_path)

    result = run_tool("train_net", "--cfg", repo / "configs" / f"{config}.yaml")

    assert error_of(result).startswith(f"error: {what}; {remedy}")
    assert error_of(result).endswith(", or set DATA.PATH_TO_DATA_DIR")


def test_a_config_that_names_no_data_says_so(run_tool, tmp_path, monkeypatch, repo):
    monkeypatch.chdir(tmp_path)

    result = run_tool("train_net", "--cfg", repo / "configs" / "finetune" / "i3d.yaml")

    assert error_of(result).startswith("error: DATA.PATH_TO_DATA_DIR is not set; name a folder")
