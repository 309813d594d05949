"""What precisions are compared on: lists that share no video, and numbers of the same videos."""

import numpy as np
import pytest


@pytest.fixture
def precision(benchmarks):
    return benchmarks("precision")


@pytest.fixture
def data(tmp_path):
    names = [f"{number}.mp4" for number in range(30)]
    for split, part in (("train", names[:20]), ("test", names[20:])):
        (tmp_path / f"{split}.csv").write_text("".join(f"{name} 0\n" for name in part))
    folds = (f"{name},{number % 3}\n" for number, name in enumerate(names))
    (tmp_path / "folds.csv").write_text("path,fold\n" + "".join(folds))
    (tmp_path / "class_names.txt").write_text("wave\n")
    return tmp_path


@pytest.mark.parametrize(("fold", "tested"), [(None, range(20, 30)), (1, range(1, 30, 3))])
def test_no_video_is_on_two_lists(precision, data, fold, tested):
    folder = precision.write_lists(data, fold, data / "lists")

    fit, checks, test = (
        {line.split()[0] for line in (folder / f"{split}.csv").read_text().splitlines()}
        for split in ("train", "val", "test")
    )
    assert test == {f"{number}.mp4" for number in tested}
    assert len(fit) + len(checks) + len(test) == len(fit | checks | test) == 30


def test_int8_is_calibrated_and_checked_by_turns(precision, data):
    folder = precision.write_lists(data, None, data / "lists")
    fit, checks = (
        [str(data / line.split()[0]) for line in (folder / f"{split}.csv").read_text().splitlines()]
        for split in ("train", "val")
    )

    found = precision.calibration_videos(folder, data)

    assert set(found[::2]) <= set(fit)
    assert found[1::2] == checks


def test_a_precision_is_compared_with_fp32_on_the_same_videos(precision):
    labels = np.array([0, 0, 1, 1])
    expected = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    scores = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1]])

    top1, _, against, same, change = precision.compared(scores, expected, labels)

    assert (top1, same, change) == ("50.0 of 4", "75.0 %", "0.2000")
    assert against.startswith("-25.0 (")


def test_motion_is_colored_and_the_rest_gray(precision):
    frames = np.zeros((60, 8, 40), np.uint8)
    for number in range(40):
        frames[number, :4, number] = 200
    frames[:, 4:] = 90

    found = precision.as_motion(list(frames))

    assert found.shape == (40, 8, 40, 3)
    assert (found[:, 4:] == 90).all()
    earlier, now, later = (found[20, 0, :, channel].argmax() for channel in range(3))
    assert now - earlier == later - now == 3
