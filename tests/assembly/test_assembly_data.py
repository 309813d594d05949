"""How many classes there are, when the settings leave it to the data."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tars import tar_of

from octvideo.assembly.data import (
    final_list_path,
    list_path,
    open_labeled_list,
    open_list,
    require_videos,
)
from octvideo.assembly.estimate import clip_macs
from octvideo.assembly.model import build_model
from octvideo.assembly.tasks import TASKS, task_of, with_counted_classes
from octvideo.complexity import count
from octvideo.config import load_config
from octvideo.config.defaults import CHOICES
from octvideo.data.shards.shard_set import ShardSet
from octvideo.data.shards.writer import ReadyVideo, ShardWriter
from octvideo.data.video.encode import write_video
from octvideo.errors import ConfigError, DataError


@pytest.fixture
def settings(tmp_path):
    """settings("KEY=VALUE", ...): a config whose data is in tmp_path / data."""

    def load(*overrides):
        (tmp_path / "mine.yaml").write_text(
            f"MODEL: {{ARCH: i3d}}\nDATA: {{PATH_TO_DATA_DIR: {tmp_path / 'data'}}}\n"
        )
        return load_config(str(tmp_path / "mine.yaml"), overrides)

    (tmp_path / "data").mkdir()
    return load


def test_no_number_of_classes_means_those_of_the_data(settings, tmp_path):
    (tmp_path / "data" / "class_names.txt").write_text("clap\njump\nwave\n")

    cfg = with_counted_classes(settings("MODEL.NUM_CLASSES=0"))

    assert cfg.MODEL.NUM_CLASSES == 3


def test_a_file_of_names_counts_before_the_data(settings, tmp_path):
    (tmp_path / "names.txt").write_text("clap\njump\n")

    cfg = with_counted_classes(
        settings("MODEL.NUM_CLASSES=0", f"TENSORBOARD.CLASS_NAMES_PATH={tmp_path / 'names.txt'}")
    )

    assert cfg.MODEL.NUM_CLASSES == 2


def test_a_number_of_classes_stays(settings):
    assert with_counted_classes(settings("MODEL.NUM_CLASSES=7")).MODEL.NUM_CLASSES == 7


def test_nothing_to_count_is_one_line_with_the_next_step(settings):
    with pytest.raises(
        ConfigError,
        match=r"data: no class_names.txt .*`octvideo lists`, or set MODEL.NUM_CLASSES",
    ):
        with_counted_classes(settings("MODEL.NUM_CLASSES=0"))


def test_the_input_is_a_clip_or_an_image(settings):
    clips = task_of(settings("DATA.NUM_FRAMES=4", "DATA.TRAIN_CROP_SIZE=64"))
    images = task_of(
        settings("TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "MODEL.ARCH=resnet50")
    )

    assert (clips.input_shape(), clips.input_shape(32)) == ((3, 4, 64, 64), (3, 4, 32, 32))
    assert images.input_shape() == (3, 224, 224)


@pytest.mark.parametrize("name", CHOICES["TRAIN.DATASET"])
def test_every_dataset_has_a_task(name, settings):
    task = task_of(settings(f"TRAIN.DATASET={name}", f"TEST.DATASET={name}"))

    assert isinstance(task, TASKS[name])
    assert TASKS.keys() == set(CHOICES["TRAIN.DATASET"])


def test_images_are_tested_in_the_first_of_their_crops_clips_in_their_only_one(settings):
    sizes = ["DATA.TEST_CROP_SIZE=32", "TEST.IMAGE_CROP_SIZES=[64,96]"]
    clips = settings(*sizes, "DATA.NUM_FRAMES=4")
    images = settings(
        *sizes, "TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "MODEL.ARCH=resnet18"
    )

    assert task_of(clips).tested_shape() == (3, 4, 32, 32)
    assert task_of(images).tested_shape() == (3, 64, 64)
    with torch.device("meta"):
        model = build_model(images)
    assert clip_macs(images)[1] == count(model, (3, 64, 64)).macs


def test_names_of_earlier_versions_are_understood(settings):
    assert settings("TRAIN.DATASET=kinetics").TRAIN.DATASET == "video"
    assert settings("DATA.LIST_FORMAT=unlabelled").DATA.LIST_FORMAT == "unlabeled"


def test_a_validation_list_without_labels_is_refused_before_training_starts(settings, tmp_path):
    (tmp_path / "data" / "val.csv").write_text("/v/a.mp4\n/v/b.mp4\n")
    cfg = settings("DATA.LIST_FORMAT=unlabelled")

    with pytest.raises(
        DataError, match=r"val.csv: an unlabeled list can be tested, not trained or"
    ):
        open_labeled_list(cfg, list_path(cfg, "val"))


def test_lists_of_videos_that_are_not_there_are_refused_before_training_starts(settings, tmp_path):
    folder, videos = tmp_path / "data", tmp_path / "videos"
    lines = [f"{i:03}.mp4 0\n" for i in range(200)]
    (folder / "train.csv").write_text("".join(lines))
    (folder / "val.csv").write_text(f"{'long' * 99}.mp4 0\n")
    cfg = settings(f"DATA.PATH_PREFIX={videos}")

    with pytest.raises(DataError, match=r"train.csv: .*000\.mp4 \(there is no folder .*/videos"):
        require_videos(cfg)

    videos.mkdir()
    for line in lines[100:]:  # those of the first classes are not there yet
        (videos / line.split()[0]).touch()
    with pytest.raises(DataError, match=r"val.csv: .*PATH_PREFIX"):
        require_videos(cfg)

    (folder / "val.csv").write_text("".join(lines))
    require_videos(cfg)


def test_lists_can_be_compared_where_their_videos_are_not(settings, tmp_path):
    (tmp_path / "data" / "val.csv").write_text("a.mp4 0\nb.mp4 1\n")
    cfg = settings(f"DATA.PATH_PREFIX={tmp_path / 'elsewhere'}")

    assert len(open_labeled_list(cfg, list_path(cfg, "val"))) == 2


def test_calibration_takes_turns_of_training_and_validation_videos(settings, tmp_path):
    for name, gray in (("a.mp4", 100), ("b.mp4", 100), ("c.mp4", 200), ("d.mp4", 200)):
        write_video(tmp_path / "data" / name, np.full((12, 40, 48, 3), gray, np.uint8), 30)
    (tmp_path / "data" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "data" / "train.csv").write_text("a.mp4 0\nbroken.mp4 0\nb.mp4 1\n")
    (tmp_path / "data" / "val.csv").write_text("c.mp4 0\nd.mp4 0\n")
    clip = ["DATA.NUM_FRAMES=4", "DATA.SAMPLING_RATE=2", "DATA_LOADER.NUM_WORKERS=0"]
    sizes = [
        "DATA.TRAIN_CROP_SIZE=32",
        "DATA.TRAIN_JITTER_SCALES=[32,40]",
        "DATA.TEST_CROP_SIZE=32",
    ]
    prefix = f"DATA.PATH_PREFIX={tmp_path / 'data'}"

    clips = task_of(settings("MODEL.NUM_CLASSES=2", *clip, *sizes, prefix)).calibration()

    assert clips.shape == (4, 3, 4, 32, 32)
    assert clips[::2].std() < 0.1
    assert clips[1::2].mean() > clips[::2].mean() + 1  # brighter pictures


@pytest.fixture
def named_otherwise(tmp_path):
    """The setting of a file with the classes of the data in another order."""
    (tmp_path / "names.txt").write_text("wave\nclap\njump\n")
    return [f"TENSORBOARD.CLASS_NAMES_PATH={tmp_path / 'names.txt'}", "MODEL.NUM_CLASSES=3"]


def test_training_and_validation_number_the_classes_alike(settings, tmp_path, named_otherwise):
    data = tmp_path / "data"
    (data / "class_names.txt").write_text("clap\njump\nwave\n")
    for name in "abc":
        write_video(data / f"{name}.mp4", np.zeros((12, 40, 48, 3), np.uint8), 30)
    for split in ("train", "val"):
        (data / f"{split}.csv").write_text("a.mp4 0\nb.mp4 1\nc.mp4 2\n")
    task = task_of(settings(*named_otherwise, "DATA.NUM_FRAMES=4"))

    train, val = task.train_dataset(), task.validation()

    assert [train.sample(0, i).target for i in range(3)] == [1, 2, 0]
    assert val.labels == [(1,), (2,), (0,)]


def test_images_of_training_and_validation_are_numbered_alike(settings, tmp_path, named_otherwise):
    for split in ("train", "val"):
        for name in ("clap", "jump", "wave"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / "data" / split / name / "0.png")
    network = ["TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "MODEL.ARCH=resnet50"]
    task = task_of(settings(*network, *named_otherwise))

    train, val = task.train_dataset(), task.validation()

    assert [train.sample(0, i).target for i in range(3)] == [1, 2, 0]
    assert val.labels == [(1,), (2,), (0,)]


def test_images_are_not_calibrated_on(settings):
    images = task_of(
        settings("TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "MODEL.ARCH=resnet50")
    )

    with pytest.raises(ConfigError, match="int8 is calibrated on videos; take bf16 for images"):
        images.calibration()


@pytest.mark.parametrize(("there", "expected"), [(["test", "val"], "test"), (["val"], "val")])
def test_a_test_list_on_a_server_is_found(settings, monkeypatch, there, expected):
    lists = [f"http://127.0.0.1:9/data/{name}.csv" for name in there]
    monkeypatch.setattr("octvideo.assembly.data.exists", lambda path: path in lists)

    path = final_list_path(settings("DATA.PATH_TO_DATA_DIR=http://127.0.0.1:9/data"))

    assert path == f"http://127.0.0.1:9/data/{expected}.csv"


@pytest.mark.parametrize(
    ("text", "format"),
    [("a.mp4 2\n", "video"), ("path,label\na.mp4,2\n", "video"), ("a 8 2\n", "frames")],
)
def test_multi_label_is_a_matter_of_the_settings_not_of_the_columns(
    settings, tmp_path, text, format
):
    (tmp_path / "data" / "val.csv").write_text(text)
    words = ["DATA.MULTI_LABEL=True", "MODEL.LOSS_FUNC=bce_logit", f"DATA.LIST_FORMAT={format}"]
    cfg = settings(*words)

    videos = open_list(cfg, list_path(cfg, "val"))

    assert (videos.format, videos[0].labels) == ("multilabel", (2,))
    assert open_list(settings(words[2]), list_path(cfg, "val")).format == format


WITHOUT_MULTI_LABEL = r"without DATA\.MULTI_LABEL each video has one.*MODEL\.LOSS_FUNC bce_logit"


@pytest.mark.parametrize("format", ["video", "multilabel"])
@pytest.mark.parametrize(
    ("labels", "found"), [(['"0,2"', "1"], "/v/0.mp4 has 2 labels"), (["1", ""], "1.mp4 has no")]
)
def test_several_labels_are_refused_where_each_video_has_one(
    settings, tmp_path, format, labels, found
):
    lines = [f"/v/{i}.mp4,{label}\n" for i, label in enumerate(labels)]
    (tmp_path / "data" / "val.csv").write_text("".join(["path,labels\n", *lines]))
    cfg = settings(f"DATA.LIST_FORMAT={format}")

    with pytest.raises(DataError, match=rf"val\.csv: .*{found}.*{WITHOUT_MULTI_LABEL}"):
        open_list(cfg, list_path(cfg, "val"))


def test_a_list_of_one_label_each_is_one_of_labels(settings, tmp_path):
    (tmp_path / "data" / "val.csv").write_text("/v/a.mp4 2\n/v/b.mp4 0\n")
    cfg = settings("DATA.LIST_FORMAT=multilabel")

    assert not task_of(cfg).validation().multi_label


def test_a_list_of_no_labels_at_all_can_be_tested(settings, tmp_path):
    (tmp_path / "data" / "val.csv").write_text("path,labels\n/v/a.mp4,\n")
    cfg = settings()

    assert open_list(cfg, list_path(cfg, "val")).format == "unlabeled"
    with pytest.raises(DataError, match="an unlabeled list can be tested"):
        open_labeled_list(cfg, list_path(cfg, "val"))


def test_shards_of_several_labels_are_refused_where_each_video_has_one(settings, tmp_path):
    (folder := tmp_path / "data" / "val").mkdir()
    shards = ShardSet(str(folder), format="multilabel", fingerprint="of a list")
    with ShardWriter(shards, "val", 10**6) as writer:
        writer.add("a.mp4", (0, 2), ReadyVideo(cause="gone"))
    cfg = settings("DATA.LIST_FORMAT=shards")

    with pytest.raises(DataError, match=f"a.mp4 has 2 labels.*{WITHOUT_MULTI_LABEL}"):
        open_list(cfg, list_path(cfg, "val"))


@pytest.mark.parametrize(
    ("labels", "found"), [([2], "b.mp4 has no label"), ([0, 2], "a.mp4 has 2 labels")]
)
def test_shards_of_others_that_are_not_labeled_throughout_name_the_setting(
    settings, tmp_path, labels, found
):
    (tmp_path / "data" / "val").mkdir()
    files = {"a.mp4": b"1", "a.json": json.dumps({"labels": labels}).encode(), "b.mp4": b"1"}
    (tmp_path / "data" / "val" / "0.tar").write_bytes(tar_of(files))
    cfg = settings("DATA.LIST_FORMAT=shards")
    path = list_path(cfg, "val")

    with pytest.raises(DataError, match=f"{found}; {WITHOUT_MULTI_LABEL}"):
        open_labeled_list(cfg, path)
    several = settings(
        "DATA.LIST_FORMAT=shards", "DATA.MULTI_LABEL=True", "MODEL.LOSS_FUNC=bce_logit"
    )
    assert open_labeled_list(several, path).format == "multilabel"
