"""Images: what a sample is, what it varies with, and that a hostile batch runs nothing."""

import io
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from octvideo.data.images.cifar10 import read_batch
from octvideo.data.images.dataset import ImageDataset, ImageFolder, image_class_names, open_images
from octvideo.data.images.transforms import (
    PCA_DIRECTIONS,
    PCA_STD,
    CenterCrop,
    PaddedCrop,
    RandomResizedCrop,
    vary,
)
from octvideo.data.reading import DecodeError
from octvideo.data.transforms import random_box
from octvideo.errors import ConfigError, DataError


def paint(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three pictures each, for train and val."""
    for split in ("train", "val"):
        for label, name in enumerate(("ant", "bee")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                paint(10 * label + i).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def batch_bytes(count: int, protocol: int = 2, **changes: object) -> bytes:
    data = np.arange(count * 3072, dtype=np.uint32).reshape(count, 3072).astype(np.uint8)
    return pickle.dumps(
        {b"data": data, b"labels": [i % 10 for i in range(count)], **changes}, protocol
    )


def write_cifar(folder: Path, count: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / name).write_bytes(batch_bytes(count))
    return folder


def test_a_folder_numbers_its_classes_by_name_and_finds_every_picture(folder: Path) -> None:
    source = ImageFolder(folder / "train")

    assert source.class_names == ("ant", "bee")
    assert [source.entry(i)[1] for i in range(len(source))] == [0, 0, 0, 1, 1, 1]
    assert source.entry(3)[0] == str(folder / "train" / "bee" / "0.png")
    np.testing.assert_array_equal(np.asarray(source.read(4)), np.asarray(paint(11)))


def test_class_names_need_no_look_at_the_pictures(folder: Path, tmp_path: Path) -> None:
    assert image_class_names(folder) == ("ant", "bee")
    assert image_class_names(write_cifar(tmp_path / "cifar"))[0] == "airplane"
    assert image_class_names(tmp_path / "nowhere") == ()


def test_a_sample_depends_on_seed_epoch_and_index_alone(folder: Path) -> None:
    def dataset(seed: int) -> ImageDataset:
        return ImageDataset(ImageFolder(folder / "train"), RandomResizedCrop(32), seed=seed)

    first, again = dataset(1).sample(2, 3), dataset(1).sample(2, 3)

    assert first.input.shape == (3, 32, 32)
    assert first.input.dtype == torch.uint8
    assert (first.target, first.index) == (1, 3)
    assert torch.equal(first.input, again.input)
    assert not torch.equal(first.input, dataset(1).sample(3, 3).input)
    assert not torch.equal(first.input, dataset(2).sample(2, 3).input)


def test_a_picture_that_cannot_be_read_is_replaced_and_named(folder: Path) -> None:
    bad = folder / "train" / "ant" / "1.png"
    bad.write_bytes(bad.read_bytes()[:60])

    sample = ImageDataset(ImageFolder(folder / "train"), CenterCrop(32, 32)).sample(0, 1)

    assert sample.index == 1
    assert sample.path != str(bad)
    assert [problem.path for problem in sample.problems] == [str(bad)]


def test_a_folder_without_a_readable_picture_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    (tmp_path / "train" / "ant" / "a.jpg").write_bytes(b"no picture")

    with pytest.raises(DataError, match="20 files in a row"):
        ImageDataset(ImageFolder(tmp_path / "train"), CenterCrop(32, 32)).sample(0, 0)


def test_what_a_data_folder_lacks_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"DATA\.PATH_TO_DATA_DIR"):
        open_images(tmp_path / "nowhere", "train", 2)
    with pytest.raises(DataError, match=r"2 classes, but MODEL.NUM_CLASSES is 1"):
        open_images(folder, "train", 1)
    with pytest.raises(DataError, match="no pictures"):
        ImageFolder(folder / "train" / "ant")


def test_center_crop_is_the_middle_after_the_short_side_is_resized() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (48, 64, 3))

    crop = CenterCrop(32, 48)(Image.fromarray(np.ascontiguousarray(ramp)))

    assert crop[0, 0].tolist() == list(range(16, 48))


def test_a_crop_larger_than_the_short_side_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        CenterCrop(224, 200)


@pytest.mark.parametrize("size", [(500, 375), (20, 400), (1, 1), (400, 20)])
def test_random_boxes_stay_inside_the_picture_and_in_shape(size: tuple[int, int]) -> None:
    draw = random.Random(0)

    for _ in range(200):
        left, top, right, bottom = random_box(*size, (0.08, 1.0), (3 / 4, 4 / 3), draw)

        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        if min(size) > 10:
            assert 0.7 < (right - left) / (bottom - top) < 1.4


def test_padded_crops_reach_every_place_and_nothing_else() -> None:
    image = paint(0, (32, 32))
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0))).transpose(2, 0, 1)
    windows = {padded[:, y : y + 32, x : x + 32].tobytes() for y in range(9) for x in range(9)}
    draw = random.Random(0)

    crops = [PaddedCrop(flip=False)(image, draw).numpy().tobytes() for _ in range(60)]

    assert set(crops) <= windows
    assert len(set(crops)) > 20


def test_noise_follows_the_principal_components_of_color() -> None:
    gray, draw = torch.full((3, 1, 1), 128, dtype=torch.uint8), random.Random(0)

    shifts = torch.stack([vary(gray, draw, False, 0.0, 0.5)[:, 0, 0] - 128.0 for _ in range(300)])

    torch.testing.assert_close((shifts @ PCA_DIRECTIONS).std(0), 0.5 * PCA_STD, rtol=0.2, atol=0.1)


def test_colors_and_side_vary_where_they_are_asked_to() -> None:
    crop = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)

    assert torch.equal(vary(crop, random.Random(0), False, 0.0, 0.0), crop)
    assert {torch.equal(vary(crop, random.Random(i), True, 0.0, 0.0), crop) for i in range(20)} == {
        True,
        False,
    }
    assert not torch.equal(vary(crop, random.Random(0), False, 0.4, 0.0), crop)


def test_cifar_batches_are_read_as_pictures_with_labels(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py")

    train, val = (open_images(tmp_path, split, 10) for split in ("train", "val"))

    assert (len(train), len(val)) == (20, 4)
    assert train.class_names[3] == "cat"
    assert train.entry(6)[1] == 2
    planes = np.arange(3072, dtype=np.uint32).astype(np.uint8).reshape(3, 32, 32)
    np.testing.assert_array_equal(np.asarray(val.read(0)).transpose(2, 0, 1), planes)


def test_batches_of_any_pickle_protocol_are_read(tmp_path: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL):
        write_cifar(tmp_path)
        (tmp_path / "test_batch").write_bytes(batch_bytes(3, protocol))

        assert len(open_images(tmp_path, "val", 10)) == 3


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)  # type: ignore[return-value]


def huge_memo() -> bytes:
    return b"\x80\x02}r" + (1 << 31).to_bytes(4, "little") + b"."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (batch_bytes(2)[:500], "damaged, or no pickle of arrays"),
        (b"", "damaged, or no pickle of arrays"),
        (pickle.dumps([1, 2], 2), "holds a list"),
        (batch_bytes(2, **{"x": object()}), "refused, it is no pickle of arrays"),
        (pickle.dumps({b"data": 1, b"labels": []}, 2), "lacks an array"),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [1]}, 2), "float64 for 1 labels"),
        (
            pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, 2),
            "label outside",
        ),
        (
            pickle.dumps({b"data": np.zeros((1, 300), np.uint8), b"labels": [1]}, 2),
            "not .labels, 3072. uint8",
        ),
        (huge_memo(), "lacks an array"),
    ],
)
def test_a_damaged_or_foreign_batch_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    write_cifar(tmp_path)
    (tmp_path / "test_batch").write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        open_images(tmp_path, "val", 10)

    assert "\n" not in str(caught.value)


def test_a_hostile_batch_runs_nothing(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    target = tmp_path / "touched"
    buffer = io.BytesIO()
    pickle.Pickler(buffer, 2).dump({b"data": Attack(target), b"labels": []})
    (tmp_path / "test_batch").write_bytes(buffer.getvalue())

    with pytest.raises(DataError, match="refused, it is no pickle of arrays"):
        open_images(tmp_path, "val", 10)

    assert not target.exists()


def test_a_batch_as_python_2_wrote_it_is_read(tmp_path: Path) -> None:
    """The published batches: text and pixels are Python 2's `str`."""
    pixels = bytes(range(256)) * 12
    (tmp_path / "test_batch").write_bytes(
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03K\x07aU\x04dataq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T\x00\x0c\x00\x00" + pixels + b"tbu."
    )

    images, labels = read_batch(tmp_path / "test_batch")

    assert labels == [7]
    assert images.shape == (1, 32, 32, 3)
    assert images.transpose(0, 3, 1, 2).tobytes() == pixels


def test_a_picture_of_extreme_shape_is_refused_instead_of_being_resized(folder: Path) -> None:
    Image.new("RGB", (4000, 1)).save(folder / "train" / "ant" / "0.png")

    with pytest.raises(DecodeError, match="4000 x 1 pixels"):
        ImageFolder(folder / "train").read(0)


def test_folders_get_the_numbers_of_the_classes_that_they_are_named_after(folder: Path) -> None:
    (folder / "train" / "cat").mkdir()
    paint(7).save(folder / "train" / "cat" / "0.png")
    shutil.rmtree(folder / "val" / "ant")
    (folder / "val" / "bee").rename(folder / "val" / "Bee")
    names = image_class_names(folder)

    source = open_images(folder, "val", 3, names)

    assert {source.entry(i)[1] for i in range(len(source))} == {1}
    (folder / "val" / "Bee").rename(folder / "val" / "wasp")
    (folder / "val" / "ant").mkdir()
    with pytest.raises(DataError, match="1 of 2 classes are not among the 3"):
        open_images(folder, "val", 3, names)


def test_folders_of_other_names_are_numbered_by_their_order(folder: Path) -> None:
    source = open_images(folder, "val", 2, ("tench", "goldfish"))

    assert [source.entry(i)[1] for i in range(len(source))] == [0, 0, 0, 1, 1, 1]


def test_cifar_labels_take_the_meaning_of_the_networks_classes(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    backwards = image_class_names(tmp_path)[::-1]

    as_given, own = (open_images(tmp_path, "val", 10, names) for names in (backwards, ()))

    assert [as_given.entry(i)[1] for i in range(4)] == [9 - own.entry(i)[1] for i in range(4)]


def test_a_few_folders_of_other_names_are_not_scored_as_the_first_classes(folder: Path) -> None:
    """Ten of ImageNet's folders, of a network whose thousand classes have names in words."""
    words = ("tench", "goldfish", "shark")

    with pytest.raises(DataError, match=r"2 classes, none of .* network's 3; name the folders so"):
        open_images(folder, "val", 3, words)

    (folder / "val" / "bat").mkdir()
    source = open_images(folder, "val", 3, words)
    assert [source.entry(i)[1] for i in range(len(source))] == [0, 0, 0, 2, 2, 2]


def test_val_takes_the_order_of_the_folders_that_were_trained_on(folder: Path) -> None:
    words = ("tench", "goldfish")
    shutil.rmtree(folder / "val" / "ant")

    source = open_images(folder, "val", 2, words)

    assert {source.entry(i)[1] for i in range(len(source))} == {1}
    (folder / "val" / "cat").mkdir()
    with pytest.raises(DataError, match="cat is not among the 2 folders of train/"):
        open_images(folder, "val", 2, words)


def test_folders_named_by_numbers_are_not_put_in_the_order_of_their_names_as_text(
    tmp_path: Path,
) -> None:
    words = [f"class {label}" for label in range(11)]
    for label in range(11):
        (tmp_path / "val" / str(label)).mkdir(parents=True)
    paint(1).save(tmp_path / "val" / "10" / "0.png")

    assert open_images(tmp_path, "val", 11).entry(0)[1] == 2  # by these names it is trained, too
    with pytest.raises(DataError, match="10 stands before 2; give all numbers as many digits"):
        open_images(tmp_path, "val", 11, words)

    for label in range(11):
        (tmp_path / "val" / str(label)).rename(tmp_path / "val" / f"{label:02}")
    assert open_images(tmp_path, "val", 11, words).entry(0)[1] == 10


def test_ten_classes_are_not_those_of_a_network_with_more_of_other_names(tmp_path: Path) -> None:
    write_cifar(tmp_path)

    with pytest.raises(DataError, match=r"10 classes, none of .* network's 11"):
        open_images(tmp_path, "val", 11, [f"class {label}" for label in range(11)])
