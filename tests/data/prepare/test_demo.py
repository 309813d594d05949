"""The demo clips: reversed pairs, nothing in a single frame, textures apart, the same on every
machine run."""

import numpy as np
import pytest
import torch

from octvideo.data.lists.video_list import read_list
from octvideo.data.prepare import demo
from octvideo.data.prepare.demo import CLASS_NAMES, make_clip, write_demo_data

SMALL = {"train": 8, "val": 2, "test": 3}


@pytest.mark.parametrize("pair", range(len(CLASS_NAMES) // 2))
def test_the_classes_of_a_pair_are_one_clip_played_forwards_and_backwards(pair):
    forwards, backwards = make_clip(2 * pair, seed=3), make_clip(2 * pair + 1, seed=3)

    assert forwards.shape == (demo.NUM_FRAMES, demo.HEIGHT, demo.WIDTH, 3)
    assert np.array_equal(forwards[::-1], backwards)
    assert not np.array_equal(forwards, backwards)


@pytest.mark.parametrize(("label", "shift"), [(0, (0, -1)), (1, (0, 1)), (2, (-1, 0)), (3, (1, 0))])
def test_a_class_moves_as_its_name_says(label, shift):
    clip = torch.from_numpy(make_clip(label, seed=5)).float()

    def change_along(direction):
        steps = range(1, 5)
        moved = [clip[:-2].roll([k * d for d in direction], dims=(1, 2)) for k in steps]
        return min((m - clip[2:])[:, 8:-8, 8:-8].abs().mean().item() for m in moved)

    assert change_along(shift) < 0.8 * change_along((-shift[0], -shift[1]))


def test_clips_are_a_function_of_their_seed():
    assert np.array_equal(make_clip(4, seed=1), make_clip(4, seed=1))
    assert not np.array_equal(make_clip(4, seed=1), make_clip(4, seed=2))


def test_held_out_textures_are_of_other_kinds():
    assert not set(demo.TRAINING_TEXTURES) & set(demo.HELD_OUT_TEXTURES)


def test_no_two_clips_share_a_seed():
    seeds = {
        demo._clip_seed(s, split, i)
        for s in range(3)
        for split in demo.NUM_CLIPS
        for i in range(400)
    }

    assert len(seeds) == 3 * 3 * 400


def test_lists_and_class_names_are_written_beside_the_clips(tmp_path):
    write_demo_data(tmp_path, num_clips=SMALL)

    for split, count in SMALL.items():
        videos = read_list(tmp_path / f"{split}.csv", num_classes=len(CLASS_NAMES))
        assert [video.label for video in videos] == [i % 8 for i in range(count)]
        assert all(video.path.endswith(".mp4") for video in videos)
    assert (tmp_path / "class_names.txt").read_text().splitlines() == list(CLASS_NAMES)


def test_the_same_seed_writes_the_same_bytes_and_keeps_what_is_there(tmp_path):
    write_demo_data(tmp_path / "a", num_clips=SMALL, num_threads=2)
    write_demo_data(tmp_path / "b", num_clips=SMALL, num_threads=1)
    kept = tmp_path / "a" / "train" / "seed0_0000.mp4"
    before = kept.stat().st_mtime_ns
    write_demo_data(tmp_path / "a", num_clips=SMALL)

    for path in (tmp_path / "a").rglob("*.mp4"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    assert kept.stat().st_mtime_ns == before
