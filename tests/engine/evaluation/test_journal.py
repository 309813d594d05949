import os
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_run import NUM_CLASSES, MadeVideos, made_score, made_video, prepare

from octvideo.data.lists.video_list import VideoEntry
from octvideo.data.storage.part import Part
from octvideo.engine.evaluation.evaluate import evaluate
from octvideo.engine.evaluation.journal import Journal, fingerprint, stamp_of, weights_digest
from octvideo.errors import OctvideoError


@pytest.fixture
def scores():
    return np.random.default_rng(0).random((6, 5), np.float32)


def test_scores_come_back_bit_for_bit(tmp_path, scores):
    Journal(tmp_path, "f").note(7, scores)

    known = Journal(tmp_path, "f", rank=1).load((6, 5))

    assert known.keys() == {7}
    assert known[7].tobytes() == scores.tobytes()


def test_a_line_cut_anywhere_is_ignored_and_harms_no_other(tmp_path, scores):
    journal = Journal(tmp_path, "f")
    journal.note(0, scores)
    whole = journal.path.read_bytes()
    journal.note(1, scores)
    both = journal.path.read_bytes()

    for end in range(len(whole), len(both)):
        journal.path.write_bytes(both[:end])
        journal.note(2, scores)
        assert journal.load((6, 5)).keys() == {0, 2}, end


def test_a_flipped_digit_is_noticed(tmp_path, scores):
    journal = Journal(tmp_path, "f")
    journal.note(3, scores)
    text = journal.path.read_bytes()
    journal.path.write_bytes(text.replace(b'"video": 3', b'"video": 4'))

    assert journal.load((6, 5)) == {}


def test_scores_of_another_shape_are_not_taken(tmp_path, scores):
    journal = Journal(tmp_path, "f")
    journal.note(0, scores)

    assert journal.load((6, 4)) == {}


def test_another_checkpoint_list_or_chunk_has_another_journal(tmp_path, scores):
    parts = {"checkpoint": "abc", "paths": ["a.mp4"], "view_chunk": 10}
    Journal(tmp_path, fingerprint(**parts)).note(0, scores)

    for name, other in {"checkpoint": "abd", "paths": ["b.mp4"], "view_chunk": 5}.items():
        assert Journal(tmp_path, fingerprint(**(parts | {name: other}))).load((6, 5)) == {}
    assert Journal(tmp_path, fingerprint(**parts)).load((6, 5)).keys() == {0}


def test_weights_are_known_by_name_shape_type_and_value():
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2)}
    others = [
        {"a": state["a"], "c": state["b"]},
        {"a": state["a"].view(3, 2), "b": state["b"]},
        {"a": state["a"], "b": torch.zeros(1, dtype=torch.float64)},
        {"a": state["a"] + 1, "b": state["b"]},
    ]

    digests = {weights_digest(each) for each in (state, *others)}

    assert len(digests) == 5
    assert weights_digest({name: tensor.clone() for name, tensor in state.items()}) in digests
    assert weights_digest(state, {"act": "softmax"}) not in digests


def test_a_finished_journal_removes_itself_and_no_other(tmp_path, scores):
    other, journal = Journal(tmp_path, "e"), Journal(tmp_path, "f")
    other.note(0, scores)
    journal.note(0, scores)

    journal.remove()

    assert list(tmp_path.iterdir()) == [other.folder]
    other.note(1, scores)
    assert other.load((6, 5)).keys() == {0, 1}


def test_a_video_that_was_replaced_is_scored_again(tmp_path, scores):
    journal = Journal(tmp_path, "f")
    for video in range(3):
        journal.note(video, scores, stamp=f"stamp {video}")

    assert journal.load((6, 5), ["stamp 0", "another", "stamp 2"]).keys() == {0, 2}
    assert journal.load((6, 5), ["stamp 0"]).keys() == {0}


def change_content(path):
    status = path.stat()
    path.write_bytes(b"of another size")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_time(path):
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("change", [change_content, change_time, os.unlink])
@pytest.mark.parametrize("kind", ["file", "folder of frames"])
def test_another_content_has_another_stamp(tmp_path, change, kind):
    video = tmp_path / "video"
    if kind != "file":
        video.mkdir()
    file = video if kind == "file" else video / "00001.jpg"
    file.write_bytes(b"frame")
    before = stamp_of(str(video))
    assert before == stamp_of(str(video)) != ""

    change(file)

    assert stamp_of(str(video)) != before


def test_a_video_that_its_list_reads_otherwise_is_scored_again(tmp_path):
    def read(*read_as: str) -> list[int]:
        videos, indices = MadeVideos(3), []
        videos.read_as = read_as

        def noted(left):
            indices.extend(left)
            return map(made_video, left)

        videos.read = noted
        journal = Journal(tmp_path, "key")
        evaluate(made_score, videos, num_classes=NUM_CLASSES, prepare=prepare, journal=journal)
        return indices

    assert read("", "8 a_{}.jpg", "0 100 7 ") == [0, 1, 2]
    assert read("", "8 a_{}.jpg", "0 100 7 ") == []
    assert read("", "9 a_{}.jpg", "0 100 8 ") == [1, 2]


def test_lists_say_how_folders_and_parts_are_read():
    frames = VideoEntry("a", (), 8, "a_{}.jpg")
    part = VideoEntry("a", part=Part("x.tar", 0, 100, 7))
    others = [frames, frames._replace(num_frames=9), frames._replace(template="b_{}.jpg"), part]
    others.append(part._replace(part=Part("x.tar", 0, 100, 8)))

    assert len({entry.read_as for entry in others}) == len(others)
    assert VideoEntry("a", (1,)).read_as == ""


@pytest.mark.parametrize("path", ["nowhere", "a\0b", "s3://bucket/a.mp4"])
def test_of_what_is_not_there_nothing_is_known(path):
    assert stamp_of(path) == ""


def test_a_full_disk_is_one_line(tmp_path, scores):
    journal = Journal(tmp_path, "f")
    journal.note(0, scores)
    journal.path = Path("/dev/full")

    with pytest.raises(OctvideoError, match=r"/dev/full: cannot be written .No space left"):
        journal.note(1, scores)

    assert journal.load((6, 5)).keys() == {0}
