"""Training clips: a function of (seed, epoch, index), from every kind of list, and no file is
replaced in silence."""

import random
from dataclasses import fields

import numpy as np
import pytest
import torch
from coded_videos import numbers, picture, write_clip
from PIL import Image

from octvideo.data import ClipDataset, ClipRule, ClipTransform, DecodeError, Problem, probe
from octvideo.data.lists.video_list import VideoEntry, VideoList, read_list
from octvideo.data.video.index import read_index, write_index
from octvideo.errors import ConfigError, DataError

RULE = ClipRule(4, 3, 25.0, "stride")
WHOLE = ClipTransform(96, (96, 96), train=False)
RANDOM = ClipTransform(64, (64, 80))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six videos with a space in their names, and a list of them."""
    folder = tmp_path_factory.mktemp("videos")
    for k in range(6):
        write_clip(folder / f"clip {k}.mp4", num_frames=20 + k, options={"g": "10"})
    (folder / "train.csv").write_text("".join(f"clip {k}.mp4 {k % 3}\n" for k in range(6)))
    return folder


def clips(folder, transform=RANDOM, **options) -> ClipDataset:
    return ClipDataset(read_list(folder / "train.csv"), rule=RULE, transform=transform, **options)


def test_a_sample_follows_from_seed_epoch_and_index(folder):
    first, again, other = (clips(folder, seed=seed) for seed in (1, 1, 2))

    def pixels(dataset, epoch, index):
        return dataset.sample(epoch, index).input

    assert torch.equal(pixels(first, 3, 2), pixels(again, 3, 2))
    assert not torch.equal(pixels(first, 3, 2), pixels(other, 3, 2))
    assert not torch.equal(pixels(first, 3, 2), pixels(first, 4, 2))


def test_a_sample_is_a_uint8_clip_with_its_label_and_path(folder):
    sample = clips(folder).sample(0, 4)

    assert sample.input.shape == (3, 4, 64, 64)
    assert sample.input.dtype == torch.uint8
    assert (sample.target, sample.index, sample.problems) == (1, 4, ())
    assert sample.path == str(folder / "clip 4.mp4")


def test_without_training_the_clip_is_the_middle_one(folder):
    sample = clips(folder, WHOLE).sample(0, 0)

    middle = sample.input.movedim(0, -1).numpy()
    # 20 frames, 4 at stride 3 cover 10: the 11 starts have 5 in the middle. The crop cuts 16 of 128
    # columns.
    padded = np.pad(middle, ((0, 0), (0, 0), (16, 16), (0, 0)))
    assert [number >> 1 & 31 for number in numbers(padded)] == [
        number >> 1 & 31 for number in (5, 8, 11, 14)
    ]


class AtOnce(ClipTransform):
    """The same change of a whole clip, after all of its frames were read."""

    def crop_for(self, height, width, draw):
        return lambda clip: clip

    def vary(self, clip, draw):
        plain = ClipTransform(**{field.name: getattr(self, field.name) for field in fields(self)})
        return plain(clip, draw)


@pytest.mark.parametrize(
    "options",
    [
        {"crop_size": 64, "jitter_scales": (64, 80)},
        {"crop_size": 81, "jitter_scales": (40, 64), "inverse_uniform": True, "color_jitter": 0.4},
        {"crop_size": 64, "area": (0.08, 1.0), "color_jitter": 0.4},
        {"crop_size": 96, "jitter_scales": (96, 96), "train": False},
    ],
)
def test_cropping_one_by_one_changes_no_pixel(folder, options):
    one_by_one = clips(folder, ClipTransform(**options))
    at_once = clips(folder, AtOnce(**options))

    for epoch in range(4):
        first, second = one_by_one.sample(epoch, epoch), at_once.sample(epoch, epoch)
        assert torch.equal(first.input, second.input)


def test_a_video_that_breaks_off_draws_nothing_for_its_replacement(folder, tmp_path):
    for k in range(4):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.new("RGB", (64 + k, 64)).save(tmp_path / "frames" / f"{k}.png")
    videos = [VideoEntry(str(tmp_path / "frames"), (0,), 4), *read_list(folder / "train.csv")]

    def sample(transform):
        return ClipDataset(videos, rule=RULE, transform=transform).sample(0, 0)

    first, second = sample(RANDOM), sample(AtOnce(64, (64, 80)))

    assert first.problems == second.problems != ()
    assert first.path == second.path
    assert torch.equal(first.input, second.input)


def test_labels_take_the_meaning_of_the_networks_classes(folder):
    several = clips(folder, classes=[5, 3, 4], multilabel_classes=6)

    assert [clips(folder, classes=[5, 3, 4]).sample(0, k).target for k in range(3)] == [5, 3, 4]
    assert several.sample(0, 1).target.tolist() == [0, 0, 0, 1, 0, 0]
    assert several.fingerprint() == clips(folder).fingerprint()


def test_a_label_without_a_name_is_refused_before_a_clip_is_read(folder):
    with pytest.raises(DataError, match=r"train.csv: label 2 has no name"):
        clips(folder, classes=[1, 0])


def test_half_of_the_clips_are_flipped(folder):
    upright = ClipTransform(96, (96, 96), flip=False)
    either = ClipTransform(96, (96, 96))
    flipped = []

    for epoch in range(40):
        plain, sample = (clips(folder, kind).sample(epoch, 0).input for kind in (upright, either))
        flipped.append(not torch.equal(plain, sample))
        assert torch.equal(sample, plain.flip(-1) if flipped[-1] else plain)

    assert 10 < sum(flipped) < 30


@pytest.mark.parametrize("content", [b"", b"text\n" * 100, None])
def test_a_bad_file_is_named_and_replaced_the_same_way_each_time(folder, tmp_path, content):
    bad = tmp_path / "bad.mp4"
    if content is not None:
        bad.write_bytes(content)
    videos = [VideoEntry(str(bad), (7,)), *read_list(folder / "train.csv")]
    dataset = ClipDataset(videos, rule=RULE, transform=WHOLE)

    sample, again = dataset.sample(0, 0), dataset.sample(0, 0)

    assert sample.path != str(bad)
    assert sample.target == next(video.label for video in videos if video.path == sample.path)
    assert [problem.path for problem in sample.problems] == [str(bad)] * len(sample.problems) != []
    assert sample.problems[0].cause
    assert (again.path, again.problems) == (sample.path, sample.problems)
    assert torch.equal(again.input, sample.input)


def test_when_nothing_can_be_read_the_run_stops(tmp_path):
    dataset = ClipDataset(
        [VideoEntry(str(tmp_path / "missing.mp4"), (0,))], rule=RULE, transform=WHOLE
    )

    with pytest.raises(
        DataError, match=r"20 files in a row cannot be read, the last one .*missing\.mp4 \(No such"
    ):
        dataset.sample(0, 0)


@pytest.mark.parametrize("rule", ["pyslowfast", "stride", "segment", "time"])
@pytest.mark.parametrize("size", [1, 33, 224])
def test_odd_crops_and_one_frame_videos_work(tmp_path, rule, size):
    entry = VideoEntry(str(write_clip(tmp_path / "one.mp4", num_frames=1)), (0,))
    transform = ClipTransform(size, (48, 64), color_jitter=0.4, inverse_uniform=True)

    sample = ClipDataset([entry], rule=ClipRule(8, 8, rule=rule), transform=transform).sample(0, 0)

    assert sample.input.shape == (3, 8, size, size)
    assert sample.problems == ()


def test_several_labels_become_multi_hot(folder):
    videos = [
        VideoEntry(str(folder / "clip 0.mp4"), (1, 3)),
        VideoEntry(str(folder / "clip 1.mp4")),
    ]
    dataset = ClipDataset(videos, rule=RULE, transform=WHOLE, multilabel_classes=5)

    assert dataset.sample(0, 0).target.tolist() == [0, 1, 0, 1, 0]
    assert dataset.sample(0, 1).target.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("labels", "found"), [((1, 3), "b.mp4 has 2 labels"), ((), "b.mp4 has no label")]
)
@pytest.mark.parametrize("kind", [list, VideoList])
def test_without_multilabel_classes_each_video_has_one_label(kind, labels, found):
    videos = kind([VideoEntry("/v/a.mp4", (1,)), VideoEntry("/v/b.mp4", labels)])

    with pytest.raises(DataError, match=rf"list: /v/{found}; .*give it one, or multilabel_classes"):
        ClipDataset(videos, rule=RULE, transform=WHOLE)


def test_an_unlabeled_list_has_target_minus_one(folder):
    dataset = ClipDataset([VideoEntry(str(folder / "clip 0.mp4"))], rule=RULE, transform=WHOLE)

    assert dataset.sample(0, 0).target == -1


@pytest.fixture
def frame_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for k in range(12):
        Image.fromarray(picture(k)).save(tmp_path / "frames" / f"img_{k + 1:05}.jpg", quality=95)
    (tmp_path / "train.csv").write_text("frames 12 2\n")
    return tmp_path


def test_a_folder_of_frames_is_a_video(frame_folder):
    videos = read_list(frame_folder / "train.csv", format="frames")
    dataset = ClipDataset(videos, rule=ClipRule(12, 1, rule="stride"), transform=WHOLE)

    sample = dataset.sample(0, 0)

    assert sample.target == 2
    assert sample.input.shape == (3, 12, 96, 96)
    assert (
        sample.input[:, 5].movedim(0, -1).float() - torch.tensor(picture(5)[:, 16:112]).float()
    ).abs().mean() < 10


@pytest.mark.parametrize("spoil", ["missing", "damaged", "size"])
def test_a_folder_with_a_bad_frame_is_a_bad_video(frame_folder, spoil):
    image = frame_folder / "frames" / "img_00004.jpg"
    match spoil:
        case "missing":
            image.unlink()
        case "damaged":
            image.write_bytes(image.read_bytes()[:300])
        case "size":
            Image.new("RGB", (7, 7)).save(image)
    dataset = ClipDataset(
        read_list(frame_folder / "train.csv", format="frames"),
        rule=ClipRule(12, 1, rule="stride"),
        transform=WHOLE,
    )

    with pytest.raises(DataError, match="20 files in a row"):
        dataset.sample(0, 0)


def test_with_an_index_no_file_is_checked(folder, tmp_path, monkeypatch):
    entries = list(read_list(folder / "train.csv"))
    write_index(tmp_path / "index.csv", [(entry.path, probe(entry.path)) for entry in entries])
    without = clips(folder).sample(0, 3)

    monkeypatch.setattr(
        "octvideo.data.video.examine.examine", lambda *_: pytest.fail("it was checked again")
    )
    sample = clips(folder, index=read_index(tmp_path / "index.csv")).sample(0, 3)

    assert torch.equal(sample.input, without.input)


def test_a_picture_that_is_a_line_is_a_bad_file(folder, tmp_path):
    (tmp_path / "line").mkdir()
    Image.new("RGB", (640, 2)).save(tmp_path / "line" / "1.png")
    videos = [VideoEntry(str(tmp_path / "line"), (0,), 1), *read_list(folder / "train.csv")]

    sample = ClipDataset(videos, rule=RULE, transform=WHOLE).sample(0, 0)

    assert sample.problems[0] == Problem(
        str(tmp_path / "line"), "640 x 2 pixels: one side is over 16 times the other"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_size": 0},
        {"jitter_scales": (320, 256)},
        {"jitter_scales": (0, 9)},
        {"color_jitter": 1.0},
    ],
)
def test_a_transform_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError):
        ClipTransform(**{"crop_size": 224, **wrong})


def test_an_empty_list_is_refused():
    with pytest.raises(DataError, match="the list is empty"):
        ClipDataset([], rule=RULE, transform=WHOLE)


def test_a_decode_error_keeps_path_and_cause_apart():
    error = DecodeError("a.mp4", "the file is empty")

    assert (str(error), error.path, error.cause) == (
        "a.mp4: the file is empty",
        "a.mp4",
        "the file is empty",
    )


def test_a_relative_jitter_resizes_a_random_box():
    transform = ClipTransform(32, flip=False, area=(0.2, 0.5), aspect=(0.5, 2.0))
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    clip = torch.stack([rows, columns, rows])[:, None].expand(3, 4, 60, 80).byte()

    boxes = []
    for seed in range(10):
        crop = transform(clip, random.Random(seed))
        assert crop.shape == (3, 4, 32, 32)
        height, width = (int(crop[i].max()) - int(crop[i].min()) + 1 for i in (0, 1))
        boxes.append((height * width / 4800, width / height))

    areas, shapes = zip(*boxes, strict=True)
    assert 0.15 < min(areas) < max(areas) < 0.55
    assert 0.45 < min(shapes) < 1 < max(shapes) < 2.2
