import numpy as np
import pytest

from octvideo.engine.evaluation.journal import Journal, fingerprint


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


def test_a_finished_journal_leaves_nothing_nor_do_those_given_up(tmp_path, scores):
    Journal(tmp_path, "e").note(0, scores)
    journal = Journal(tmp_path, "f")
    journal.note(0, scores)

    journal.remove()

    assert list(tmp_path.iterdir()) == []
