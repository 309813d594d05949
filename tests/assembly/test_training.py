"""A run that is resumed: what it needs, and what may have changed since."""

import numpy as np
import pytest
import torch
from PIL import Image

from octvideo.assembly import build_model, train
from octvideo.assembly.identity import RunIdentity
from octvideo.assembly.probe import probe
from octvideo.assembly.tasks import task_of
from octvideo.assembly.training import describe
from octvideo.config import load_config
from octvideo.data.video.encode import write_video
from octvideo.engine.distributed import Processes
from octvideo.errors import CheckpointError, ConfigError

IMAGES = """
TRAIN: {DATASET: imagenet, BATCH_SIZE: 2, CHECKPOINT_PERIOD: 1, EVAL_PERIOD: 1}
TEST: {DATASET: imagenet, BATCH_SIZE: 3}
DATA: {TRAIN_CROP_SIZE: 32, TEST_CROP_SIZE: 32, TRAIN_JITTER_SCALES: [36, 36]}
MODEL: {ARCH: resnet20_cifar, NUM_CLASSES: 2, DROPOUT_RATE: 0}
SOLVER: {MAX_EPOCH: 2, BASE_LR: 0.01}
DATA_LOADER: {NUM_WORKERS: 0}
TENSORBOARD: {ENABLE: false}
"""


pytestmark = pytest.mark.usefixtures("one_thread_per_run")


@pytest.fixture
def settings(tmp_path):
    """settings("KEY=VALUE", ...): a run of two classes of two images each."""
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(2):
                picture = Image.new("RGB", (40, 36), (90 * i, 40 * k, 7))
                picture.save(tmp_path / "data" / split / name / f"{k}.png")
    (tmp_path / "mine.yaml").write_text(IMAGES)
    folders = [f"DATA.PATH_TO_DATA_DIR={tmp_path / 'data'}", f"OUTPUT_DIR={tmp_path / 'run'}"]
    return lambda *more: load_config(str(tmp_path / "mine.yaml"), [*folders, *more])


def same(one, other):
    """Whether nested plain values are equal, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def test_a_run_goes_on_without_the_weights_that_it_started_from(settings, tmp_path):
    start, newest = (
        tmp_path / "start.pyth",
        tmp_path / "run/checkpoints/checkpoint_epoch_00002.pyth",
    )
    cfg = settings(f"TRAIN.CHECKPOINT_FILE_PATH={start}")
    torch.save({"model_state": build_model(cfg).state_dict()}, start)
    train(cfg, Processes())
    whole = torch.load(newest)
    newest.unlink()
    start.unlink()

    assert train(cfg, Processes()).finished

    again = torch.load(newest)
    for key in ("model_state", "optimizer_state", "meta", "cfg", "data", "validation", "progress"):
        assert same(again[key], whole[key]), key


def test_a_run_does_not_begin_without_the_weights_that_it_starts_from(settings, tmp_path):
    with pytest.raises(CheckpointError, match=r"start\.pyth: there is no such file"):
        train(settings(f"TRAIN.CHECKPOINT_FILE_PATH={tmp_path / 'start.pyth'}"), Processes())

    assert not (tmp_path / "run" / "checkpoints").exists()


def test_values_of_two_crops_of_the_validation_are_not_compared(settings, tmp_path):
    train(settings("SOLVER.MAX_EPOCH=1"), Processes())

    train(settings("DATA.TEST_CROP_SIZE=36"), Processes())

    said = "another validation from here on (DATA.TEST_CROP_SIZE 36 instead of 32)"
    assert said in (tmp_path / "run" / "stdout.log").read_text()
    assert torch.load(tmp_path / "run/checkpoints/best.pyth")["epoch"] == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            "jump\nclap\nwave\n",
            "class_names.txt beside the list makes label 0 'jump' instead of 'clap'",
        ),
        ("clap\njump\nwave\n", ""),
        (None, "class_names.txt beside the list makes label 0 'wave' instead of 'clap'"),
    ],
)
def test_names_beside_the_list_that_number_its_labels_anew_are_another_run(tmp_path, names, said):
    data = tmp_path / "data"
    write_video(data / "a.mp4", np.zeros((12, 40, 48, 3), np.uint8), 30)
    (data / "train.csv").write_text("a.mp4 0\na.mp4 1\na.mp4 2\n")
    (data / "class_names.txt").write_text("clap\njump\nwave\n")
    (tmp_path / "names.txt").write_text("wave\nclap\njump\n")
    (tmp_path / "mine.yaml").write_text("MODEL: {ARCH: i3d, NUM_CLASSES: 3}\n")
    cfg = load_config(
        str(tmp_path / "mine.yaml"),
        [
            f"DATA.PATH_TO_DATA_DIR={data}",
            f"TENSORBOARD.CLASS_NAMES_PATH={tmp_path / 'names.txt'}",
            f"OUTPUT_DIR={tmp_path / 'run'}",
        ],
    )
    model = torch.nn.Identity()
    model.config = {"name": "i3d"}
    saved = describe(cfg, model, task_of(cfg).train_dataset())
    if names is None:
        (data / "class_names.txt").unlink()
    else:
        (data / "class_names.txt").write_text(names)
    run = RunIdentity(cfg, describe(cfg, model, task_of(cfg).train_dataset()))

    if said:
        with pytest.raises(CheckpointError) as refused:
            run.differences(saved)
        assert said in str(refused.value)
    else:
        assert run.differences(saved) == []


def test_a_probe_refuses_weights_of_classes_which_it_would_not_use(settings):
    with pytest.raises(ConfigError, match=r"CLASS_WEIGHTS is \[1.0, 3.0\]; in a probe all videos"):
        probe(settings("MODEL.CLASS_WEIGHTS=[1,3]"), Processes())


def test_a_probe_of_a_network_without_its_classifier_is_one_line(tmp_path):
    write_video(tmp_path / "a.mp4", np.zeros((8, 40, 48, 3), np.uint8), 30)
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text("a.mp4 0\na.mp4 1\n")
    (tmp_path / "mine.yaml").write_text("MODEL: {ARCH: x3d_xs, NUM_CLASSES: 2}\n")
    folders = [f"DATA.PATH_TO_DATA_DIR={tmp_path}", f"OUTPUT_DIR={tmp_path / 'run'}"]

    with pytest.raises(ConfigError, match=r"x3d_xs: a probe trains a layer head\.fc"):
        probe(load_config(str(tmp_path / "mine.yaml"), folders), Processes())
